"""The stages of an utterance in order, and the waterfall: when each began, how long it took, how long it may."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from quickcomm.contracts.timing import Latency
from quickcomm.kernel.telemetry.settings import Budget


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: as in receipts, budgets and metrics; `span`: as in traces; `words`: for people; `module`: whose it is."""

    name: str
    span: str
    module: str
    words: str


STAGES: Final = (
    Stage(name="endpoint", span="vad", module="audio", words="Waiting for the end of speech"),
    Stage(name="stt", span="stt", module="audio", words="Speech to text"),
    Stage(name="publish", span="publish", module="audio", words="Saving the text"),
    Stage(name="queue", span="queue", module="intelligence", words="Waiting in line"),
    Stage(name="classify", span="classify", module="intelligence", words="Understanding"),
    Stage(name="store", span="store", module="dashboard", words="Saving the result"),
    Stage(name="push", span="push", module="dashboard", words="Sending to pages"),
    Stage(name="painted", span="painted", module="dashboard", words="Showing it on the page"),
)
TOTAL: Final = "total"
_NO_FAULTS: Final[Mapping[str, str]] = MappingProxyType({})


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A stage in the waterfall; milliseconds, `start_ms` since the last speech sample arrived."""

    stage: str
    module: str
    words: str
    start_ms: float
    ms: float
    budget_ms: float
    over: bool
    fault: str = ""
    """What it could not do, however quick it was."""
    side: str | msgspec.UnsetType = msgspec.UNSET
    """The side that served it, during a migration."""


class Waterfall(msgspec.Struct, frozen=True, kw_only=True):
    """`broke`: the stages over their budgets, the one furthest over first; `failed`: those with a fault.

    `verdict` says it in words.
    """

    steps: tuple[Step, ...]
    total_ms: float
    budget_ms: float
    over: bool
    complete: bool
    broke: tuple[str, ...]
    failed: tuple[str, ...] = ()
    verdict: str


class StageHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A stage over the last minutes, in milliseconds. `breach` says in words that its budget is broken, or is empty."""

    stage: str
    words: str
    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    budget_ms: float
    used: float
    breach: str = ""


def waterfall(
    latency: Latency, budget: Budget, painted_ms: float | None = None, faults: Mapping[str, str] = _NO_FAULTS
) -> Waterfall:
    """`total_ms` runs to the push, like the receipt; of an unfinished utterance it is what is known so far.

    `faults`: by stage, what it could not do, as a clause.
    """
    steps: list[Step] = []
    sides = latency.served_by
    at = 0.0
    for stage in STAGES:
        ms = painted_ms if stage.name == "painted" else getattr(latency, stage.name)
        if ms is None:
            continue
        allowed = getattr(budget, stage.name)
        steps.append(
            Step(
                stage=stage.name,
                module=stage.module,
                words=stage.words,
                start_ms=round(at, 3),
                ms=ms,
                budget_ms=allowed,
                over=ms > allowed,
                fault=faults.get(stage.name, ""),
                side=sides.get(stage.module, msgspec.UNSET),
            )
        )
        at += ms
    pushed = sum(step.ms for step in steps if step.stage != "painted")
    total = round(pushed, 3) if latency.total is None else latency.total
    broke = sorted((step for step in steps if step.over), key=lambda step: step.budget_ms - step.ms)
    return Waterfall(
        steps=tuple(steps),
        total_ms=total,
        budget_ms=budget.total,
        over=total > budget.total,
        complete=latency.total is not None,
        broke=tuple(step.stage for step in broke),
        failed=tuple(step.stage for step in steps if step.fault),
        verdict=_verdict(steps, broke, total, budget),
    )


def _verdict(steps: list[Step], broke: list[Step], total: float, budget: Budget) -> str:
    """Of each stage also whose it is: in services it is that process which is to be looked at."""
    if not steps:
        return "No stage was measured."
    said = [f"{step.words} ({step.stage}, of {step.module}) {step.fault}." for step in steps if step.fault]
    if broke:
        slow = [
            f"{step.words} ({step.stage}, of {step.module}) took {step.ms:.0f} ms of {step.budget_ms:.0f} ms allowed"
            for step in broke
        ]
        said.append(f"Over budget: {'; '.join(slow)}.")
    if said:
        return " ".join(said)
    longest = max(steps, key=lambda step: step.ms)
    if total > budget.total:
        return f"Every stage kept its budget, but together they took {total:.0f} ms of {budget.total:.0f} ms allowed."
    return f"Every stage kept its budget; the longest was {longest.words} ({longest.stage}), {longest.ms:.0f} ms."
