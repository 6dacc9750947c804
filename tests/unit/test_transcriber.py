"""The transcriber with a scripted engine: batches, urgency, guesses, and engines that fail or hang."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from tests.support.hearing import ScriptedEngine, Talk, lengths

from quickcomm.audio.model.formats import Int16
from quickcomm.audio.ports import Clip, Effort, EngineError, Transcript
from quickcomm.audio.service.load import CALM_S, LIMITS_S
from quickcomm.audio.service.transcriber import MAX_AWAITED, MAX_BESIDE, EngineFailedError, EngineHungError, Transcriber
from quickcomm.kernel.clock import FakeClock


def clip(seconds: float) -> Int16:
    return np.zeros(round(seconds * 16_000), np.int16)


def seconds(engine: ScriptedEngine) -> list[list[float]]:
    return [[size / 16_000 for size in call] for call in engine.calls]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - the engine's thread makes it so
            await asyncio.sleep(0)


@asynccontextmanager
async def running(engine: ScriptedEngine, clock: FakeClock | None = None) -> AsyncIterator[Transcriber]:
    transcriber = Transcriber(engine, clock or FakeClock())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(transcriber.run())
        try:
            yield transcriber
        finally:
            engine.go.set()
            task.cancel()
    transcriber.close()
    assert engine.closed


@asynccontextmanager
async def occupied(engine: ScriptedEngine) -> AsyncIterator[Transcriber]:
    """The only worker is busy with a first clip until the engine may go on."""
    async with running(engine) as transcriber:
        engine.go.clear()
        first = transcriber.submit(clip(30), Talk())
        await until(lambda: len(engine.calls) == 1)
        yield transcriber
        engine.go.set()
        await first


async def test_batches_are_of_like_length_and_start_with_the_oldest() -> None:
    engine = ScriptedEngine(max_batch=3)
    async with occupied(engine) as transcriber:
        said = (2, 20, 3, 2.5, 21, 2.2, 9)
        waiting = [transcriber.submit(clip(length), Talk(), float(at)) for at, length in enumerate(said)]
        assert transcriber.backlog_s == pytest.approx(59.7)
        engine.go.set()
        texts = [(await future).text for future in waiting]
    assert seconds(engine)[1:] == [[2, 3, 2.5], [20, 21], [2.2], [9]]
    assert texts == [str(round(length * 16_000)) for length in (2, 20, 3, 2.5, 21, 2.2, 9)]
    assert transcriber.backlog_s == 0


async def test_with_little_time_left_out_is_what_can_be() -> None:
    efforts: list[Effort] = []

    def answer(clips: Sequence[Clip]) -> list[Transcript]:
        efforts.extend(each.effort for each in clips)
        return lengths(clips)

    engine = ScriptedEngine(answer, max_batch=4)
    async with occupied(engine) as transcriber:
        clock = transcriber._clock
        assert isinstance(clock, FakeClock)
        waiting = [transcriber.submit(clip(2), Talk()) for _ in range(5)]
        clock.advance(LIMITS_S[0] + 0.1)
        transcriber.look()
        engine.go.set()
        await asyncio.gather(*waiting)
        assert transcriber.guess(clip(1), Talk(), word_times=True) is None, "not until it was calm for a while"
        for _ in range(3):
            clock.advance(CALM_S)
            transcriber.look()
        assert transcriber.spare
    assert [len(call) for call in engine.calls[1:]] == [4, 1]
    assert efforts == [Effort.FULL, *[Effort.ONE_OPINION] * 5]


async def test_guesses_run_only_where_they_keep_nobody_waiting() -> None:
    engine = ScriptedEngine()
    async with running(engine) as transcriber:
        assert transcriber.spare
        guess = transcriber.guess(clip(1), Talk(), word_times=False)
        assert guess is not None
        assert transcriber.guess(clip(1), Talk(), word_times=False) is None, "one guess at a time"
        assert (await guess).text == "16000"
    async with occupied(engine) as transcriber:
        assert transcriber.guess(clip(1), Talk(), word_times=True) is None


async def test_guesses_that_a_client_waits_for_come_behind_finished_speech_and_together() -> None:
    engine = ScriptedEngine(max_batch=3)
    async with occupied(engine) as transcriber:
        guesses = [transcriber.guess(clip(2), Talk(), word_times=False, awaited=True) for _ in range(MAX_AWAITED)]
        assert None not in guesses
        assert transcriber.guess(clip(2), Talk(), word_times=False, awaited=True) is None, "only so many"
        for taken_back in guesses[4:]:
            taken_back.cancel()  # type: ignore[union-attr]
        finished = transcriber.submit(clip(9), Talk())
        engine.go.set()
        await asyncio.gather(finished, *(guess for guess in guesses[:4] if guess is not None))
    assert seconds(engine)[1:] == [[9], [2, 2, 2], [2]]


async def test_far_behind_no_guess_is_made_that_a_client_waits_for() -> None:
    engine = ScriptedEngine()
    async with occupied(engine) as transcriber:
        clock = transcriber._clock
        assert isinstance(clock, FakeClock)
        waiting = transcriber.submit(clip(2), Talk())
        clock.advance(LIMITS_S[0] + 0.1)
        transcriber.look()
        assert transcriber.guess(clip(1), Talk(), word_times=False) is None
        assert transcriber.guess(clip(1), Talk(), word_times=False, awaited=True) is not None, "behind a little"
        clock.advance(LIMITS_S[-1])
        transcriber.look()
        assert transcriber.guess(clip(1), Talk(), word_times=False, awaited=True) is None
        engine.go.set()
        await waiting


async def test_a_guess_that_was_taken_back_is_not_decoded() -> None:
    engine = ScriptedEngine()
    async with running(engine) as transcriber:
        guess = transcriber.guess(clip(1), Talk(), word_times=True)
        assert guess is not None
        guess.cancel()
        await transcriber.submit(clip(2), Talk())
    assert seconds(engine) == [[2]]


async def test_finished_speech_goes_before_a_guess_and_an_adopted_guess_is_finished_speech() -> None:
    for adopted in (False, True):
        engine = ScriptedEngine()
        async with running(engine) as transcriber:
            guess = transcriber.guess(clip(1), Talk(), word_times=True)
            assert guess is not None
            if adopted:
                transcriber.adopt(guess, 0.0)
            waiting = [transcriber.submit(clip(10), Talk()), transcriber.submit(clip(20), Talk())]
            await asyncio.gather(guess, *waiting)
        assert seconds(engine) == ([[1], [10], [20]] if adopted else [[10], [20], [1]])


async def test_a_clip_that_fails_is_tried_alone_and_given_up_after_three_attempts() -> None:
    def answer(clips: Sequence[Clip]) -> list[Transcript]:
        if any(len(item.samples) == 16_000 for item in clips):
            raise EngineError("this one again")
        return lengths(clips)

    engine = ScriptedEngine(answer)
    async with occupied(engine) as transcriber:
        bad, good = transcriber.submit(clip(1), Talk()), transcriber.submit(clip(2), Talk())
        engine.go.set()
        with pytest.raises(EngineFailedError, match="3 times"):
            await bad
        assert (await good).text == "32000"
        assert (await transcriber.submit(clip(3), Talk())).text == "48000"
        assert transcriber.failures == 3
    assert seconds(engine)[1] == [1, 2]
    assert sorted(seconds(engine)[2:5]) == [[1], [1], [2]]


@pytest.mark.parametrize("wrong", [ValueError("what a bug raises"), MemoryError()])
async def test_whatever_an_engine_raises_speech_goes_on(wrong: Exception) -> None:
    errors = [wrong]

    def answer(clips: Sequence[Clip]) -> list[Transcript]:
        if errors:
            raise errors.pop()
        return lengths(clips)

    async with running(ScriptedEngine(answer)) as transcriber:
        assert (await transcriber.submit(clip(1), Talk())).text == "16000"


async def test_too_few_transcripts_are_a_failure_of_the_engine() -> None:
    async with running(ScriptedEngine(lambda _: [])) as transcriber:
        with pytest.raises(EngineFailedError):
            await transcriber.submit(clip(1), Talk())
        with pytest.raises(EngineFailedError):
            await transcriber.submit(clip(2), Talk())


async def test_an_engine_that_hangs_does_not_take_the_workers_with_it() -> None:
    clock = FakeClock(limits=0.001)
    engine = ScriptedEngine()
    hanging = [True] * 3
    stuck = threading.Event()

    def answer(clips: Sequence[Clip]) -> list[Transcript]:
        if hanging:
            hanging.pop()
            stuck.wait(30)
        return lengths(clips)

    engine.answer = answer
    async with running(engine, clock) as transcriber:
        with pytest.raises(EngineFailedError):
            await transcriber.submit(clip(1), Talk())
        clock.limits = 1.0
        assert (await transcriber.submit(clip(2), Talk())).text == "32000"
        stuck.set()


async def test_an_engine_of_which_nothing_comes_back_needs_a_new_process() -> None:
    stuck = threading.Event()

    def answer(clips: Sequence[Clip]) -> list[Transcript]:
        stuck.wait(30)
        return lengths(clips)

    transcriber = Transcriber(ScriptedEngine(answer), FakeClock(limits=0.001))
    waiting = [transcriber.submit(clip(1), Talk()) for _ in range(5)]
    with pytest.raises(ExceptionGroup) as raised:
        await transcriber.run()
    assert raised.group_contains(EngineHungError)
    assert not all(future.done() for future in waiting)
    stuck.set()


async def test_what_takes_longer_than_its_deadline_counts_when_it_comes() -> None:
    go = threading.Event()

    def answer(clips: Sequence[Clip]) -> list[Transcript]:
        go.wait(30)
        return lengths(clips)

    clock = FakeClock(limits=0.001)
    async with running(ScriptedEngine(answer), clock) as transcriber:
        text = transcriber.submit(clip(2), Talk())
        await until(lambda: transcriber.failures == 1)
        clock.limits = 1.0
        go.set()
        assert (await text).text == "32000"


async def test_more_speech_has_a_later_deadline() -> None:
    limits: list[float | None] = []

    class Noting(FakeClock):
        def timeout(self, seconds: float | None) -> asyncio.Timeout:
            limits.append(seconds)
            return super().timeout(seconds)

    async with running(ScriptedEngine(), Noting()) as transcriber:
        await transcriber.submit(clip(1), Talk())
        await transcriber.submit(clip(16), Talk())
    assert limits == [60.0, 480.0]


async def test_a_guess_that_fails_is_not_tried_again() -> None:
    def broken(_: Sequence[Clip]) -> list[Transcript]:
        raise EngineError("no")

    engine = ScriptedEngine(broken)
    async with running(engine) as transcriber:
        guess = transcriber.guess(clip(1), Talk(), word_times=False)
        assert guess is not None
        with pytest.raises(EngineFailedError):
            await guess
    assert len(engine.calls) == 1


# -- beside -----------------------------------------------------------------------------------------------------------


async def test_what_is_heard_in_the_shadow_begins_only_while_the_engine_is_idle() -> None:
    engine = ScriptedEngine(workers=2)
    async with running(engine) as transcriber:
        engine.go.clear()
        served = transcriber.submit(clip(3), Talk())
        await until(lambda: len(engine.calls) == 1)
        shadow = transcriber.beside(clip(2), Talk())
        assert shadow is not None
        for _ in range(100):
            await asyncio.sleep(0)
        assert seconds(engine) == [[3]], "a worker is free, but the engine is not idle"
        engine.go.set()
        assert (await served).text == str(3 * 16_000)
        assert (await shadow).text == str(2 * 16_000)
        assert transcriber.backlog_s == 0


async def test_what_is_heard_in_the_shadow_is_dropped_where_a_served_utterance_waits() -> None:
    engine = ScriptedEngine()
    async with occupied(engine) as transcriber:
        shadow = transcriber.beside(clip(2), Talk())
        assert shadow is not None
        served = transcriber.submit(clip(1), Talk())
        assert shadow.cancelled()
        engine.go.set()
        await served
    assert [2.0] not in seconds(engine)


async def test_a_guess_is_made_while_something_is_heard_in_the_shadow() -> None:
    engine = ScriptedEngine(workers=2)
    async with running(engine) as transcriber:
        engine.go.clear()
        shadow = transcriber.beside(clip(2), Talk())
        await until(lambda: len(engine.calls) == 1)
        guess = transcriber.guess(clip(1), Talk(), word_times=False)
        await until(lambda: len(engine.calls) == 2)
        engine.go.set()
        assert guess is not None
        assert shadow is not None
        await asyncio.gather(guess, shadow)


async def test_little_waits_to_be_heard_in_the_shadow() -> None:
    engine = ScriptedEngine()
    async with occupied(engine) as transcriber:
        taken = [transcriber.beside(clip(1), Talk()) for _ in range(MAX_BESIDE + 3)]
        assert taken.count(None) == 3


async def test_an_engine_that_fails_on_the_shadow_is_not_asked_again() -> None:
    def fails(_clips: Sequence[Clip]) -> list[Transcript]:
        raise EngineError("no")

    engine = ScriptedEngine(fails)
    async with running(engine) as transcriber:
        shadow = transcriber.beside(clip(1), Talk())
        assert shadow is not None
        with pytest.raises(EngineFailedError):
            await shadow
        assert len(engine.calls) == 1


async def test_what_is_heard_in_the_shadow_waits_until_the_load_is_over() -> None:
    engine = ScriptedEngine()
    async with running(engine) as transcriber:
        transcriber.load.level = 1
        shadow = transcriber.beside(clip(1), Talk())
        assert shadow is not None
        for _ in range(100):
            await asyncio.sleep(0)
        assert engine.calls == []
        transcriber.load.level = 0
        transcriber.look()  # as five times a second
        await shadow
