"""The intelligence service: each utterance is understood and published once, come what may."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.contracts.erasing import Scope
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.intelligence.ports import Heard, Owed
from quickcomm.intelligence.service.understanding import MAX_CHANNELS, Understanding
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import BusyError, QuickCommError, UnavailableError
from quickcomm.kernel.messaging.bus import Delivery, RejectedError

START_NS = 1_700_000_000_000_000_000


def insight(index: int, intent: str) -> Insight:
    return Insight(
        index=index, intent=intent, department="none", urgency="normal", summary="x", confidence=0.5, model="words"
    )


class Words:
    """Every word is an intent."""

    model = "words"

    def __init__(self, clock: FakeClock) -> None:
        self.heard: list[Heard] = []
        self.failures: list[Exception] = []
        self._clock = clock

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        if self.failures:
            raise self.failures.pop()
        self.heard += heard
        self._clock.advance(0.02)
        return [tuple(insight(i, word) for i, word in enumerate(item.text.split())) for item in heard]


class Results:
    """A result store in memory."""

    def __init__(self) -> None:
        self.published: list[InsightsFound] = []
        self.owed: list[Owed] = []
        self.failures: list[Exception] = []
        self.hidden: set[tuple[str, str]] = set()

    async def known(
        self,
        utterances: Sequence[tuple[str, str]],
        epochs: Sequence[int] = (),  # noqa: ARG002 - the port's
    ) -> set[tuple[str, str]]:
        return {(item.site, item.utterance_id) for item in self.published} & set(utterances)

    async def erased(self, utterances: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        return self.hidden & set(utterances)

    async def publish(self, found: Sequence[InsightsFound], owed: Sequence[Owed] = ()) -> None:
        if self.failures:
            raise self.failures.pop()
        for item in found:
            if not await self.known([(item.site, item.utterance_id)]):
                self.published.append(item)
                self.owed += [debt for debt in owed if debt.found is item]


class Desk:
    def __init__(self) -> None:
        self.clock = FakeClock(START_NS)
        self.classifier = Words(self.clock)
        self.results = Results()
        self.understanding = Understanding(self.classifier, self.results, self.clock, lambda intent: intent == "repair")

    async def hear(self, *deliveries: Delivery) -> None:
        await self.understanding.handle(deliveries)


def said(number: int, text: str, *, channel: str = "desk", site: str = "main", conversation: str = "c") -> Delivery:
    message = UtteranceTranscribed(
        site=site,
        conversation_id=conversation,
        utterance_id=f"{conversation}:0:{number}",
        channel=channel,
        speaker=0,
        seq=number,
        start_offset=number,
        end_offset=number + 1,
        sample_rate=16_000,
        text=text,
        words=(),
        confidence=1.0,
        stt_model="m",
        spoken_at_ns=START_NS - 3,
        speech_ended_ns=START_NS - 2,
        published_ns=START_NS - 5_000_000,
        latency=Latency(stt=100.0),
        traceparent="00-trace",
    )
    return Delivery(message_id=number, stream=TRANSCRIPTS, key="c", payload=msgspec.json.encode(message))


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_an_utterance_becomes_a_message(desk: Desk) -> None:
    await desk.hear(said(1, "repair chatter repair"))
    [found] = desk.results.published
    assert (found.site, found.conversation_id, found.utterance_id, found.revision) == ("main", "c", "c:0:1", 1)
    assert [item.intent for item in found.insights] == ["repair", "chatter", "repair"]
    assert found.opens_tasks == (0, 2), "by the rule of the site pack"
    assert (found.speech_ended_ns, found.traceparent) == (START_NS - 2, "00-trace")
    assert found.latency == Latency(stt=100.0, queue=5.0, classify=20.0)


async def test_a_redelivery_is_published_once(desk: Desk) -> None:
    one, two = said(1, "repair"), said(2, "chatter")
    await desk.hear(one)
    await desk.hear(one, two)
    await desk.hear(two, one)
    assert [item.utterance_id for item in desk.results.published] == ["c:0:1", "c:0:2"]
    assert len(desk.classifier.heard) == 2, "what is known is not classified again"


async def test_the_same_id_at_two_sites_is_two_utterances(desk: Desk) -> None:
    await desk.hear(said(1, "repair"), said(1, "repair", site="other"))
    assert [item.site for item in desk.results.published] == ["main", "other"]


async def test_what_was_erased_is_not_classified_and_is_no_context(desk: Desk) -> None:
    """A late message, or one that is replayed; others go on."""
    desk.results.hidden = {("main", "c:0:2")}
    await desk.hear(said(1, "repair"), said(2, "secret"), said(3, "chatter"))
    assert [item.utterance_id for item in desk.results.published] == ["c:0:1", "c:0:3"]
    assert "secret" not in [item.text for item in desk.classifier.heard]
    await desk.hear(said(4, "repair"))
    assert desk.classifier.heard[-1].context == ("repair", "chatter")
    assert not any("secret" in item.context for item in desk.classifier.heard)
    desk.understanding.erase(Scope(conversations=("c",)))
    await desk.hear(said(5, "repair", conversation="d"))
    assert not desk.classifier.heard[-1].context


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xff", b'{"site":"main"}'])
async def test_what_is_no_transcript_is_rejected(desk: Desk, payload: bytes) -> None:
    bad = Delivery(message_id=1, stream=TRANSCRIPTS, key="c", payload=payload)
    with pytest.raises(RejectedError, match="UtteranceTranscribed"):
        await desk.hear(bad)
    with pytest.raises(RejectedError):
        await desk.hear(said(1, "repair"), bad)
    assert desk.results.published == []
    await desk.hear(said(1, "repair"))
    assert len(desk.results.published) == 1


async def test_what_was_said_before_on_the_channel_is_known(desk: Desk) -> None:
    for number, text in enumerate(("a", "b", "c", "d", "e")):
        await desk.hear(said(number, text))
    await desk.hear(said(9, "x", channel="roof"), said(10, "y", site="other"))
    assert [heard.context for heard in desk.classifier.heard] == [
        (),
        ("a",),
        ("a", "b"),
        ("a", "b", "c"),
        ("b", "c", "d"),
        (),
        (),
    ]


@pytest.mark.parametrize("where", ["classifier", "results"])
async def test_a_retry_hears_the_same_as_the_first_attempt(desk: Desk, where: str) -> None:
    await desk.hear(said(1, "before"))
    failing = desk.classifier if where == "classifier" else desk.results
    failing.failures.append(QuickCommError("once"))
    with pytest.raises(QuickCommError):
        await desk.hear(said(2, "repair"), said(3, "chatter"))
    await desk.hear(said(2, "repair"))
    await desk.hear(said(3, "chatter"))
    assert [heard.context for heard in desk.classifier.heard[-2:]] == [("before",), ("before", "repair")]
    assert len(desk.results.published) == 3


async def test_channels_are_not_remembered_for_ever(desk: Desk) -> None:
    for number in range(MAX_CHANNELS + 5):
        await desk.hear(said(number, "x", channel=f"n{number}"))
    assert len(desk.understanding._context._said) == MAX_CHANNELS


class Slow:
    """Answers each utterance when the test says so."""

    model = "slow"

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[Insight]] = {}
        self.asked = asyncio.Event()

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        [one] = heard
        self.waiting[one.utterance_id] = asyncio.get_running_loop().create_future()
        self.asked.set()
        return [(await self.waiting[one.utterance_id],)]

    async def has(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.waiting) < count:
                self.asked.clear()
                await self.asked.wait()

    def answer(self, utterance_id: str, *, degraded: bool = False) -> None:
        answer = msgspec.structs.replace(insight(0, "repair"), degraded=degraded)
        self.waiting[utterance_id].set_result(answer)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


def slow_desk() -> tuple[Slow, Results, Understanding]:
    slow, results = Slow(), Results()
    understanding = Understanding(slow, results, FakeClock(START_NS), lambda _: True, alone=lambda: True)
    return slow, results, understanding


async def test_an_answer_waits_for_those_before_it_in_its_conversation_only() -> None:
    slow, results, understanding = slow_desk()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(understanding.handle([said(1, "x"), said(2, "x"), said(1, "x", conversation="d")]))
        tasks.create_task(understanding.handle([said(3, "x"), said(2, "x", conversation="d")]))
        await slow.has(5)
        for utterance in ("c:0:3", "d:0:1", "c:0:2", "d:0:2"):
            slow.answer(utterance)
        await settle()
        assert [found.utterance_id for found in results.published] == ["d:0:1", "d:0:2"]
        slow.answer("c:0:1")
    assert [found.utterance_id for found in results.published][2:] == ["c:0:1", "c:0:2", "c:0:3"]
    assert understanding._last == {}, "nothing is remembered of conversations that are done"


@pytest.mark.parametrize("why", [UnavailableError("The database is away."), BusyError("Too many writes wait.")])
async def test_while_the_store_takes_nothing_everybody_keeps_their_place(why: Exception) -> None:
    waits, is_back = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waits.set()
        await is_back.wait()

    slow, results = Slow(), Results()
    clock = FakeClock(START_NS)
    understanding = Understanding(slow, results, clock, lambda _: True, alone=lambda: True, sleep=sleep)
    results.failures.append(why)
    async with asyncio.TaskGroup() as tasks:
        for number in (1, 2):
            tasks.create_task(understanding.handle([said(number, "x")]))
        await slow.has(2)
        slow.answer("c:0:1")
        slow.answer("c:0:2")
        await waits.wait()
        await settle()
        assert results.published == []
        assert understanding.trouble == str(why)
        is_back.set()
    assert [found.utterance_id for found in results.published] == ["c:0:1", "c:0:2"]
    assert understanding.trouble is None


async def test_one_that_fails_holds_up_nobody() -> None:
    slow, results, understanding = slow_desk()

    async def first() -> None:
        with pytest.raises(QuickCommError):
            await understanding.handle([said(1, "x"), said(2, "x")])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(first())
        tasks.create_task(understanding.handle([said(3, "x")]))
        await slow.has(3)
        slow.waiting["c:0:1"].set_exception(QuickCommError("broken"))
        slow.answer("c:0:2")
        slow.answer("c:0:3")
    assert [found.utterance_id for found in results.published] == ["c:0:2", "c:0:3"]


async def test_a_known_one_between_others_keeps_their_order() -> None:
    slow, results, understanding = slow_desk()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(understanding.handle([said(2, "x")]))
        await slow.has(1)
        slow.answer("c:0:2")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(understanding.handle([said(1, "x"), said(2, "x"), said(3, "x")]))
        await slow.has(3)
        slow.answer("c:0:3")
        await settle()
        assert len(results.published) == 1
        slow.answer("c:0:1")
    assert [found.utterance_id for found in results.published] == ["c:0:2", "c:0:1", "c:0:3"]


async def test_cancelled_work_leaves_no_trace() -> None:
    slow, results, understanding = slow_desk()
    task = asyncio.ensure_future(understanding.handle([said(1, "x"), said(2, "x")]))
    await slow.has(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert results.published == []
    assert understanding._last == {}


async def test_what_the_model_could_not_answer_is_owed() -> None:
    slow, results, understanding = slow_desk()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(understanding.handle([said(1, "one"), said(2, "two")]))
        await slow.has(2)
        slow.answer("c:0:1")
        slow.answer("c:0:2", degraded=True)
    [debt] = results.owed
    assert debt.found == results.published[1]
    assert (debt.heard.text, debt.heard.context, debt.heard.conversation_id) == ("two", ("one",), "c")


@given(
    batches=st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=6),
    data=st.data(),
)
@examples(60)
def test_whatever_the_order_of_answers_a_conversation_keeps_its_own(
    batches: list[list[str]], data: st.DataObject
) -> None:
    async def run() -> None:
        slow, results, understanding = slow_desk()
        numbers = iter(range(10_000))
        deliveries = [[said(next(numbers), "x", conversation=name) for name in batch] for batch in batches]
        total = sum(map(len, deliveries))
        async with asyncio.TaskGroup() as tasks:
            for batch in deliveries:
                tasks.create_task(understanding.handle(batch))
            await slow.has(total)
            for utterance in data.draw(st.permutations(sorted(slow.waiting))):
                slow.answer(utterance)
                await asyncio.sleep(0)
        assert len(results.published) == total
        for name in "abc":
            order = [
                int(found.utterance_id.rpartition(":")[2])
                for found in results.published
                if found.conversation_id == name
            ]
            assert order == sorted(order)

    asyncio.run(run())


async def test_who_leaves_finishes_what_is_in_hand_and_begins_nothing() -> None:
    desk = Desk()
    gate, classify = asyncio.Event(), desk.classifier.classify

    async def held(heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        await gate.wait()
        return await classify(heard)

    desk.classifier.classify = held  # type: ignore[method-assign]
    first = asyncio.ensure_future(desk.hear(said(1, "repair")))
    await asyncio.sleep(0)
    desk.understanding.leave()
    later = asyncio.ensure_future(desk.hear(said(2, "repair")))
    gate.set()
    await first
    assert desk.understanding.in_hand == 0
    assert [found.utterance_id for found in desk.results.published] == ["c:0:1"]
    later.cancel()
    with pytest.raises(asyncio.CancelledError):
        await later
