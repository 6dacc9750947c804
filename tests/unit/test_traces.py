"""Which traces are kept, decided at the end of an utterance; and that what waits for it stays bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from quickcomm.contracts.timing import Latency
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.telemetry.ids import in_sample, trace_id_in, trace_id_of, traceparent
from quickcomm.kernel.telemetry.settings import Budget, TelemetrySettings
from quickcomm.kernel.telemetry.setup import start_tracing, stop_tracing
from quickcomm.kernel.telemetry.spans import MODULES, Batch, Detail, Kept, Made, Origin, Over, Word
from quickcomm.kernel.telemetry.traces import MAX_DETAILS, OPEN_S, PAINT_WAIT_S, UNFINISHED, WORD_WAIT_S, Traces

AT = 1_700_000_000_000_000_000
QUICK = Latency(endpoint=500, stt=100, publish=5, queue=5, classify=20, store=10, push=1, total=641)
SLOW = Latency(endpoint=500, stt=100, publish=5, queue=5, classify=20, store=900, push=1, total=1531)
HEARD = Latency(endpoint=500, stt=100, publish=5)
UNDERSTOOD = Latency(endpoint=500, stt=100, publish=5, queue=5, classify=20)
CORE = frozenset({"audio", "intelligence"})
PAGE = frozenset({"dashboard"})


class Outbox:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.late: list[tuple[Origin, int, int]] = []
        self.over: list[Over] = []
        self.calls: list[Made] = []
        self.closed = False

    def utterance(self, kept: Kept) -> None:
        self.kept.append(kept)

    def painted(self, origin: Origin, start_ns: int, end_ns: int) -> None:
        self.late.append((origin, start_ns, end_ns))

    def conversation(self, over: Over) -> None:
        self.over.append(over)

    def call(self, made: Made) -> None:
        self.calls.append(made)

    def close(self, timeout_s: float) -> None:
        assert timeout_s > 0
        self.closed = True


class Desk:
    def __init__(self, *, sample: float = 0.0, max_open: int = 5_000, modules: frozenset[str] = MODULES) -> None:
        self.clock, self.outbox = FakeClock(), Outbox()
        self.words: list[Word] = []
        settings = TelemetrySettings(sample=sample, max_open=max_open)
        self.traces = Traces(settings, self.clock, self.outbox, lambda: 1000.0, modules=modules, tell=self.words.append)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.traces.tick()

    @property
    def why(self) -> list[str]:
        return [kept.why for kept in self.outbox.kept]


def origin(number: int = 0) -> Origin:
    return Origin(
        site="main",
        conversation_id="talk",
        utterance_id=f"talk:0:{number}",
        channel="radio",
        spoken_at_ns=AT - 10**9,
        speech_ended_ns=AT,
    )


def detail(error: str = "") -> Detail:
    return Detail(name="llm.call", module="intelligence", stage="classify", start_ns=AT, end_ns=AT + 1, error=error)


def over(ended_ns: int = AT) -> Over:
    return Over(site="main", conversation_id="talk", channel="radio", started_ns=1, ended_ns=ended_ns, state="ended")


def test_an_ordinary_one_outside_the_sample_is_dropped() -> None:
    desk = Desk()
    desk.traces.heard(origin(), HEARD)
    desk.traces.finished(origin(), QUICK)
    desk.wait(PAINT_WAIT_S)
    assert desk.why == []
    assert desk.traces.held == 0


def test_in_the_sample_it_is_kept_with_all_that_is_known() -> None:
    desk = Desk(sample=1.0)
    batch = Batch(name="stt.batch", module="audio", start_ns=AT, end_ns=AT + 5, attributes={})
    desk.traces.heard(origin(), HEARD, batch=batch)
    desk.traces.detail("main", "talk:0:0", detail())
    desk.traces.finished(origin(), QUICK)
    assert desk.why == [], "the page may still say that it has shown it"
    desk.traces.painted("main", "talk:0:0", 17.0)
    [kept] = desk.outbox.kept
    assert (kept.why, kept.latency, kept.painted_ms, kept.error) == ("sampled", QUICK, 17.0, "")
    assert kept.details == (detail(),)
    assert kept.batches == (batch,)
    assert batch.members == [("main", "talk:0:0")]


def test_a_slow_one_is_always_kept() -> None:
    desk = Desk()
    desk.traces.finished(origin(), SLOW)
    desk.wait(PAINT_WAIT_S)
    assert desk.why == ["slow"]


def test_slow_on_the_page_is_slow_too() -> None:
    desk = Desk()
    desk.traces.finished(origin(), QUICK)
    desk.traces.painted("main", "talk:0:0", 400.0)
    assert desk.why == ["slow"]


@pytest.mark.parametrize("where", ["audio", "model"])
def test_a_failed_one_is_always_kept(where: str) -> None:
    desk = Desk()
    desk.traces.heard(origin(), HEARD, error="engine" if where == "audio" else "")
    if where == "model":
        desk.traces.detail("main", "talk:0:0", detail("intelligence.model_timeout"))
    desk.traces.finished(origin(), QUICK)
    desk.wait(PAINT_WAIT_S)
    assert desk.why == ["failed"]


def test_what_never_reaches_the_page_has_failed() -> None:
    desk = Desk()
    desk.traces.heard(origin(), HEARD)
    desk.wait(OPEN_S - 1)
    assert desk.why == []
    desk.wait(1)
    [kept] = desk.outbox.kept
    assert (kept.why, kept.error, kept.latency) == ("failed", UNFINISHED, HEARD)


def test_a_page_that_is_late_still_has_its_span() -> None:
    desk = Desk(sample=1.0)
    desk.traces.finished(origin(), QUICK)
    desk.wait(PAINT_WAIT_S)
    desk.traces.painted("main", "talk:0:0", 20.0)
    desk.traces.painted("main", "talk:0:0", 30.0)
    pushed = AT + 641_000_000
    assert desk.outbox.late == [(origin(), pushed, pushed + 20_000_000)], "once, from where the push ended"


def test_a_monolith_whose_dashboard_has_moved_decides_by_the_receipt_of_the_other_one() -> None:
    desk = Desk(sample=1.0)
    desk.traces.heard(origin(), UNDERSTOOD)
    desk.traces.receipt("main", origin().utterance_id, QUICK)
    desk.wait(OPEN_S)
    assert desk.why == ["sampled"]
    desk.traces.finished(origin(), QUICK)
    desk.wait(OPEN_S)
    assert desk.why == ["sampled"], "where its own dashboard comes later, it is one trace"


def test_a_receipt_seen_twice_is_one_trace() -> None:
    desk = Desk(sample=1.0)
    for _ in range(2):
        desk.traces.finished(origin(), QUICK)
        desk.wait(PAINT_WAIT_S)
    assert desk.why == ["sampled"]


def test_a_conversation_is_told_once_and_only_with_a_trace_of_it() -> None:
    desk = Desk()
    desk.traces.conversation(over())
    assert desk.outbox.over == []
    desk.traces.finished(origin(), SLOW)
    desk.wait(PAINT_WAIT_S)
    desk.traces.conversation(over())
    desk.traces.conversation(over())
    assert desk.outbox.over == [over()]


def test_a_model_that_is_asked_again_long_after_is_nobodys_trace() -> None:
    desk = Desk(sample=1.0)
    desk.traces.detail("main", "talk:0:9", detail())
    desk.wait(OPEN_S)
    assert desk.outbox.kept == []
    assert desk.traces.held == 0


def test_one_of_many_calls_does_not_fill_memory() -> None:
    desk = Desk(sample=1.0)
    desk.traces.heard(origin(), HEARD)
    for _ in range(MAX_DETAILS * 3):
        desk.traces.detail("main", "talk:0:0", detail())
    desk.traces.finished(origin(), QUICK)
    desk.wait(PAINT_WAIT_S)
    assert len(desk.outbox.kept[0].details) == MAX_DETAILS


def test_beyond_its_bound_the_oldest_are_decided_as_they_are() -> None:
    desk = Desk(sample=1.0, max_open=3)
    for number in range(10):
        desk.traces.heard(origin(number), HEARD)
        assert desk.traces.held <= 3
    assert [kept.origin.utterance_id for kept in desk.outbox.kept] == [f"talk:0:{number}" for number in range(7)]


@given(st.lists(st.tuples(st.sampled_from("hdfpw"), st.integers(0, 30)), max_size=300))
def test_whatever_comes_in_whatever_order_it_stays_bounded(steps: list[tuple[str, int]]) -> None:
    desk = Desk(sample=1.0, max_open=5)
    for step, number in steps:
        match step:
            case "h":
                desk.traces.heard(origin(number), HEARD)
            case "d":
                desk.traces.detail("main", f"talk:0:{number}", detail())
            case "f":
                desk.traces.finished(origin(number), QUICK)
            case "p":
                desk.traces.painted("main", f"talk:0:{number}", 5.0)
            case _:
                desk.wait(PAINT_WAIT_S)
        assert desk.traces.held <= 5
    desk.traces.close(1.0)
    assert desk.outbox.closed
    assert desk.traces.held == 0


def test_at_the_end_of_the_process_nothing_is_left() -> None:
    desk = Desk(sample=1.0)
    desk.traces.heard(origin(1), HEARD)
    desk.traces.finished(origin(2), QUICK)
    desk.traces.close(1.0)
    assert sorted(desk.why) == ["failed", "sampled"]


class Two:
    """One utterance through two processes: what the one is told, the other has said."""

    def __init__(self, *, sample: float = 0.0) -> None:
        self.core, self.page = Desk(sample=sample, modules=CORE), Desk(sample=sample, modules=PAGE)

    def understood(self, *, error: str = "") -> str | None:
        """The `traceparent` with which the insights go on."""
        self.core.traces.heard(origin(), HEARD, error=error)
        self.core.traces.detail("main", "talk:0:0", detail())
        parent = self.core.traces.onward("main", "talk:0:0", self.core.traces.traceparent("main", "talk:0:0"))
        self.core.traces.passed_on(origin(), UNDERSTOOD)
        return parent

    def pushed(self, latency: Latency, parent: str | None, painted_ms: float | None = None) -> None:
        self.page.traces.finished(origin(), latency, parent=parent)
        self.core.traces.receipt("main", "talk:0:0", latency)
        if painted_ms is not None:
            self.page.traces.painted("main", "talk:0:0", painted_ms)
        self.page.wait(PAINT_WAIT_S)
        for word in self.page.words:
            self.core.traces.word(word)
        self.core.wait(WORD_WAIT_S)
        assert self.core.traces.held == self.page.traces.held == 0


@pytest.mark.parametrize(
    ("sample", "latency", "painted_ms", "error", "why"),
    [
        (1.0, QUICK, 10.0, "", ["sampled"]),
        (0.0, QUICK, 10.0, "", []),
        (0.0, SLOW, 10.0, "", ["slow"]),
        (0.0, QUICK, 900.0, "", ["slow"]),  # only the page knows
        (0.0, QUICK, None, "engine", ["failed"]),  # only audio knows
    ],
)
def test_two_processes_keep_the_same_traces(
    sample: float, latency: Latency, painted_ms: float | None, error: str, why: list[str]
) -> None:
    two = Two(sample=sample)
    two.pushed(latency, two.understood(error=error), painted_ms)
    assert two.core.why == why
    assert two.page.why == (["flagged"] if error else why)
    for kept, modules in ((two.core.outbox.kept, CORE), (two.page.outbox.kept, PAGE)):
        assert [each.modules for each in kept] == [modules for _ in why]
    assert [each.details for each in two.core.outbox.kept] == [(detail(),) for _ in why]


def test_before_the_receipt_nothing_is_decided() -> None:
    two = Two(sample=1.0)
    two.understood()
    two.core.wait(OPEN_S - 1)
    assert two.core.why == []


def test_without_a_receipt_it_has_failed_and_what_is_known_is_told() -> None:
    two = Two()
    two.understood()
    two.core.wait(OPEN_S)
    [kept] = two.core.outbox.kept
    assert (kept.why, kept.error, kept.latency) == ("failed", UNFINISHED, UNDERSTOOD)


def test_a_receipt_that_comes_twice_or_for_nobody_changes_nothing() -> None:
    two = Two(sample=1.0)
    two.pushed(QUICK, two.understood())
    two.core.traces.receipt("main", "talk:0:0", SLOW)
    two.core.traces.receipt("main", "talk:0:7", SLOW)
    two.core.traces.word(Word(site="main", conversation_id="talk", utterance_id="talk:0:7", why="slow"))
    two.core.traces.passed_on(origin(), UNDERSTOOD)
    two.core.wait(OPEN_S)
    assert two.core.why == ["sampled"]
    assert two.core.traces.held == 0


def test_a_module_on_the_way_that_hears_of_no_receipt_decides_by_what_it_knows() -> None:
    desk = Desk(sample=1.0, modules=frozenset({"intelligence"}))
    desk.traces.passed_on(origin(), UNDERSTOOD)
    desk.wait(OPEN_S)
    [kept] = desk.outbox.kept
    assert (kept.why, kept.error) == ("sampled", "")


def test_a_conversation_is_told_by_the_process_with_the_page() -> None:
    two = Two(sample=1.0)
    two.pushed(QUICK, two.understood())
    two.core.traces.conversation(over())
    two.page.traces.conversation(over())
    assert two.core.outbox.over == []
    assert [each.module for each in two.page.outbox.over] == ["dashboard"]


def test_a_conversation_that_was_over_before_its_traces_were_decided_is_told() -> None:
    desk = Desk(sample=1.0)
    desk.traces.finished(origin(), QUICK)
    desk.traces.conversation(over())
    assert desk.outbox.over == []
    desk.wait(PAINT_WAIT_S)
    assert desk.outbox.over == [over()]


def test_in_one_process_passing_on_is_not_the_end() -> None:
    desk = Desk(sample=1.0)
    desk.traces.heard(origin(), HEARD)
    desk.traces.passed_on(origin(), HEARD)
    assert desk.outbox.kept == []


def test_every_process_draws_the_same_sample() -> None:
    ids = [trace_id_of("main", f"talk:0:{number}") for number in range(4_000)]
    kept = [identifier for identifier in ids if in_sample(identifier, 0.25)]
    assert 800 < len(kept) < 1_200
    assert all(in_sample(identifier, 0.5) for identifier in kept), "a larger sample holds the smaller one"
    assert all(in_sample(identifier, 1.0) for identifier in ids)
    assert not any(in_sample(identifier, 0.0) for identifier in ids)


def test_a_resend_is_the_same_trace_and_another_site_another() -> None:
    first = traceparent("main", "talk:0:1", 1.0)
    assert traceparent("main", "talk:0:1", 1.0) == first
    version, trace, span, flags = first.split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    assert trace_id_in(first) == trace == f"{trace_id_of('main', 'talk:0:1'):032x}"
    assert traceparent("main", "talk:0:1", 0.0) == f"00-{trace}-{span}-00"
    assert trace_id_in(traceparent("other", "talk:0:1", 1.0)) != trace
    assert trace_id_in(None) is trace_id_in("not a traceparent") is None


async def test_a_collectors_password_is_in_no_log() -> None:
    settings = TelemetrySettings(otlp_url="http://user:secret@127.0.0.1:4318/v1/traces?token=secret")
    with capture_logs() as lines:
        traces = start_tracing(settings, FakeClock(), Budget)
    await stop_tracing(traces)
    assert [line["url"] for line in lines] == ["http://127.0.0.1:4318/v1/traces"]
