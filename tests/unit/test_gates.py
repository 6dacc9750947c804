"""Gates: nothing passes without samples, what is worse is a breach by name, and the bounds keep their promise."""

import math
import random
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.contracts.evidence import RECENT, Measured, Shadowed
from quickcomm.contracts.migration import Figure, Hearings
from quickcomm.traffic.adapters.understood import recently_alike
from quickcomm.traffic.model.gates import REQUIRED, SHADOW_PATIENCE, Evidence, Limits, SideEvidence, Verdict, judge
from quickcomm.traffic.model.ladder import MODULES
from quickcomm.traffic.model.statistics import difference, fewest_for_quantile, quantile_bounds, wilson

LIMITS: Final = Limits()
TRIALS: Final = 400
P95: Final = 0.95
replace = msgspec.structs.replace


def times(n: int, factor: float, seed: int) -> tuple[float, ...]:
    """Return latencies with a long tail, in ms."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    return tuple(factor * chance.lognormvariate(5.0, 0.5) for _ in range(n))


def good(n: int = 3_000, seconds: float = 600.0) -> Evidence:
    """Return evidence by which every module passes."""
    side = SideEvidence(
        conversations=n,
        answered=n,
        errors=0,
        recent_errors=0,
        recent_refused=0,
        queue_age_s=0.1,
        oldest_unanswered_s=0.5,
    )
    return Evidence(
        seconds=seconds,
        service=replace(side, stages_ms={"answer": times(n, 1.0, 1)}),
        monolith=replace(side, stages_ms={"answer": times(n, 1.0, 2)}),
        agreement=(n - n // 50, n),
        heard=Hearings(utterances=n, words=8 * n, wrong=n // 50, missed=n // 100, extra=n // 100),
        differences=0,
        unbalanced=0,
        recent_fenced=0,
        recent_not_taken_over=0,
        left=0,
        conversations_per_hour=100.0,
        budgets_ms={"answer": 1_000.0},
    )


def service(evidence: Evidence, **changed: object) -> Evidence:
    return replace(evidence, service=replace(evidence.service, **changed))


MONOLITH: Final = good().monolith


def tail(factor: float, n: int = 3_000) -> Evidence:
    """Return evidence of a service of which three answers in a hundred take so many times as long as the slowest."""
    usual = times(n, 1.0, 1)
    slow = tuple(factor * max(usual) for _ in range(n * 3 // 100))
    return service(good(), stages_ms={"answer": usual[len(slow) :] + slow})


def canary(evidence: Evidence, module: str = "intelligence") -> Verdict:
    return judge(module, "canary", evidence, LIMITS)


@pytest.mark.parametrize(("module", "mode"), sorted(REQUIRED))
def test_what_is_as_good_passes(module: str, mode: str) -> None:
    assert judge(module, mode, good(), LIMITS).outcome == "pass", judge(module, mode, good(), LIMITS)


@pytest.mark.parametrize(("module", "mode"), sorted(REQUIRED))
def test_nothing_measured_waits_and_says_what_is_missing(module: str, mode: str) -> None:
    verdict = judge(module, mode, Evidence(why_not={"errors": "the edge does not count them"}), LIMITS)
    assert verdict.outcome == "wait"
    assert {figure.name for figure in verdict.figures} == REQUIRED[module, mode]
    assert "not measured" in str(verdict)
    assert ("the edge does not count them" in str(verdict)) == ("errors" in REQUIRED[module, mode])


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("mode", ["off", "retired"])
def test_no_gate_passes_where_there_is_none(module: str, mode: str) -> None:
    assert judge(module, mode, good(), LIMITS).outcome == "wait"


@pytest.mark.parametrize(("module", "mode"), sorted(REQUIRED))
def test_one_missing_figure_is_enough_to_wait(module: str, mode: str) -> None:
    whole, lacking = (
        good(),
        {
            "differences": replace(good(), differences=None),
            "agreement": replace(good(), agreement=None),
            "latency": service(good(), stages_ms={}),
            "errors": service(good(), errors=None),
            "recent errors": service(good(), recent_errors=None),
            "queue age": service(good(), queue_age_s=None),
            "oldest unanswered": service(good(), oldest_unanswered_s=None),
            "ledgers": replace(good(), unbalanced=None),
            "fenced writes": replace(good(), recent_fenced=None),
            "left": replace(good(), left=None),
            "word errors": replace(good(), heard=None),
            "missed or extra": replace(good(), heard=None),
        },
    )
    for name in REQUIRED[module, mode]:
        assert judge(module, mode, lacking[name], LIMITS).outcome == "wait", name
    assert judge(module, mode, whole, LIMITS).outcome == "pass"


@pytest.mark.parametrize(
    ("name", "evidence"),
    [
        ("oldest unanswered", service(good(), oldest_unanswered_s=8.1)),
        ("queue age", service(good(), queue_age_s=9.0)),
        ("recent errors", service(good(), recent_errors=5)),
        ("refused decisions", service(good(), recent_refused=3)),
        ("differences", replace(good(), differences=1)),
        ("errors", service(good(), errors=200)),
        ("latency", replace(service(good(), stages_ms={"answer": times(3_000, 1.6, 3)}), budgets_ms={})),
        ("latency", replace(service(good(), stages_ms={"answer": times(3_000, 1.6, 3)}), budgets_ms={"answer": 200.0})),
        ("agreement", replace(good(), agreement=(2_500, 3_000))),
        ("recent agreement", replace(good(), recently_alike=(2, 8))),
        ("latency p99", replace(tail(3.0), budgets_ms={"answer": 900.0})),
        (
            "cpu",
            replace(service(good(), cpu_ms=times(100, 2.4, 5)), monolith=replace(MONOLITH, cpu_ms=times(100, 0.3, 6))),
        ),
    ],
)
def test_a_breach_names_its_figure(name: str, evidence: Evidence) -> None:
    verdict = canary(evidence)
    assert verdict.outcome == "breach"
    named = [figure.name for figure in verdict.of("breach")]
    assert named[0] == name
    assert set(named) <= ({"latency", "latency p99"} if name == "latency" else {name})
    assert str(verdict).startswith(f"{name}: ")


@pytest.mark.parametrize("module", ["dashboard", "intelligence"])
@pytest.mark.parametrize("late", [{"queue_age_s": 30.0}, {"silent_s": LIMITS.silent_s + 1}])
def test_a_service_that_is_late_stops_a_canary_and_not_a_shadow(module: str, late: dict[str, float]) -> None:
    evidence = service(good(), **late)
    assert judge(module, "canary", evidence, LIMITS).outcome == "breach"
    assert judge(module, "shadow", evidence, LIMITS).outcome != "breach"
    assert judge(module, "shadow", service(good(), queue_age_s=30.0), LIMITS).outcome == "wait"


def test_a_module_at_full_does_not_wait_for_answers_of_the_monolith_that_serves_nothing() -> None:
    idle = replace(MONOLITH, answered=0, errors=0, stages_ms={})
    evidence = replace(good(), monolith=idle, agreement=None)
    assert judge("intelligence", "full", evidence, LIMITS).outcome == "pass"
    canary = judge("intelligence", "canary", evidence, LIMITS)
    assert "errors" in {figure.name for figure in canary.of("wait")}
    failing = service(evidence, recent_errors=LIMITS.errors)
    assert judge("intelligence", "full", failing, LIMITS).outcome == "breach"


def test_a_shadow_that_is_silent_for_long_is_stopped() -> None:
    evidence = service(good(), silent_s=LIMITS.silent_s * SHADOW_PATIENCE + 1)
    assert judge("dashboard", "shadow", evidence, LIMITS).outcome == "breach"


def test_stop_rules_need_no_samples_but_the_bad_ones() -> None:
    """Whatever else is missing."""
    for bad in ({"recent_errors": 5}, {"recent_refused": 3}, {"queue_age_s": 60.0}, {"oldest_unanswered_s": 60.0}):
        assert canary(service(Evidence(), **bad)).outcome == "breach"


@pytest.mark.parametrize("n", [0, 1, 20, 50])
def test_few_samples_wait_however_good_and_say_how_many_are_missing(n: int) -> None:
    verdict = canary(good(n, seconds=100.0))
    assert verdict.outcome == "wait"
    for figure in verdict.of("wait"):
        assert figure.missing is not None
        assert (figure.in_s is not None) == (n > 0)
        if not figure.name.startswith("latency"):
            assert figure.name not in {each.name for each in canary(good(n + figure.missing)).of("wait")}


def test_a_stage_that_the_monolith_does_not_have_waits() -> None:
    evidence = service(good(), stages_ms={"answer": times(500, 1.0, 1), "other": times(500, 1.0, 1)})
    assert [figure.name for figure in canary(evidence).of("wait")] == ["latency", "latency p99"]


# -- p99, CPU time, and figures as numbers ----------------------------------------------------------------------------


def cpu(ours: tuple[float, ...] | None, theirs: tuple[float, ...] | None) -> Evidence:
    return replace(service(good(), cpu_ms=ours), monolith=replace(MONOLITH, cpu_ms=theirs))


def of(name: str, verdict: Verdict) -> Figure:
    [found] = [figure for figure in verdict.figures if figure.name == name]
    return found


def test_a_long_tail_is_seen_by_the_99th_percentile_alone_against_twice_the_budget() -> None:
    verdict = canary(replace(tail(3.0), budgets_ms={"answer": 900.0}))
    assert of("latency", verdict).outcome == "pass"
    [numbers] = of("latency p99", verdict).numbers
    assert (numbers.quantile, numbers.limit, numbers.margin, numbers.outcome) == (0.99, 1_800.0, 1.25, "breach")
    assert canary(replace(tail(3.0), budgets_ms={"answer": 1e6})).outcome == "pass"


def test_the_99th_percentile_says_how_many_samples_are_missing_and_holds_up_a_canary_alone() -> None:
    few = good(300, seconds=100.0)
    few = replace(few, agreement=(300, 300))
    figure = of("latency p99", canary(few))
    assert (figure.outcome, figure.missing) == ("wait", 368 - 300)
    [numbers] = figure.numbers
    assert numbers.service.high is None, "so few samples have no upper bound"
    assert numbers.service.value is not None
    assert "latency p99" not in {each.name for each in judge("intelligence", "shadow", few, LIMITS).figures}


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        (times(60, 0.02, 5), times(60, 0.02, 6), "pass"),
        (times(60, 0.001, 5), times(60, 0.02, 6), "pass"),
        (times(60, 0.02, 5), times(60, 0.01, 6), "wait"),
        (times(60, 0.08, 5), times(60, 0.01, 6), "breach"),
        (times(5, 0.08, 5), times(60, 0.01, 6), "wait"),
        ((), times(60, 0.01, 6), "wait"),
    ],
)
def test_cpu_time_is_a_breach_only_where_it_is_clearly_more(
    ours: tuple[float, ...], theirs: tuple[float, ...], outcome: str
) -> None:
    verdict = canary(cpu(ours, theirs))
    figure = of("cpu", verdict)
    assert (figure.outcome, verdict.outcome) == (outcome, outcome)
    assert (figure.missing is not None) == (outcome == "wait")
    [numbers] = figure.numbers
    assert (numbers.unit, numbers.quantile, numbers.margin) == ("ms", 0.5, LIMITS.cpu_margin)
    assert (numbers.service.samples, numbers.monolith and numbers.monolith.samples) == (len(ours), len(theirs))
    shadow = judge("intelligence", "shadow", cpu(ours, theirs), LIMITS)
    assert shadow.outcome == ("breach" if outcome == "breach" else "pass"), "a shadow is not held up by it"


def test_who_does_not_measure_its_cpu_time_is_not_held_up() -> None:
    for evidence in (cpu(None, times(60, 1.0, 1)), cpu(times(60, 1.0, 1), None)):
        assert canary(evidence).outcome == "pass"
        assert "cpu" not in {figure.name for figure in canary(evidence).figures}


def test_a_cpu_time_that_is_worse_by_the_margin_passes_as_seldom_as_stated() -> None:
    outcomes = [
        of("cpu", canary(cpu(times(40, 2.0, seed), times(40, 1.0, seed + TRIALS)))).outcome for seed in range(TRIALS)
    ]
    assert outcomes.count("pass") / TRIALS <= 0.05 + 0.03
    assert outcomes.count("breach") / TRIALS <= 0.01


@pytest.mark.parametrize("n", [0, 1, 50, 3_000])
def test_every_figure_is_in_numbers_that_json_has(n: int) -> None:
    evidence = replace(good(n), service=replace(good(n).service, cpu_ms=times(n, 1.0, 5)))
    evidence = replace(evidence, monolith=replace(evidence.monolith, cpu_ms=times(n, 1.0, 6)))
    verdict = canary(evidence)
    assert {"latency", "latency p99", "cpu", "errors", "agreement", "differences", "queue age"} <= {
        figure.name for figure in verdict.figures
    }
    for figure in verdict.figures:
        assert figure.numbers, figure.name
        assert msgspec.json.decode(msgspec.json.encode(figure), type=Figure) == figure, "nothing is infinite"
        assert figure.outcome in {each.outcome for each in figure.numbers}
    both = service(good(), stages_ms={"answer": times(500, 1.0, 1), "queue": times(500, 1.0, 3)})
    assert [each.what for each in of("latency", canary(both)).numbers] == ["answer", "queue"]


def test_an_audit_of_an_older_release_has_figures_without_numbers() -> None:
    old = b'[{"name":"errors","outcome":"pass","detail":"0 of 9","missing":null,"in_s":null}]'
    assert msgspec.json.decode(old, type=tuple[Figure, ...]) == (
        Figure(name="errors", outcome="pass", detail="0 of 9"),
    )


counts = st.integers(0, 60).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))


@given(counts, counts, st.one_of(st.none(), st.integers(0, 3)), st.one_of(st.none(), st.floats(0, 20)))
def test_few_samples_never_pass(
    ours: tuple[int, int], theirs: tuple[int, int], differences: int | None, age: float | None
) -> None:
    sides = [SideEvidence(answered=of - n, errors=n, queue_age_s=age) for n, of in (ours, theirs)]
    evidence = Evidence(service=sides[0], monolith=sides[1], differences=differences)
    verdict = judge("dashboard", "canary", evidence, LIMITS)
    assert verdict.outcome != "pass"
    if age is None and not differences:
        assert verdict.outcome == "wait" or ours[0] > 0


# -- audio ------------------------------------------------------------------------------------------------------------


def heard(found: Hearings, mode: str = "shadow") -> Verdict:
    return judge("audio", mode, replace(good(), heard=found), LIMITS)


def test_audio_that_nobody_hears_as_well_leaves_the_shadow_only_by_force() -> None:
    why_not = {"word errors": "nobody hears it"}
    verdict = judge("audio", "shadow", replace(good(), heard=None, why_not=why_not), LIMITS)
    assert (verdict.outcome, str(verdict)) == ("wait", "missed or extra: not measured; word errors: nobody hears it")


def test_without_a_wrong_word_it_takes_as_many_utterances_as_an_agreement() -> None:
    assert [heard(Hearings(utterances=n, words=20 * n)).outcome for n in (0, 3, 24, 25)] == [
        "wait",
        "wait",
        "wait",
        "pass",
    ]
    [words, _] = heard(Hearings(utterances=5, words=100)).of("wait")
    assert words.detail == "0 of 100 words in 5 utterances, at most 10%; about 20 samples are missing"
    assert (words.missing, words.in_s) == (20, 2_400.0)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Hearings(utterances=30, words=200, wrong=180), "word errors: 180 of 200 words"),
        (Hearings(utterances=30, words=200, wrong=190, missed=29), "missed or extra: 29 missed and 0 too many of 30"),
        (Hearings(utterances=30, words=200, wrong=20, extra=25), "missed or extra: 0 missed and 25 too many of 30"),
        (Hearings(extra=5, wrong=30), "word errors: 30 of 0 words"),
    ],
)
def test_a_side_that_hears_otherwise_is_a_breach(found: Hearings, says: str) -> None:
    for mode in ("shadow", "canary"):
        verdict = heard(found, mode)
        assert verdict.outcome == "breach"
        assert says in str(verdict)


@given(st.integers(0, 24), st.integers(1, 60), st.data())
def test_few_utterances_never_pass_whatever_is_in_them(utterances: int, each: int, data: st.DataObject) -> None:
    words = utterances * each
    found = Hearings(utterances=utterances, words=words, wrong=data.draw(st.integers(0, 2 * words)))
    assert heard(found).outcome != "pass"


@pytest.mark.parametrize(
    ("evidence", "says"),
    [
        (replace(good(), unbalanced=1), "ledgers: 1 do not add up"),
        (replace(good(), recent_not_taken_over=5), "not taken over: 5 in a minute"),
        (replace(good(), recent_fenced=3), "fenced writes: 3 in a minute"),
    ],
)
def test_what_stops_a_migration_of_audio(evidence: Evidence, says: str) -> None:
    for mode in ("canary", "full"):
        verdict = judge("audio", mode, evidence, LIMITS)
        assert verdict.outcome == "breach"
        assert says in str(verdict)


def test_a_monolith_with_conversations_left_is_not_stopped() -> None:
    evidence = replace(good(), left=2)
    assert judge("audio", "canary", evidence, LIMITS).outcome == "pass", "clients that cannot resume may stay"
    verdict = judge("audio", "full", evidence, LIMITS)
    assert (verdict.outcome, str(verdict)) == ("wait", "left: 2 conversations are not handed over yet")


# -- the bounds -------------------------------------------------------------------------------------------------------


def test_published_values() -> None:
    """Newcombe (1998): 81 of 263 by Wilson's score; 56 of 70 less 48 of 80 by method 10, both with 95 % two-sided."""
    assert wilson(81, 263, 0.975) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert difference((56, 70), (48, 80), 0.975) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert fewest_for_quantile(P95, 0.95) == 59


@pytest.mark.parametrize("n", [60, 137, 1_000])
def test_an_upper_bound_of_p95_is_below_it_as_seldom_as_stated(n: int) -> None:
    """Exponential: its 95th percentile is known."""
    chance, true = random.Random(n), -math.log(0.05)  # noqa: S311 - to be repeated
    bounds = [quantile_bounds([chance.expovariate(1.0) for _ in range(n)], P95, 0.95) for _ in range(TRIALS)]
    assert sum(high < true for _, high in bounds) / TRIALS <= 0.05 + 0.03
    assert sum(low > true for low, _ in bounds) / TRIALS <= 0.05 + 0.03
    assert all(low <= high for low, high in bounds)


def passed(p_ours: float, p_theirs: float, n: int) -> tuple[float, float]:
    """Return the shares of simulated candidates that pass, and that are a breach."""
    chance = random.Random(7)  # noqa: S311 - to be repeated
    outcomes = []
    for _ in range(TRIALS):
        errors = [sum(chance.random() < p for _ in range(n)) for p in (p_ours, p_theirs)]
        sides = [SideEvidence(answered=n - each, errors=each, queue_age_s=0.0) for each in errors]
        evidence = Evidence(service=sides[0], monolith=sides[1], differences=0)
        outcomes.append(judge("dashboard", "canary", evidence, LIMITS).outcome)
    return outcomes.count("pass") / TRIALS, outcomes.count("breach") / TRIALS


def test_a_candidate_that_is_as_good_passes() -> None:
    passes, breaches = passed(0.005, 0.005, 1_500)
    assert passes >= 0.9
    assert breaches == 0.0


def test_a_candidate_that_is_worse_by_the_margin_passes_as_seldom_as_stated() -> None:
    passes, breaches = passed(0.015, 0.005, 1_500)
    assert passes <= 0.05 + 0.03
    assert breaches <= 0.05 + 0.03


def test_a_candidate_that_is_much_worse_is_a_breach() -> None:
    passes, breaches = passed(0.05, 0.005, 1_500)
    assert passes == 0.0
    assert breaches >= 0.95


def test_what_is_within_its_budget_may_be_slower_than_the_monolith() -> None:
    slower = service(good(), stages_ms={"answer": times(3_000, 1.6, 3)})
    assert judge("dashboard", "canary", replace(slower, budgets_ms={"answer": 10_000.0}), Limits()).outcome == "pass"
    as_slow = replace(good(), budgets_ms={"answer": 1.0})
    assert judge("dashboard", "canary", as_slow, Limits()).outcome == "pass"


def test_some_newest_answers_that_differ_are_chance() -> None:
    """A language model whose answers agree by nine tenths is not stopped by the other tenth coming at once."""
    assert canary(replace(good(), recently_alike=(3, 8))).outcome == "pass"


def test_the_newest_comparisons_are_those_of_all_processes() -> None:
    def side(*newest: tuple[int, bool]) -> Measured:
        return Measured(side="service", shadow=Shadowed(recent=newest))

    one, other = side(*((at, True) for at in range(RECENT))), side((20, False), (21, False))
    assert recently_alike((one, other)) == (RECENT - 2, RECENT)
    assert recently_alike((other, None)) is None, "too few"
