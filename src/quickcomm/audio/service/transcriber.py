"""Speech-to-text for all conversations: a queue by deadline, batches of like length, engines in threads.

Finished utterances come first, in the order of `turns`; guesses (early decoding in a pause, live partials) run only
where no finished one waits, and are thrown away rather than queued. What is heard in the shadow comes last of all: it
begins while the engine is idle, and is dropped where a finished utterance has to wait. With more speech than can be
decoded, `load` says what optional work is left out.
"""

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from quickcomm.audio.model.formats import ENGINE_RATE, Int16
from quickcomm.audio.ports import Clip, EngineError, SpeechToText, Transcript, length_step
from quickcomm.audio.service.load import Load
from quickcomm.audio.service.metrics import SHED
from quickcomm.audio.service.turns import Job, Line, Turns
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.telemetry import Batch, tracing

ATTEMPTS: Final = 3
ENGINE_DEADLINE_S: Final = 60.0
MAX_BESIDE: Final = 16
MAX_AWAITED: Final = 16
SLOWEST: Final = 30.0
"""Seconds of work for a second of speech that are still no reason to think that an engine hangs."""

NS: Final = 1_000_000_000

log = structlog.get_logger(__name__)


class EngineFailedError(QuickCommError):
    """Speech-to-text failed on a clip again and again."""

    code = "audio.engine_failed"


class EngineHungError(QuickCommError):
    """Calls of the engine do not come back; only another process can hear what is said now."""

    code = "audio.engine_hung"


class Transcriber:
    def __init__(self, engine: SpeechToText, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._finished = Turns()
        self.load = Load(engine.traits.workers)
        self._guesses: deque[Job] = deque()
        self._beside: deque[Job] = deque()
        self._is_beside = False
        """A clip of `_beside` is being decoded; counted apart from `_busy`, so that no guess is kept waiting."""
        self._busy = 0
        self._left_behind = 0
        """Calls that are past their deadline and still run."""
        self._signal = asyncio.Event()
        self._batches: weakref.WeakKeyDictionary[asyncio.Future[Transcript], Batch] = weakref.WeakKeyDictionary()
        self.failures = 0

    @property
    def model(self) -> str:
        return self._engine.traits.model

    @property
    def workers(self) -> int:
        """Return how many decodings run at once."""
        return self._engine.traits.workers

    @property
    def spare(self) -> bool:
        """Whether a guess would keep nobody waiting: the whole engine is idle.

        Most guesses are in vain. With a worker busy already, the next finished utterance would often find none free,
        and what is guessed alone is what a batch would have done at half the cost.
        """
        return not self._finished and not self._guesses and not self._busy and self.load.calm

    @property
    def backlog_s(self) -> float:
        """Seconds of finished speech that wait."""
        return sum(job.seconds for job in self._finished)

    def look(self) -> None:
        """Take in how long finished utterances wait. To be called now and then, also where nothing waits."""
        now = self._clock.monotonic()
        self.load.look(self._finished.longest_wait_s(now), now)
        if self._beside and self.load.calm:
            self._signal.set()

    def submit(self, samples: Int16, line: Line, ended_at: float | None = None) -> asyncio.Future[Transcript]:
        """Queue a finished utterance: int16[n] at 16 kHz. Its future fails with `EngineFailedError` at worst.

        `ended_at`: the monotonic second at which its speech ended; None for now.
        """
        job = self._job(samples, line, word_times=True, ended_at=ended_at)
        self._finished.add(job)
        if self._busy + self._is_beside >= self._engine.traits.workers:
            self._shed_beside()
        self._signal.set()
        return job.future

    def beside(self, samples: Int16, line: Line) -> asyncio.Future[Transcript] | None:
        """Decode for a comparison, while nothing else is to be done; None where too much waits for that.

        The future is cancelled where a finished utterance has to wait.
        """
        if len(self._beside) >= MAX_BESIDE:
            return None
        job = self._job(samples, line, word_times=True, guess=True)
        self._beside.append(job)
        self._signal.set()
        return job.future

    def guess(
        self, samples: Int16, line: Line, *, word_times: bool, awaited: bool = False
    ) -> asyncio.Future[Transcript] | None:
        """Decode if there is room right now, else None. Cancelling the future takes it back.

        `awaited`: the client was told nothing for a while, as after a hand-over. Unless speech-to-text is far behind,
        such guesses wait for their turn, behind finished utterances, and are decoded together.
        """
        if not self.spare and not (awaited and not self.load.refuses and len(self._guesses) < MAX_AWAITED):
            return None
        job = self._job(samples, line, word_times=word_times, guess=True)
        self._guesses.append(job)
        self._signal.set()
        return job.future

    def adopt(self, text: asyncio.Future[Transcript], ended_at: float) -> None:
        """Take a guess that was right for a finished utterance, whose speech ended at `ended_at`."""
        for job in self._guesses:
            if job.future is text:
                self._guesses.remove(job)
                job.guess, job.ended_at = False, ended_at
                self._finished.add(job)
                return

    def batch_of(self, text: asyncio.Future[Transcript]) -> Batch | None:
        """The engine's call that a transcript came from, where tracing is on."""
        return self._batches.get(text)

    async def run(self) -> None:
        """Work until cancelled. Raises `EngineHungError`: nothing that waits is acknowledged, so nothing is lost."""
        async with asyncio.TaskGroup() as workers:
            for index in range(self._engine.traits.workers):
                workers.create_task(self._work(), name=f"stt:{index}")

    def close(self) -> None:
        self._engine.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _job(
        self, samples: Int16, line: Line, *, word_times: bool, ended_at: float | None = None, guess: bool = False
    ) -> Job:
        clip = Clip(samples=samples, word_times=word_times)
        future: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        now = self._clock.monotonic()
        return Job(
            clip, len(samples) / ENGINE_RATE, now if ended_at is None else ended_at, now, future, line, guess=guess
        )

    async def _work(self) -> None:
        while True:
            self.look()
            most = self._engine.traits.max_batch
            batch = self._finished.next_batch(most, self._clock.monotonic()) or self._next_guess()
            if not batch and (beside := self._next_beside()):
                await self._decode_beside(beside)
                continue
            if not batch:
                self._signal.clear()
                await self._signal.wait()
                continue
            self._busy += 1
            try:
                await self._decode(batch)
            finally:
                self._busy -= 1

    def _next_guess(self) -> list[Job]:
        """Return the oldest guess, with others of like length."""
        waiting = [job for job in self._guesses if not job.future.cancelled()]
        alike = [job for job in waiting if length_step(job.seconds) == length_step(waiting[0].seconds)]
        batch = alike[: self._engine.traits.max_batch]
        self._guesses = deque(job for job in waiting if job not in batch)
        return batch

    def _next_beside(self) -> list[Job]:
        while self._beside and not (self._busy or self._is_beside) and self.load.calm:
            job = self._beside.popleft()
            if not job.future.cancelled():
                return [job]
        return []

    async def _decode_beside(self, batch: Sequence[Job]) -> None:
        self._is_beside = True
        try:
            await self._decode(batch)
        finally:
            self._is_beside = False

    def _shed_beside(self) -> None:
        while self._beside:
            self._beside.popleft().future.cancel()

    async def _decode(self, batch: Sequence[Job]) -> None:
        began = self._clock.now_ns()
        effort = self.load.effort
        answer = self._call([msgspec.structs.replace(job.clip, effort=effort) for job in batch])
        try:
            async with self._clock.timeout(max(ENGINE_DEADLINE_S, SLOWEST * sum(job.seconds for job in batch))):
                transcripts = _of(batch, await asyncio.shield(answer))
        except TimeoutError:
            self._trace(batch, began, "TimeoutError")
            self._leave_behind(batch, answer)
            return
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; speech must not get stuck behind it
            self.failures += 1
            log.warning("stt.failed", clips=len(batch), error=f"{type(error).__name__}: {error}")
            self._trace(batch, began, type(error).__name__)
            self._retry(batch)
            return
        self._trace(batch, began)
        speech_s = sum(job.seconds for job in batch)
        self.load.demand.decoded(len(batch), speech_s, (self._clock.now_ns() - began) / NS)
        _settle(batch, transcripts)

    def _leave_behind(self, batch: Sequence[Job], answer: asyncio.Future[list[Transcript]]) -> None:
        """The call may still come back, and counts if it does; its clips are tried once more meanwhile."""
        self.failures += 1
        self._left_behind += 1
        log.warning("stt.hangs", clips=len(batch), calls=self._left_behind)

        def came(late: asyncio.Future[list[Transcript]]) -> None:
            self._left_behind -= 1
            if not late.cancelled() and late.exception() is None:
                with contextlib.suppress(EngineError):
                    _settle(batch, _of(batch, late.result()))

        answer.add_done_callback(came)
        if self._left_behind > ATTEMPTS * self._engine.traits.workers:
            raise EngineHungError("Speech-to-text does not answer any more; it needs a new process.")
        self._retry(batch)

    def _trace(self, jobs: Sequence[Job], began_ns: int, error: str = "") -> None:
        if not tracing().on:
            return
        batch = Batch(
            name="stt.batch",
            module="audio",
            start_ns=began_ns,
            end_ns=self._clock.now_ns(),
            attributes={"quickcomm.clips": len(jobs), "quickcomm.seconds": round(sum(job.seconds for job in jobs), 2)},
            error=error,
        )
        for job in jobs:
            self._batches[job.future] = batch

    def _call(self, clips: Sequence[Clip]) -> asyncio.Future[list[Transcript]]:
        """Run the engine in a thread of its own: one that hangs is left behind and keeps neither speech nor exit."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Transcript]] = loop.create_future()

        def settle(result: list[Transcript] | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result or [])

        def run() -> None:
            result, failure = None, None
            try:
                result = self._engine.transcribe(clips)
            except Exception as error:  # noqa: BLE001 - handed over to the caller
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it
                loop.call_soon_threadsafe(settle, result, failure)

        threading.Thread(target=run, name="stt", daemon=True).start()
        return answer

    def _retry(self, batch: Sequence[Job]) -> None:
        for job in batch:
            job.attempts += 1
            if job.future.done():
                continue
            if job.guess or job.attempts >= ATTEMPTS:
                job.future.set_exception(EngineFailedError(f"Speech-to-text failed {job.attempts} times on a clip."))
            else:
                self._finished.add_again(job)
        self._signal.set()


def _of(batch: Sequence[Job], transcripts: list[Transcript]) -> list[Transcript]:
    """Raises `EngineError` where the engine answered for another number of clips."""
    if len(transcripts) != len(batch):
        raise EngineError(f"{len(transcripts)} transcripts came back for {len(batch)} clips.")
    return transcripts


def _settle(batch: Sequence[Job], transcripts: list[Transcript]) -> None:
    for job, transcript in zip(batch, transcripts, strict=True):
        if not job.future.done():
            job.future.set_result(transcript)
            for work in transcript.shed:
                SHED.labels(work).inc()
