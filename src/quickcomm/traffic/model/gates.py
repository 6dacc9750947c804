"""Gates: may a module go one step further, by what was measured? Pure.

Non-inferiority: a figure passes when its bound says, with the stated confidence, that the service is not worse than
the monolith by more than a margin. It is a breach when the other bound says that it is worse than that. Between the
two, and without samples, it waits. Stop rules count instead, so that a few bad answers are enough, and seconds.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

import msgspec

from quickcomm.contracts.migration import Figure, Hearings, Outcome, Understandings
from quickcomm.traffic.model.statistics import difference, fewest, fewest_for_quantile, quantile_bounds, wilson

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
P95: Final = 0.95


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

    `recent_errors`, `recent_refused`, `recent_fenced`: of the last minute; the last are writes for
    conversations of another owner. `stages_ms`: samples of each stage.
    """

    conversations: int | None = None
    answered: int | None = None
    errors: int | None = None
    recent_errors: int | None = None
    recent_refused: int | None = None
    recent_fenced: int | None = None
    stages_ms: Mapping[str, tuple[float, ...]] = {}
    queue_age_s: float | None = None
    oldest_unanswered_s: float | None = None
    silent_s: float | None = None
    """For so long none of its processes has answered the controller."""
    cpu_ms: float | None = None
    """Per utterance; shown, and not decided by."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Of a module. `agreement`: alike, of how many that both sides have. `differences`: between what they have."""

    seconds: float = 0.0
    """For which it was gathered."""
    service: SideEvidence = SideEvidence()
    monolith: SideEvidence = SideEvidence()
    agreement: tuple[int, int] | None = None
    understood: Understandings | None = None
    """Of intelligence; shown, and decided by as `agreement` and as a stage."""
    heard: Hearings | None = None
    """Of audio: what both sides heard of the same sound."""
    recent_different: int | None = None
    """Answers that were otherwise on the other side, of the last minute."""
    differences: int | None = None
    unbalanced: int | None = None
    """Conversations that ended with a ledger that does not add up."""
    recent_not_taken_over: int | None = None
    """Clients that were sent to the other side within the last minute, and did not come."""
    left: int | None = None
    """Conversations that are not where the routes say, yet."""
    conversations_per_hour: float | None = None
    budgets_ms: Mapping[str, float] = {}
    why_not: Mapping[str, str] = {}
    """By figure: the reason why it was not measured."""


WORDS: Final = "word errors"
UTTERANCES: Final = "missed or extra"
HEARD: Final = frozenset({WORDS, UTTERANCES})
"""Figures about what both sides of audio heard."""
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
    found = (*_figures(evidence, limits), *(_left(evidence) if "left" in required else ()))
    measured = tuple(each for each in found if each.name in required or not _is_idle(each, evidence))
    lacking = sorted(required - {figure.name for figure in measured})
    figures = (*measured, *(_unmeasured(name, evidence) for name in lacking))
    outcomes = {figure.outcome for figure in figures}
    outcome: Outcome = "breach" if "breach" in outcomes else "wait" if "wait" in outcomes or not required else "pass"
    return Verdict(outcome=outcome, figures=figures)


# -- inside -----------------------------------------------------------------------------------------------------------


def _unmeasured(name: str, evidence: Evidence) -> Figure:
    return Figure(name=name, outcome="wait", detail=evidence.why_not.get(name, "not measured"))


def _is_idle(figure: Figure, evidence: Evidence) -> bool:
    """Return True for a share of errors of a service without answers: waiting for it gains nothing."""
    return figure.name == "errors" and figure.outcome == "wait" and not sum(_rate(evidence.service) or ())


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
        yield Figure(name="differences", outcome=outcome, detail=f"{evidence.differences} between the sides")
    if evidence.unbalanced is not None:
        outcome = "breach" if evidence.unbalanced else "pass"
        yield Figure(name="ledgers", outcome=outcome, detail=f"{evidence.unbalanced} do not add up")
    yield from _fewer("fenced writes", ours.recent_fenced, limits.refused)
    yield from _fewer("not taken over", evidence.recent_not_taken_over, limits.not_taken_over)
    yield from _errors(evidence, limits)
    yield from _latencies(evidence, limits)
    yield from _agreement(evidence, limits)
    yield from _heard(evidence, limits)


def _left(evidence: Evidence) -> Iterator[Figure]:
    """Yield what a side that is to be stopped still has."""
    if evidence.left is not None:
        detail = f"{evidence.left} conversations are not handed over yet"
        yield Figure(name="left", outcome="wait" if evidence.left else "pass", detail=detail)


def _at_most(name: str, found_s: float | None, limit_s: float) -> Iterator[Figure]:
    if found_s is not None:
        outcome = _outcome(passes=found_s <= limit_s, fails=found_s > limit_s)
        yield Figure(name=name, outcome=outcome, detail=f"{found_s:.1f} s, at most {limit_s:.1f} s")


def _fewer(name: str, found: int | None, limit: int) -> Iterator[Figure]:
    if found is not None:
        outcome = _outcome(passes=found < limit, fails=found >= limit)
        yield Figure(name=name, outcome=outcome, detail=f"{found} in a minute, fewer than {limit}")


def _errors(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    ours, theirs = _rate(evidence.service), _rate(evidence.monolith)
    if ours is None or theirs is None:
        return
    _, high = difference(ours, theirs, limits.confidence)
    low, _ = difference(ours, theirs, limits.alarm_confidence)
    detail = f"{ours[0]} of {ours[1]}, monolith {theirs[0]} of {theirs[1]}"
    have = min(ours[1], theirs[1])
    passes = high <= limits.error_margin and have >= limits.answers
    outcome = _outcome(passes=passes, fails=low > limits.error_margin)
    if not ours[1] or not theirs[1]:
        detail = f"{detail}: no samples of both sides"
    if outcome != "wait":
        yield Figure(name="errors", outcome=outcome, detail=detail)
        return

    def enough(n: int) -> bool:
        p1 = ours[0] / ours[1] if ours[1] else 0.0
        p2 = theirs[0] / theirs[1] if theirs[1] else 0.0
        of = max(n, theirs[1])
        return difference((p1 * n, n), (p2 * of, of), limits.confidence)[1] <= limits.error_margin

    yield _waits("errors", detail, have, fewest(enough, limits.answers), evidence.seconds)


def _rate(side: SideEvidence) -> tuple[int, int] | None:
    """Return errors, of all answers."""
    if side.errors is None or side.answered is None:
        return None
    return side.errors, side.errors + side.answered


def _latencies(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    """Yield one figure for all stages: each is within its budget, and within the margin of the monolith."""
    stages = evidence.service.stages_ms
    if not stages:
        return
    found = [_latency(stage, evidence, limits) for stage in sorted(stages)]
    for outcome in ("breach", "wait", "pass"):
        chosen = [figure for figure in found if figure.outcome == outcome]
        if chosen:
            missing = [figure.missing for figure in chosen if figure.missing is not None]
            in_s = [figure.in_s for figure in chosen if figure.in_s is not None]
            yield Figure(
                name="latency",
                outcome=chosen[0].outcome,
                detail="; ".join(figure.detail for figure in chosen),
                missing=max(missing, default=None),
                in_s=max(in_s, default=None),
            )
            return


def _latency(stage: str, evidence: Evidence, limits: Limits) -> Figure:
    """Compare bounds of both 95th percentiles; both must hold, so each has half of the error that is allowed.

    What is within its budget passes, however fast the monolith is; what is beyond it must not be slower than that.
    """
    ours = evidence.service.stages_ms.get(stage, ())
    theirs = evidence.monolith.stages_ms.get(stage, ())
    budget = evidence.budgets_ms.get(stage)
    confidence = 1 - (1 - limits.confidence) / 2
    _, high = quantile_bounds(ours, P95, confidence)
    their_low, _ = quantile_bounds(theirs, P95, confidence)
    low, _ = quantile_bounds(ours, P95, limits.alarm_confidence)
    _, their_high = quantile_bounds(theirs, P95, limits.alarm_confidence)
    passes = (budget is not None and high <= budget) or high <= limits.latency_margin * their_low
    fails = low > limits.latency_margin * their_high and (budget is None or low > budget)
    detail = f"{stage} p95 at most {_ms(high)} of {len(ours)}, monolith at least {_ms(their_low)} of {len(theirs)}"
    outcome = _outcome(passes=passes, fails=fails)
    if outcome == "breach":
        detail = f"{stage} p95 at least {_ms(low)} of {len(ours)}, monolith at most {_ms(their_high)} of {len(theirs)}"
        return Figure(name=stage, outcome=outcome, detail=detail + (f", budget {_ms(budget)}" if budget else ""))
    if outcome == "pass":
        return Figure(name=stage, outcome=outcome, detail=detail)
    have = min(len(ours), len(theirs))
    needed = fewest_for_quantile(P95, confidence)
    return _waits(stage, detail, have, needed if have < needed else 2 * have, evidence.seconds)


def _agreement(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    if evidence.agreement is None:
        return
    n, of = evidence.agreement
    low, _ = wilson(n, of, limits.confidence)
    _, high = wilson(n, of, limits.alarm_confidence)
    detail = f"{n} of {of} alike, at least {limits.agreement:.0%}"
    if not of:
        detail = f"nothing was compared yet, at least {limits.agreement:.0%} must be alike"
    outcome = _outcome(passes=low >= limits.agreement, fails=high < limits.agreement)
    if outcome != "wait":
        yield Figure(name="agreement", outcome=outcome, detail=detail)
        return
    share = n / of if of else 1.0
    needed = fewest(lambda size: wilson(share * size, size, limits.confidence)[0] >= limits.agreement)
    yield _waits("agreement", detail, of, needed, evidence.seconds)


def _heard(evidence: Evidence, limits: Limits) -> Iterator[Figure]:
    """Yield how the side that does not serve has heard the same sound; the other one's text is the reference.

    The words of an utterance may all be wrong for one reason, so that each utterance counts as one sample.
    """
    found = evidence.heard
    if found is None:
        return
    of = found.utterances
    wrong = found.wrong / found.words if found.words else float(bool(found.extra))
    detail = f"{found.wrong} of {found.words} words in {of} utterances"
    yield _rare(WORDS, detail, (wrong, of or found.extra), limits.word_errors, limits, evidence.seconds)
    detail = f"{found.missed} missed and {found.extra} too many of {of} utterances"
    lost = found.missed + found.extra
    yield _rare(
        UTTERANCES, detail, (lost / max(of, lost, 1), max(of, lost)), limits.utterance_errors, limits, evidence.seconds
    )


def _rare(name: str, detail: str, found: tuple[float, int], limit: float, limits: Limits, seconds: float) -> Figure:
    """Hold a share, of so many samples, to its limit."""
    share, of = min(1.0, found[0]), found[1]
    _, high = wilson(share * of, of, limits.confidence)
    low, _ = wilson(share * of, of, limits.alarm_confidence)
    detail = f"{detail}, at most {limit:.0%}"
    outcome = _outcome(passes=high <= limit, fails=low > limit)
    if outcome != "wait":
        return Figure(name=name, outcome=outcome, detail=detail)
    needed = fewest(lambda size: wilson(share * size, size, limits.confidence)[1] <= limit)
    return _waits(name, detail, of, needed, seconds)


def _outcome(*, passes: bool, fails: bool) -> Outcome:
    return "breach" if fails else "pass" if passes else "wait"


def _waits(name: str, detail: str, have: int, needed: int | None, seconds: float) -> Figure:
    """Say how many samples are missing, and about how long they take at the rate so far."""
    missing = None if needed is None else max(1, needed - have)
    in_s = missing * seconds / have if missing is not None and have and seconds else None
    more = "no number of samples like these is enough" if missing is None else f"about {missing} samples are missing"
    return Figure(name=name, outcome="wait", detail=f"{detail}; {more}", missing=missing, in_s=in_s)


def _ms(found: float) -> str:
    return "unknown" if math.isinf(found) else f"{found:.0f} ms"
