"""Gates: may a module go one step further, by what was measured? Pure.

Non-inferiority: a figure passes when its bound says, with the stated confidence, that the service is not worse than
the monolith by more than a margin. It is a breach when the other bound says that it is worse than that. Between the
two, and without samples, it waits. Stop rules count instead, so that a few bad answers are enough, and seconds.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

import msgspec

from quickcomm.contracts.migration import Figure, FigureNumbers, FigureSide, Hearings, Outcome, Understandings
from quickcomm.traffic.model.comparing import Compared, outcome_of, waits
from quickcomm.traffic.model.hearing import HEARD, compared
from quickcomm.traffic.model.statistics import at_most, difference, fewest, wilson

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
P95: Final = 0.95
P99: Final = 0.99
MEDIAN: Final = 0.5
TAIL: Final = "latency p99"
CPU: Final = "cpu"
LATE: Final = frozenset({"queue age", "oldest unanswered", "latency", TAIL})
"""Figures by which a shadow only waits: a service that has just started may have much to catch up with."""
SHADOW_PATIENCE: Final = 5.0
"""So many times as long may a service be silent in the shadow."""
PATIENT: Final = frozenset({TAIL, CPU})
"""Figures that hold up a canary alone: they need more samples than a shadow has."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By which gates decide. `confidence`: of each bound of what passes."""

    confidence: Annotated[float, msgspec.Meta(ge=0.8, lt=1)] = 0.95
    alarm_confidence: Annotated[float, msgspec.Meta(ge=0.8, lt=1)] = 0.9999
    """Of each bound of what is a breach: so much higher, because it is looked at every two seconds."""
    error_margin: Share = 0.01
    """So much higher may the share of errors be."""
    answers: Annotated[int, msgspec.Meta(ge=1)] = 100
    """So many of each side at least, before shares of errors are compared: a monolith that fails proves nothing."""
    latency_margin: Annotated[float, msgspec.Meta(ge=1)] = 1.25
    """So many times as long may the 95th percentile of a stage be."""
    tail_budget: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    """So many times its budget, which is that of the 95th percentile, may the 99th percentile of a stage be."""
    cpu_margin: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    """So many times the monolith's CPU time per utterance may a process of the service take."""
    agreement: Share = 0.9
    """So much of what both sides understood must be alike."""
    word_errors: Share = 0.1
    """So many words may be heard otherwise on the side that does not serve them, left out or put in."""
    utterance_errors: Share = 0.1
    """So many utterances may be missed there, or be too many."""
    oldest_unanswered_s: Annotated[float, msgspec.Meta(gt=0)] = 8.0
    queue_age_s: Annotated[float, msgspec.Meta(gt=0)] = 8.0
    silent_s: Annotated[float, msgspec.Meta(gt=0)] = 6.0
    """Longer than a process takes that is started again after its end."""
    errors: Annotated[int, msgspec.Meta(ge=1)] = 5
    """So many errors of the service within a minute stop it."""
    different: Annotated[int, msgspec.Meta(ge=1)] = 5
    """So many answers within a minute that the other side gives otherwise, and goes on to, stop it."""
    refused: Annotated[int, msgspec.Meta(ge=1)] = 3
    """So many decisions, or writes for conversations of another owner, that the store refused in a minute stop it."""
    not_taken_over: Annotated[int, msgspec.Meta(ge=1)] = 5
    """So many clients within a minute that were sent to the other side, and did not come, stop it."""


class SideEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one side since the stage began. None: not measured, or not measurable yet.

    `recent_errors`, `recent_refused`: of the last minute. `stages_ms`: samples of each stage.
    """

    conversations: int | None = None
    answered: int | None = None
    errors: int | None = None
    recent_errors: int | None = None
    recent_refused: int | None = None
    stages_ms: Mapping[str, tuple[float, ...]] = {}
    queue_age_s: float | None = None
    oldest_unanswered_s: float | None = None
    silent_s: float | None = None
    """For so long none of its processes has answered the controller."""
    cpu_ms: tuple[float, ...] | None = None
    """CPU time per utterance that a process read, of some utterances together each."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Of a module. `agreement`: alike, of how many that both sides have. `differences`: between what they have."""

    seconds: float = 0.0
    """For which it was gathered."""
    service: SideEvidence = SideEvidence()
    monolith: SideEvidence = SideEvidence()
    agreement: tuple[int, int] | None = None
    recently_alike: tuple[int, int] | None = None
    """Count the newest answers alone: many that agreed earlier must not hide new ones that differ."""
    understood: Understandings | None = None
    """Of intelligence; shown, and decided by as `agreement` and as a stage."""
    heard: Hearings | None = None
    """Of audio: what both sides heard of the same sound."""
    recent_different: int | None = None
    """Answers that were otherwise on the other side, of the last minute."""
    differences: int | None = None
    first_difference: str = ""
    """Which one is told, such as `parity.task.differs CONVERSATION:7 status`."""
    unbalanced: int | None = None
    """Conversations that ended with a ledger that does not add up."""
    recent_fenced: int | None = None
    """Writes of the service within the last minute for conversations of another owner."""
    recent_not_taken_over: int | None = None
    """Clients that were sent to the other side within the last minute, and did not come."""
    left: int | None = None
    """Conversations that are not where the routes say, yet."""
    conversations_per_hour: float | None = None
    budgets_ms: Mapping[str, float] = {}
    why_not: Mapping[str, str] = {}
    """By figure: the reason why it was not measured."""


REQUIRED: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("dashboard", "shadow"): frozenset({"differences", "queue age"}),
    ("dashboard", "canary"): frozenset({"differences", "queue age", "errors"}),
    ("dashboard", "full"): frozenset({"differences", "queue age", "recent errors"}),
    ("intelligence", "shadow"): frozenset({"agreement", "queue age", "latency"}),
    ("intelligence", "canary"): frozenset({"agreement", "queue age", "latency", "errors", "oldest unanswered"}),
    ("intelligence", "full"): frozenset({"queue age", "recent errors", "oldest unanswered"}),
    ("audio", "shadow"): HEARD,
    ("audio", "canary"): HEARD | {"latency", "errors", "oldest unanswered", "ledgers", "fenced writes"},
    ("audio", "full"): frozenset({"recent errors", "oldest unanswered", "ledgers", "fenced writes", "left"}),
}
"""By module and mode: the figures without which a gate does not pass. Others count where they are measured."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    outcome: Outcome
    figures: tuple[Figure, ...] = ()

    def of(self, outcome: Outcome) -> tuple[Figure, ...]:
        """Return the figures with this outcome."""
        return tuple(figure for figure in self.figures if figure.outcome == outcome)

    def __str__(self) -> str:
        told = self.of(self.outcome) if self.outcome != "pass" else self.figures
        return "; ".join(f"{figure.name}: {figure.detail}" for figure in told) or self.outcome


def judge(module: str, mode: str, evidence: Evidence, limits: Limits) -> Verdict:
    """Return what the evidence says about one step further. Without a figure that is required: wait."""
    required = REQUIRED.get((module, mode), frozenset())
    if mode == "shadow":
        limits = msgspec.structs.replace(limits, silent_s=limits.silent_s * SHADOW_PATIENCE)
    found = [each for each in _figures(evidence, limits) if mode == "canary" or not _is_patient(each)]
    if mode == "shadow":
        found = list(map(_without_haste, found))
    found = [*found, *(_left(evidence) if "left" in required else ())]
    measured = tuple(each for each in found if each.name in required or not _is_idle(each, evidence))
    lacking = sorted(required - {figure.name for figure in measured})
    figures = (*measured, *(_unmeasured(name, evidence) for name in lacking))
    outcomes = {figure.outcome for figure in figures}
    outcome: Outcome = "breach" if "breach" in outcomes else "wait" if "wait" in outcomes or not required else "pass"
    return Verdict(outcome=outcome, figures=figures)


# -- inside -----------------------------------------------------------------------------------------------------------


def _without_haste(figure: Figure) -> Figure:
    """Wait in the shadow for what is late: it delays no one, and may catch up."""
    is_late = figure.name in LATE and figure.outcome == "breach"
    return msgspec.structs.replace(figure, outcome="wait") if is_late else figure


def _is_patient(figure: Figure) -> bool:
    return figure.name in PATIENT and figure.outcome == "wait"


def _unmeasured(name: str, evidence: Evidence) -> Figure:
    return Figure(name=name, outcome="wait", detail=evidence.why_not.get(name, "not measured"))


def _is_idle(figure: Figure, evidence: Evidence) -> bool:
    """Return True for a share of errors where a side gives no answers at all: waiting for it gains nothing.

    That is the service in the shadow, and at full the monolith.
    """
    answers = [sum(_rate(side) or ()) for side in (evidence.service, evidence.monolith)]
    return figure.name == "errors" and figure.outcome == "wait" and not all(answers)


def _figures(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    """Yield all that is measured."""
    ours = evidence.service
    yield from _at_most("oldest unanswered", ours.oldest_unanswered_s, limits.oldest_unanswered_s)
    yield from _at_most("silent", ours.silent_s, limits.silent_s)
    yield from _at_most("queue age", ours.queue_age_s, limits.queue_age_s)
    yield from _fewer("recent errors", ours.recent_errors, limits.errors)
    yield from _fewer("refused decisions", ours.recent_refused, limits.refused)
    yield from _fewer("other answers", evidence.recent_different, limits.different)
    if evidence.differences is not None:
        outcome: Outcome = "breach" if evidence.differences else "pass"
        such_as = f", such as {evidence.first_difference}" if evidence.first_difference else ""
        detail = f"{evidence.differences} between the sides{such_as}"
        numbers = _counted(evidence.differences, 0, outcome, "count")
        yield Figure(name="differences", outcome=outcome, detail=detail, numbers=numbers)
    if evidence.unbalanced is not None:
        outcome = "breach" if evidence.unbalanced else "pass"
        numbers = _counted(evidence.unbalanced, 0, outcome, "count")
        yield Figure(name="ledgers", outcome=outcome, detail=f"{evidence.unbalanced} do not add up", numbers=numbers)
    yield from _fewer("fenced writes", evidence.recent_fenced, limits.refused)
    yield from _fewer("not taken over", evidence.recent_not_taken_over, limits.not_taken_over)
    yield from _errors(evidence, limits)
    yield from _latencies("latency", P95, evidence, limits)
    yield from _latencies(TAIL, P99, evidence, limits)
    yield from _cpu(evidence, limits)
    yield from _agreement(evidence, limits)
    yield from _recent_agreement(evidence, limits)
    yield from _heard(evidence, limits)


def _left(evidence: Evidence) -> Iterator[Figure]:
    """Yield what a side that is to be stopped still has."""
    if evidence.left is not None:
        outcome: Outcome = "wait" if evidence.left else "pass"
        detail, numbers = (
            f"{evidence.left} conversations are not handed over yet",
            _counted(evidence.left, 0, outcome, "count"),
        )
        yield Figure(name="left", outcome=outcome, detail=detail, numbers=numbers)


def _counted(found: float, limit: float, outcome: Outcome, unit: Literal["s", "count"]) -> tuple[FigureNumbers, ...]:
    return (FigureNumbers(outcome=outcome, unit=unit, service=FigureSide(value=found), limit=limit),)


def _at_most(name: str, found_s: float | None, limit_s: float) -> Iterator[Figure]:
    if found_s is not None:
        outcome = outcome_of(passes=found_s <= limit_s, fails=found_s > limit_s)
        detail = f"{found_s:.1f} s, at most {limit_s:.1f} s"
        yield Figure(name=name, outcome=outcome, detail=detail, numbers=_counted(found_s, limit_s, outcome, "s"))


def _fewer(name: str, found: int | None, limit: int) -> Iterator[Figure]:
    if found is not None:
        outcome = outcome_of(passes=found < limit, fails=found >= limit)
        detail = f"{found} in a minute, fewer than {limit}"
        yield Figure(name=name, outcome=outcome, detail=detail, numbers=_counted(found, limit, outcome, "count"))


def _errors(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    ours, theirs = _rate(evidence.service), _rate(evidence.monolith)
    if ours is None or theirs is None:
        return
    _, high = difference(ours, theirs, limits.confidence)
    low, _ = difference(ours, theirs, limits.alarm_confidence)
    detail = f"{ours[0]} of {ours[1]}, monolith {theirs[0]} of {theirs[1]}"
    have = min(ours[1], theirs[1])
    passes = high <= limits.error_margin and have >= limits.answers
    outcome = outcome_of(passes=passes, fails=low > limits.error_margin)
    if not ours[1] or not theirs[1]:
        detail = f"{detail}: no samples of both sides"
    numbers = FigureNumbers(
        outcome=outcome,
        unit="share",
        service=_proportion(ours, limits.confidence),
        monolith=_proportion(theirs, limits.confidence),
        margin=limits.error_margin,
    )
    if outcome != "wait":
        yield Figure(name="errors", outcome=outcome, detail=detail, numbers=(numbers,))
        return

    def enough(n: int) -> bool:
        p1 = ours[0] / ours[1] if ours[1] else 0.0
        p2 = theirs[0] / theirs[1] if theirs[1] else 0.0
        of = max(n, theirs[1])
        return difference((p1 * n, n), (p2 * of, of), limits.confidence)[1] <= limits.error_margin

    yield waits("errors", detail, have, fewest(enough, limits.answers), evidence.seconds, (numbers,))


def _proportion(found: tuple[int, int], confidence: float) -> FigureSide:
    n, of = found
    low, high = wilson(n, of, confidence)
    return FigureSide(value=n / of if of else None, low=low, high=high, samples=of)


def _rate(side: SideEvidence) -> tuple[int, int] | None:
    """Return errors, of all answers."""
    if side.errors is None or side.answered is None:
        return None
    return side.errors, side.errors + side.answered


def _latencies(name: str, q: float, evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    """Yield one figure for all stages: each is within its budget, and within the margin of the monolith."""
    stages = evidence.service.stages_ms
    if not stages:
        return
    found = [_latency(stage, q, evidence, limits) for stage in sorted(stages)]
    for outcome in ("breach", "wait", "pass"):
        chosen = [figure for figure in found if figure.outcome == outcome]
        if chosen:
            missing = [figure.missing for figure in chosen if figure.missing is not None]
            in_s = [figure.in_s for figure in chosen if figure.in_s is not None]
            yield Figure(
                name=name,
                outcome=chosen[0].outcome,
                detail="; ".join(figure.detail for figure in chosen),
                missing=max(missing, default=None),
                in_s=max(in_s, default=None),
                numbers=tuple(each for figure in found for each in figure.numbers),
            )
            return


def _latency(stage: str, q: float, evidence: Evidence, limits: Limits) -> Figure:
    """Compare bounds of a percentile of both sides.

    What is within its budget passes, however fast the monolith is; what is beyond it must not be slower than that.
    """
    budget = evidence.budgets_ms.get(stage)
    if budget is not None and q == P99:
        budget *= limits.tail_budget
    compared = Compared(
        name=stage,
        what=stage,
        words=f"{stage} p{q * 100:.0f}",
        q=q,
        ours=evidence.service.stages_ms.get(stage, ()),
        theirs=evidence.monolith.stages_ms.get(stage, ()),
        margin=limits.latency_margin,
        budget=budget,
    )
    return compared.figure(limits.confidence, limits.alarm_confidence, evidence.seconds)


def _cpu(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    """Yield how much CPU time an utterance takes at the median, where both sides measure it.

    The monolith's process does more than the module: what is beyond its time by the margin is clearly worse.
    """
    ours, theirs = evidence.service.cpu_ms, evidence.monolith.cpu_ms
    if ours is not None and theirs is not None:
        compared = Compared(
            name=CPU, words="per utterance, median", q=MEDIAN, ours=ours, theirs=theirs, margin=limits.cpu_margin
        )
        yield compared.figure(limits.confidence, limits.alarm_confidence, evidence.seconds)


def _agreement(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    if evidence.agreement is None:
        return
    n, of = evidence.agreement
    low, _ = wilson(n, of, limits.confidence)
    _, high = wilson(n, of, limits.alarm_confidence)
    detail = f"{n} of {of} alike, at least {limits.agreement:.0%}"
    if not of:
        detail = f"nothing was compared yet, at least {limits.agreement:.0%} must be alike"
    outcome = outcome_of(passes=low >= limits.agreement, fails=high < limits.agreement)
    found = _proportion((n, of), limits.confidence)
    numbers = (FigureNumbers(outcome=outcome, unit="share", service=found, limit=limits.agreement),)
    if outcome != "wait":
        yield Figure(name="agreement", outcome=outcome, detail=detail, numbers=numbers)
        return
    share = n / of if of else 1.0
    needed = fewest(lambda size: wilson(share * size, size, limits.confidence)[0] >= limits.agreement)
    yield waits("agreement", detail, of, needed, evidence.seconds, numbers)


def _recent_agreement(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    """Yield a stop rule: it never waits, and so holds nothing up. By the binomial distribution, as they are few."""
    if evidence.recently_alike is None:
        return
    n, of = evidence.recently_alike
    outcome: Outcome = "breach" if at_most(n, of, limits.agreement) < 1 - limits.alarm_confidence else "pass"
    found = _proportion((n, of), limits.alarm_confidence)
    numbers = (FigureNumbers(outcome=outcome, unit="share", service=found, limit=limits.agreement),)
    detail = f"{n} of the newest {of} alike"
    yield Figure(name="recent agreement", outcome=outcome, detail=detail, numbers=numbers)


def _heard(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    if evidence.heard is not None:
        for each in compared(evidence.heard, limits.word_errors, limits.utterance_errors):
            yield each.figure(limits.confidence, limits.alarm_confidence, evidence.seconds)
