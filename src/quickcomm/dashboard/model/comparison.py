"""Compare two JSON answers, and find which of their differences last. Pure."""

from collections import Counter
from typing import Any, Final

Place = tuple[str, ...]
"""Names of fields and ids of items on the way to a value, such as `("items", "tsk_1", "status")`."""
Differences = dict[Place, tuple[Any, Any]]
"""The value of each side at each place where they differ."""

MISSING: Final = object()
IDENTITIES: Final = ("task_id", "utterance_id", "conversation_id", "channel", "name")
"""Fields that identify an item of a list, the most specific first."""


def differences(one: Any, other: Any, ignored: frozenset[str], place: Place = ()) -> Differences:
    """Return where two decoded answers differ. Items of lists are matched by their ids; `ignored`: names of fields."""
    if isinstance(one, list) and isinstance(other, list):
        one, other = _by_identity(one), _by_identity(other)
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return {} if one == other else {place: (one, other)}
    found: Differences = {}
    for name in dict.fromkeys((*one, *other)):
        if name not in ignored:
            found |= differences(one.get(name, MISSING), other.get(name, MISSING), ignored, (*place, name))
    return found


def lasting(before: Differences, now: Differences) -> Differences:
    """Return the differences of `now` that were there before, with the value of at least one side unchanged.

    Where both values changed, both sides work at it, and one is only some milliseconds behind the other.
    """
    return {
        place: values
        for place, values in now.items()
        if place in before and (values[0] == before[place][0] or values[1] == before[place][1])
    }


def where(found: Differences) -> str:
    """Name the first difference without ids and values, such as `items.status`; empty where there is none."""
    return next((".".join(name for name in place if not _is_id(name)) or "value" for place in found), "")


def _by_identity(items: list[Any]) -> dict[str, Any]:
    """Return the items by their ids; those that share one, such as two of a name, are told apart by their order."""
    found: dict[str, Any] = {}
    seen: Counter[str] = Counter()
    for at, item in enumerate(items):
        name = _identity(item, at)
        found[f"{_ID}{name}{_ID}{seen[name]}"] = item
        seen[name] += 1
    return found


_ID: Final = "#"


def _is_id(name: str) -> bool:
    return name.startswith(_ID)


def _identity(item: Any, at: int) -> str:
    if isinstance(item, dict):
        return next((str(item[name]) for name in IDENTITIES if name in item), str(at))
    return str(at)
