"""Tells what a message or a record is about, whatever its kind: of which utterance, and whether it has a name in it."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from quickcomm.contracts.erasing import Scope, Wanted, conversation_of
from quickcomm.kernel.errors import MALFORMED

SPOKEN: Final = frozenset({"text", "summary", "assignee", "completed_by", "by", "channel"})
"""Fields with words of people, or with their names."""


class _Task(msgspec.Struct):
    task_id: str = ""


class _What(msgspec.Struct):
    """`tasks`: those that were closed or handed over with a conversation, with the names of their assignees."""

    utterance_id: str = ""
    tasks: tuple[_Task, ...] = ()

    def is_erased(self, site: str, scope: Scope) -> bool:
        return any(scope.has(site, task.task_id.rpartition(":")[0]) for task in self.tasks)


class About(msgspec.Struct, frozen=True):
    """The ids in a message of any stream, a decision included. Empty where it is about a conversation as a whole."""

    site: str = ""
    conversation_id: str = ""
    utterance_id: str = ""
    spoken_at_ns: int = 0
    text: str | None = None
    what: _What | None = None

    @property
    def utterance(self) -> str:
        return self.utterance_id or (self.what.utterance_id if self.what is not None else "")

    @property
    def conversation(self) -> str:
        return self.conversation_id or conversation_of(self.utterance)


_about: Final = msgspec.json.Decoder(About)


def about(payload: bytes) -> About | None:
    """Return the ids in a message; None for one that cannot be read."""
    try:
        return _about.decode(payload)
    except MALFORMED:
        return None


def is_erased(payload: bytes, key: str, scope: Scope) -> bool:
    """Return True if a message has words of what is to be erased. What cannot be read is judged by its key."""
    found = about(payload)
    if found is not None and found.what is not None and found.what.tasks:
        return found.what.is_erased(found.site, scope)
    if found is None or not found.conversation:
        return key in scope.conversations or (found is None and key in scope.touched())
    if found.site != scope.site:
        return False
    if found.utterance:
        return found.conversation in scope.conversations or found.utterance in scope.utterances
    # A summary has words of all that was said; a change of the conversation has none.
    return found.text is not None and found.conversation in scope.touched()


def is_meant(payload: bytes, wanted: Wanted) -> str | None:
    """Return the id of the utterance of a message that the name or the time stands for."""
    found = about(payload)
    if found is None or found.site != wanted.site or not found.utterance:
        return None
    if wanted.name:
        return found.utterance if has_name(payload, wanted.name) else None
    return found.utterance if wanted.since_ns <= found.spoken_at_ns < wanted.until_ns else None


def has_name(payload: bytes, name: str) -> bool:
    """Return True if a JSON value has the name as words in a field that people's words or names are in."""
    pattern = _pattern(name)
    if b"\\" not in payload and pattern.search(payload.decode(errors="replace")) is None:
        return False  # quicker than to read it
    try:
        value = msgspec.json.decode(payload)
    except MALFORMED:
        return False
    return any(pattern.search(text) for text in _texts(value))


def mentions(text: str | None, name: str) -> bool:
    """Return True if a text has the name in it, as words."""
    return text is not None and _pattern(name).search(text) is not None


@lru_cache(maxsize=16)
def _pattern(name: str) -> re.Pattern[str]:
    words = r"\W+".join(map(re.escape, name.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def _texts(value: Any, field: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, field)
    elif isinstance(value, str) and field in SPOKEN:
        yield value
