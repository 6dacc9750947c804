"""What each side of a migration has measured of itself, for the gates that decide whether it goes on."""

from typing import ClassVar

import msgspec

from quickcomm.contracts.messaging import Request

MAX_SAMPLES = 2_000
"""Of a stage, the newest ones."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a module since `since_ns`. `recent_`: of the last minute.

    `stages_ms`: durations by stage. `compared`: answers of this side that were held against the other side's; `alike`
    of them were the same. `noise`: of those held against this side's own second answer, how many differed, of how many.
    `different`: where the newest ones differed, without what they say. Of audio: `left`, conversations that the other
    side should have; `unbalanced`, those that ended with a ledger that does not add up; `recent_not_back`, clients that
    were sent there and did not come.
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
    left: int = 0
    unbalanced: int = 0
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
