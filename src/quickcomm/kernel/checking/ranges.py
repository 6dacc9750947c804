"""The ranges of conversations that changed lately, for a check of less than everything."""

from typing import Final

import msgspec

from quickcomm.contracts.checking import Conversations, Key, RecentAudio, RecentDashboard
from quickcomm.kernel.checking.checker import Ask, Range
from quickcomm.kernel.errors import QuickCommError

BEHIND: Final = ";"
"""Sorts behind all ids of utterances of a conversation, which begin with its own and a colon."""
LAST: Final = "\U0010ffff"


async def recent_ranges(ask: Ask, since_ns: int) -> list[Range]:
    """Return a range for each conversation that audio or the dashboard has seen change since then.

    A module that does not answer is left out: the check itself tells of it.
    """
    keys: set[Key] = set()
    for request in (RecentAudio(since_ns=since_ns), RecentDashboard(since_ns=since_ns)):
        try:
            answer = await ask(request)
        except QuickCommError:
            continue
        found = answer if isinstance(answer, Conversations) else msgspec.convert(answer, Conversations)
        keys.update(found.keys)
    return [((site, before(name)), (site, name + BEHIND)) for site, name in sorted(keys)]


def before(name: str) -> str:
    """Return a text that sorts before `name`, with no id between them."""
    return name[:-1] + chr(ord(name[-1]) - 1) + LAST
