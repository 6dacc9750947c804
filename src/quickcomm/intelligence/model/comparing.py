"""Fields in which two sides understood an utterance otherwise. Pure.

Each field is compared over all insights of the utterance, whatever their order. What differs from call to call though
nothing is wrong is left out: wording, confidence, evidence, model, prompt, revision.
"""

from collections.abc import Callable, Sequence
from typing import Final

from quickcomm.contracts.insight import Insight

NUMBER: Final = "number"
"""One side found more insights than the other: then their fields are not compared."""
_FIELDS: Final[dict[str, Callable[[Insight], object]]] = {
    "intent": lambda one: one.intent,
    "department": lambda one: one.department,
    "urgency": lambda one: one.urgency,
    "rooms": lambda one: sorted(one.rooms),
    "unverified": lambda one: sorted(one.unverified),
    "items": lambda one: sorted((" ".join(item.name.casefold().split()), item.quantity) for item in one.items),
}
TASKS: Final = "tasks"
"""It opens a task."""
FIELDS: Final = (NUMBER, *_FIELDS, TASKS)


def differing(
    served: Sequence[Insight], shadow: Sequence[Insight], opens_task: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return the names of the fields that differ; none where both sides understood the same."""
    if len(served) != len(shadow):
        return (NUMBER,)
    fields = {**_FIELDS, TASKS: lambda one: opens_task(one.intent)}
    return tuple(name for name, value in fields.items() if _values(served, value) != _values(shadow, value))


def _values(insights: Sequence[Insight], value: Callable[[Insight], object]) -> list[str]:
    return sorted(repr(value(one)) for one in insights)
