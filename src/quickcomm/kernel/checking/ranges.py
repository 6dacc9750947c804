"""Ranges of keys."""

from typing import Final

from quickcomm.contracts.checking import Key

Range = tuple[Key, Key | None]
"""Behind the first key, up to the second; None: to the end."""
BEHIND: Final = ";"
"""Sorts behind all ids of utterances of a conversation, which begin with its own and a colon."""
LAST: Final = "\U0010ffff"


def range_of(conversation: Key) -> Range:
    """Return a range with a conversation and all its utterances; some others may be in it as well."""
    site, name = conversation
    return (site, _before(name)), (site, name + BEHIND)


def _before(name: str) -> str:
    """Return a text that sorts before `name`, with no id between them."""
    return name[:-1] + chr(ord(name[-1]) - 1) + LAST
