"""What an utterance asks for. The vocabulary of intents and departments belongs to the site pack."""

from typing import Annotated, Final, Literal

import msgspec

Urgency = Literal["low", "normal", "high", "critical"]
Source = Literal["llm", "local"]

TASK_DONE: Final = "task_done"
"""The intent of a report that a job is finished."""
CLOSING_CONFIDENCE: Final = 0.55
"""How sure such a report must be to close a task; less sure ones are information (figures: docs/benchmarks.md)."""


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A thing that is asked for. `quantity` is 1 unless a number was said."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The words of the text that support a value: each entry is a substring of the text, as it stands there."""

    rooms: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    urgency: tuple[str, ...] = ()


class Insight(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing asked. `rooms` are as written on the door; `unverified` are those that the registry does not know."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    revision: Annotated[int, msgspec.Meta(ge=1)] = 1
    intent: str
    department: str
    urgency: Urgency
    rooms: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    summary: Annotated[str, msgspec.Meta(max_length=80)]
    confidence: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
    source: Source = "local"
    degraded: bool = False
    prompt_version: str | None = None
    model: str
    evidence: Evidence = Evidence()
