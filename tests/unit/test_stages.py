"""The waterfall, the budgets, and the last minutes against them."""

import msgspec
import pytest
from prometheus_client import REGISTRY

from quickcomm.cli.trace import drawn
from quickcomm.contracts.timing import Latency
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.telemetry.live import ENOUGH, MAX_SAMPLES, WINDOW_S, LiveStages
from quickcomm.kernel.telemetry.settings import Budget, budget_with_model
from quickcomm.kernel.telemetry.stages import STAGES, StageHealth, waterfall

WHOLE = Latency(endpoint=520, stt=300, publish=4, queue=3, classify=20, store=8, push=1, total=856)
SLOW_STORE = msgspec.structs.replace(WHOLE, stt=20, store=700, total=1268)


def test_the_budgets_sum_to_a_second() -> None:
    budget = Budget()
    to_the_push = sum(getattr(budget, stage.name) for stage in STAGES if stage.name != "painted")
    assert to_the_push <= budget.total
    assert budget.total + budget.painted <= 1000


def test_every_stage_of_a_receipt_has_a_budget_and_words() -> None:
    names = {stage.name for stage in STAGES}
    assert names | {"total"} == {*Latency.__struct_fields__, "painted"} - {"sides"} == set(Budget.__struct_fields__)
    assert all(stage.words for stage in STAGES)


def test_a_model_may_take_its_time_and_nothing_else_may() -> None:
    budget = budget_with_model(Budget(), 3.0)
    assert budget.classify == 3000
    assert budget.total == Budget().total - Budget().classify + 3000
    assert msgspec.structs.replace(budget, classify=60, total=950) == Budget()
    assert budget_with_model(Budget(), 0.0) == Budget()


def test_stages_follow_each_other() -> None:
    fall = waterfall(WHOLE, Budget(), 30.0)
    assert [step.stage for step in fall.steps] == [stage.name for stage in STAGES]
    at = 0.0
    for step in fall.steps:
        assert step.start_ms == pytest.approx(at)
        at += step.ms
    assert fall.total_ms == 856
    assert fall.complete
    assert fall.broke == ("stt",)
    assert not fall.over
    assert fall.verdict == "Over budget: Speech to text (stt, of audio) took 300 ms of 200 ms allowed."


def test_of_several_the_one_furthest_over_is_named_first() -> None:
    fall = waterfall(msgspec.structs.replace(SLOW_STORE, stt=250), Budget())
    assert fall.broke == ("store", "stt")
    assert fall.over
    said = "Over budget: Saving the result (store, of dashboard) took 700 ms of 35 ms allowed; Speech"
    assert fall.verdict.startswith(said)


def test_all_well_alone_and_too_long_together() -> None:
    budget = Budget(total=500)
    fall = waterfall(msgspec.structs.replace(WHOLE, stt=100, total=656), budget)
    assert fall.over
    assert fall.broke == ()
    assert fall.verdict == "Every stage kept its budget, but together they took 656 ms of 500 ms allowed."


def test_where_all_is_well_the_longest_stage_is_named() -> None:
    fall = waterfall(
        msgspec.structs.replace(WHOLE, stt=10, classify=2_500, total=3_046), budget_with_model(Budget(), 3)
    )
    assert fall.broke == ()
    assert fall.verdict == "Every stage kept its budget; the longest was Understanding (classify), 2500 ms."


def test_what_a_stage_could_not_do_is_said_first_however_quick_it_was() -> None:
    fall = waterfall(WHOLE, Budget(), None, {"classify": "got no answer"})
    assert fall.failed == ("classify",)
    assert fall.verdict == (
        "Understanding (classify, of intelligence) got no answer. "
        "Over budget: Speech to text (stt, of audio) took 300 ms of 200 ms allowed."
    )


def test_what_is_not_over_yet_says_so() -> None:
    fall = waterfall(Latency(endpoint=500.0, stt=100.0), Budget())
    assert not fall.complete
    assert fall.total_ms == 600
    assert waterfall(Latency(), Budget()).verdict == "No stage was measured."


def test_the_terminal_shows_the_same() -> None:
    view = {
        "utterance_id": "talk:0:1",
        "channel": "radio",
        "spoken_at": None,
        "trace_id": "ab" * 16,
        **msgspec.to_builtins(waterfall(SLOW_STORE, Budget(), 12.0)),
    }
    lines = drawn(view, bar="#")
    [store] = [line for line in lines if line.startswith("Saving the result")]
    assert "700.0 ms of    35 ms" in store
    assert store.endswith("OVER BUDGET")
    bars = {line.split("ms  ")[1].find("#") for line in lines if "ms  " in line}
    assert len(bars) > 1, "a bar begins where the one before ends"
    assert "End of speech to page: 1268.0 ms of 950 ms  OVER BUDGET" in lines
    assert all(line.isascii() for line in lines)


class Watch:
    def __init__(self, budget: Budget | None = None) -> None:
        self.clock = FakeClock()
        self.live = LiveStages(self.clock, lambda: budget or Budget())

    def of(self, name: str) -> StageHealth:
        [stage] = [stage for stage in self.live.health() if stage.stage == name]
        return stage


def test_percentiles_of_the_last_minutes() -> None:
    watch = Watch()
    for ms in range(1, 101):
        watch.live.observe(Latency(stt=float(ms), total=float(ms)))
    watch.clock.advance(2)
    stt = watch.of("stt")
    assert (stt.count, stt.p50_ms, stt.p95_ms, stt.p99_ms) == (100, 50, 95, 99)
    assert stt.used == 0.475
    assert stt.breach == ""
    watch.clock.advance(WINDOW_S)
    assert watch.live.health() == ()


def test_a_budget_is_broken_by_many_and_named_in_words() -> None:
    watch = Watch()
    for _ in range(ENOUGH - 1):
        watch.live.observe(Latency(store=500.0))
    assert watch.of("store").breach == "", "of so few nothing can be said"
    watch.live.observe(Latency(store=500.0))
    assert watch.of("store").breach == "Saving the result (store) takes 500 ms (95th percentile); 35 ms are allowed."
    assert watch.of("store").used == pytest.approx(500 / 35, abs=0.001)
    scraped = REGISTRY.get_sample_value("quickcomm_budget_used_ratio", {"stage": "store", "side": ""})
    assert scraped == watch.of("store").used


def test_it_stays_bounded_and_the_histogram_exact() -> None:
    watch = Watch()
    before = REGISTRY.get_sample_value("quickcomm_stage_seconds_count", {"stage": "push", "side": ""}) or 0.0
    for _ in range(MAX_SAMPLES * 2):
        watch.live.observe(Latency(push=1.0))
    watch.live.painted(16.0)
    watch.clock.advance(2)
    assert watch.of("push").count == MAX_SAMPLES
    assert watch.of("painted").count == 1
    after = REGISTRY.get_sample_value("quickcomm_stage_seconds_count", {"stage": "push", "side": ""})
    assert after == before + MAX_SAMPLES * 2
