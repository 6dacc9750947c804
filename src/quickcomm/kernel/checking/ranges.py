"""Ranges of keys."""

from collections.abc import Iterable
from typing import Final

from quickcomm.contracts.checking import Key

Range = tuple[Key, Key | None]
"""Behind the first key, up to the second; None: to the end."""
BEHIND: Final = ";"
"""Sorts behind all ids of utterances of a conversation, which begin with its own and a colon."""
LAST: Final = "\U0010ffff"


def ranges_of(conversations: Iterable[Key]) -> list[Range]:
    """Return ranges with these conversations and all their utterances; some others may be in them as well."""
    found: list[tuple[Key, Key]] = []
    for after, until in sorted(((site, _before(name)), (site, name + BEHIND)) for site, name in conversations):
        if found and after <= found[-1][1]:
            found[-1] = (found[-1][0], max(until, found[-1][1]))
        else:
            found.append((after, until))
    return list(found)


def _before(name: str) -> str:
    """Return a text that sorts before `name`, with no id between them."""
    return name[:-1] + chr(ord(name[-1]) - 1) + LAST
