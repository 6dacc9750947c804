"""What each side of a migration has measured of itself, for the gates that decide whether it goes on."""

from typing import ClassVar

import msgspec

from quickcomm.contracts.messaging import Request

MAX_SAMPLES = 2_000
"""Of a stage, the newest ones."""


MAX_DIFFERENCES = 50
"""Utterances that both sides understood otherwise, the newest ones."""
RECENT = 8
"""So many of the newest comparisons stop a side that has just begun to understand otherwise."""


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """The price of understanding utterances: calls to the language model, and money in the currency of the settings."""

    answers: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class FieldAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """A field of insights: alike on both sides in so many utterances, of how many."""

    name: str
    alike: int
    of: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance that both sides understood otherwise. `by`: the side that was the shadow. Without what was said."""

    at_ns: int
    by: str
    conversation_id: str
    utterance_id: str
    fields: tuple[str, ...]


class Shadowed(msgspec.Struct, frozen=True, kw_only=True):
    """What a side understood in the shadow of the other one, and published nothing of.

    Of `compared`, `alike` were the same in all fields. `own_ms` and `served_ms`: how long each utterance took here, and
    on the side that served it. `spent`: by this alone. `unanswered`: no answer within the time limit, which counts as
    compared; `unserved`: the other side published none; `degraded`: the other side's was not its model's; `shed`: left
    out, because of too much to do or a used-up budget.
    """

    compared: int = 0
    alike: int = 0
    fields: tuple[FieldAgreement, ...] = ()
    own_ms: tuple[float, ...] = ()
    served_ms: tuple[float, ...] = ()
    spent: Spending = Spending()
    unanswered: int = 0
    unserved: int = 0
    degraded: int = 0
    shed: int = 0
    differences: tuple[Difference, ...] = ()
    recent: tuple[tuple[int, bool], ...] = ()
    """The newest comparisons, the last at the end: when, and whether alike."""


class HeardInShadow(msgspec.Struct, frozen=True, kw_only=True):
    """What a side of audio heard in the shadow of the other one, and published nothing of.

    Of `utterances` that the other side wrote down, with `words` in all, `wrong` were heard otherwise, left out or put
    in; `missed` utterances were not heard at all, and `extra` ones are not among them. `starts_ms`, `ends_ms`: how much
    later each utterance began and ended here. `shed`: utterances left out as served ones waited; `lost`: how often a
    copy broke off, because of sound that was lost on its way or dropped.
    """

    utterances: int = 0
    words: int = 0
    wrong: int = 0
    missed: int = 0
    extra: int = 0
    starts_ms: tuple[float, ...] = ()
    ends_ms: tuple[float, ...] = ()
    shed: int = 0
    lost: int = 0
    differences: tuple[Difference, ...] = ()


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a module since `since_ns`. `recent_`: of the last minute.

    `stages_ms`: durations by stage. `compared`: answers of this side that were held against the other side's; `alike`
    of them were the same. `noise`: of those held against this side's own second answer, how many differed, of how many.
    `different`: where the newest ones differed, without what they say. Of audio: `left`, conversations that the other
    side should have; `unbalanced`, those that ended with a ledger that does not add up; `recent_fenced`, writes for
    conversations of another owner; `recent_not_back`, clients that were sent there and did not come.
    """

    side: str
    since_ns: int = 0
    answered: int = 0
    errors: int = 0
    recent_errors: int = 0
    recent_refused: int = 0
    conversations: int | None = None
    stages_ms: dict[str, tuple[float, ...]] = {}
    oldest_unanswered_s: float | None = None
    recent_different: int = 0
    compared: int = 0
    alike: int = 0
    noise: tuple[int, int] = (0, 0)
    different: tuple[str, ...] = ()
    cpu_s: float = 0.0
    cpu_ms: tuple[float, ...] | None = None
    """CPU time of the process per utterance that it read, of some utterances together each; None: not measured."""
    spent: Spending = Spending()
    """By what it served."""
    shadow: Shadowed | None = None
    """None where it is no shadow of the other side."""
    heard: HeardInShadow | None = None
    """Likewise, of audio."""
    left: int = 0
    unbalanced: int = 0
    recent_fenced: int = 0
    recent_not_back: int = 0


class Measure(Request[Measured], frozen=True, kw_only=True):
    """Asks every process of a module, whichever side it is on."""

    to: ClassVar = "all"
    callers: ClassVar = ("traffic",)
    about: ClassVar = "how it does"

    since_ns: int = 0


class MeasureDashboard(Measure, frozen=True, kw_only=True, tag="measure.dashboard"):
    module: ClassVar = "dashboard"


class MeasureIntelligence(Measure, frozen=True, kw_only=True, tag="measure.intelligence"):
    module: ClassVar = "intelligence"


class MeasureAudio(Measure, frozen=True, kw_only=True, tag="measure.audio"):
    module: ClassVar = "audio"
