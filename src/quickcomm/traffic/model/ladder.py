"""The stages of a migration in their order, and which one comes next."""

from collections.abc import Sequence
from typing import Final

import msgspec

from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.routes import MONOLITH, Mode, ModuleRoute, Side

MODULES: Final = ("dashboard", "intelligence", "audio")
"""In the order in which they leave the monolith; they go back in the reverse one."""
WEIGHTS: Final = (100, 500, 2_500, 5_000)
FEWEST: Final = 3
"""A step of which fewer conversations are expected shows nothing."""
PER_CENT: Final = BUCKETS // 100


class Stage(msgspec.Struct, frozen=True):
    mode: Mode
    weight: int = 0

    def __str__(self) -> str:
        return f"canary {self.weight / PER_CENT:g} %" if self.mode == "canary" else self.mode


OFF: Final = Stage("off")
SHADOW: Final = Stage("shadow")
FULL: Final = Stage("full", BUCKETS)
RETIRED: Final = Stage("retired", BUCKETS)
MODES: Final[tuple[Mode, ...]] = ("off", "shadow", "canary", "full", "retired")
BOTH_SERVE: Final = frozenset({"canary", "full"})
LADDER: Final = (OFF, SHADOW, *(Stage("canary", weight) for weight in WEIGHTS), FULL, RETIRED)


def stage_of(route: ModuleRoute) -> Stage:
    """Return the stage that a route is of."""
    return Stage(route.mode, route.weight)


def route_of(stage: Stage, before: ModuleRoute) -> ModuleRoute:
    """Return the final route of a stage. Nothing keeps a side of its own unless both sides serve."""
    return msgspec.structs.replace(
        before if stage.mode in BOTH_SERVE else ModuleRoute(base=before.base, candidate=before.candidate),
        mode=stage.mode,
        weight=stage.weight,
        decides=before.candidate if stage.weight == BUCKETS else before.base,
    )


def next_stage(at: Stage, goal: Side, expected: float | None = None) -> tuple[Stage | None, Sequence[Stage]]:
    """Return the next stage to the goal, None at the end, and the stages that were skipped.

    `expected`: conversations in the bake time of a step, on both sides; None: unknown, nothing is skipped.
    """
    if goal == MONOLITH:
        return next((stage for stage in reversed(LADDER) if _place(stage) < _place(at)), None), ()
    skipped: list[Stage] = []
    for stage in (stage for stage in LADDER if _place(stage) > _place(at)):
        if stage.mode == "canary" and expected is not None and expected * stage.weight / BUCKETS < FEWEST:
            skipped.append(stage)
            continue
        return stage, skipped
    return None, ()


def _place(stage: Stage) -> tuple[int, int]:
    """Return where a stage is on the way, also one whose weight was set by hand."""
    return MODES.index(stage.mode), stage.weight
