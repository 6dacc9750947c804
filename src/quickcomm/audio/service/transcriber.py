"""Speech-to-text for all conversations: a queue by urgency, batches of like length, engines in threads.

Finished utterances come first, oldest first; guesses (early decoding in a pause, live partials) run only where no
finished one waits, and are thrown away rather than queued.

With more speech than can be decoded, oldest first would make everybody late. What is late already lets the others go
before it, but for every fourth batch: latency grows only for those who are late, and the backlog is worked off as soon
as there is room.
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
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.telemetry import Batch, tracing

LATE_AFTER_S: Final = 1.2
LATE_TURN: Final = 4
ATTEMPTS: Final = 3
ENGINE_DEADLINE_S: Final = 60.0

log = structlog.get_logger(__name__)


class EngineFailedError(QuickCommError):
    """Speech-to-text failed on a clip again and again."""

    code = "audio.engine_failed"


class _Job(msgspec.Struct, eq=False):
    clip: Clip
    seconds: float
    queued_at: float
    future: asyncio.Future[Transcript]
    attempts: int = 0


class Transcriber:
    def __init__(self, engine: SpeechToText, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._queue: deque[_Job] = deque()
        self._late: deque[_Job] = deque()
        self._turn = 0
        self._guesses: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._busy = 0
        self._signal = asyncio.Event()
        self._batches: weakref.WeakKeyDictionary[asyncio.Future[Transcript], Batch] = weakref.WeakKeyDictionary()
        self.failures = 0

    @property
    def model(self) -> str:
        return self._engine.traits.model

    @property
    def spare(self) -> bool:
        """Whether a guess would keep nobody waiting: the whole engine is idle.

        Most guesses are in vain. With a worker busy already, the next finished utterance would often find none free,
        and what is guessed alone is what a batch would have done at half the cost.
        """
        return not self._queue and not self._late and not self._guesses and not self._busy

    @property
    def backlog_s(self) -> float:
        """Seconds of finished speech that wait."""
        return sum(job.seconds for job in (*self._queue, *self._late))

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest finished utterance has been waiting or running."""
        jobs = [*self._queue, *self._late, *self._running]
        return self._clock.monotonic() - min((job.queued_at for job in jobs), default=self._clock.monotonic())

    def submit(self, samples: Int16, *, late: bool = False) -> asyncio.Future[Transcript]:
        """Queue a finished utterance: int16[n] at 16 kHz. Its future fails with `EngineFailedError` at worst.

        `late`: it must wait for one before it that is late, so that nothing is won by taking it first.
        """
        job = self._job(samples, word_times=True)
        if late:
            self._sort_out()
        (self._late if late else self._queue).append(job)
        self._signal.set()
        return job.future

    def guess(self, samples: Int16, *, word_times: bool) -> asyncio.Future[Transcript] | None:
        """Decode if there is room right now, else None. Cancelling the future takes it back."""
        if not self.spare:
            return None
        job = self._job(samples, word_times=word_times)
        self._guesses.append(job)
        self._signal.set()
        return job.future

    def adopt(self, text: asyncio.Future[Transcript]) -> None:
        """A guess was right: nothing may go before it any more that a finished utterance would not let pass."""
        for job in self._guesses:
            if job.future is text:
                self._guesses.remove(job)
                self._queue.append(job)
                return

    def batch_of(self, text: asyncio.Future[Transcript]) -> Batch | None:
        """The engine's call that a transcript came from, where tracing is on."""
        return self._batches.get(text)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as workers:
            for index in range(self._engine.traits.workers):
                workers.create_task(self._work(), name=f"stt:{index}")

    def close(self) -> None:
        self._engine.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _job(self, samples: Int16, *, word_times: bool) -> _Job:
        clip = Clip(samples=samples, word_times=word_times)
        future: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        return _Job(clip, len(samples) / ENGINE_RATE, self._clock.monotonic(), future)

    async def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if not batch:
                self._signal.clear()
                await self._signal.wait()
                continue
            self._busy += 1
            self._running.update(batch)
            try:
                await self._decode(batch)
            finally:
                self._busy -= 1
                self._running.difference_update(batch)

    def _next_batch(self) -> list[_Job]:
        """The finished utterance whose turn it is and others of like length; else one guess."""
        self._sort_out()
        source = self._queue
        if self._late:
            self._turn += 1
            if not self._queue or self._turn % LATE_TURN == 0:
                source = self._late
        if not source:
            return self._next_guess()
        head = source.popleft()
        if head.attempts:
            return [head]
        step = length_step(head.seconds)
        alike = [job for job in (*self._queue, *self._late) if length_step(job.seconds) == step and not job.attempts]
        batch = [head, *alike[: self._engine.traits.max_batch - 1]]
        for job in batch[1:]:
            (self._queue if job in self._queue else self._late).remove(job)
        return batch

    def _sort_out(self) -> None:
        """Forget what nobody waits for any more; set apart what is late."""
        for jobs in (self._queue, self._late):
            while jobs and jobs[0].future.cancelled():
                jobs.popleft()
        late = self._clock.monotonic() - LATE_AFTER_S
        while self._queue and self._queue[0].queued_at < late:
            self._late.append(self._queue.popleft())

    def _next_guess(self) -> list[_Job]:
        while self._guesses:
            job = self._guesses.popleft()
            if not job.future.cancelled():
                return [job]
        return []

    async def _decode(self, batch: Sequence[_Job]) -> None:
        began = self._clock.now_ns()
        try:
            async with asyncio.timeout(ENGINE_DEADLINE_S):
                transcripts = await self._call([job.clip for job in batch])
            if len(transcripts) != len(batch):
                raise EngineError(f"{len(transcripts)} transcripts came back for {len(batch)} clips.")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; speech must not get stuck behind it
            self.failures += 1
            log.warning("stt.failed", clips=len(batch), error=f"{type(error).__name__}: {error}")
            self._trace(batch, began, type(error).__name__)
            self._retry(batch)
            return
        self._trace(batch, began)
        for job, transcript in zip(batch, transcripts, strict=True):
            if not job.future.done():
                job.future.set_result(transcript)

    def _trace(self, jobs: Sequence[_Job], began_ns: int, error: str = "") -> None:
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

    async def _call(self, clips: Sequence[Clip]) -> list[Transcript]:
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
        return await answer

    def _retry(self, batch: Sequence[_Job]) -> None:
        for job in batch:
            job.attempts += 1
            if job.future.done():
                continue
            if job.attempts >= ATTEMPTS:
                job.future.set_exception(EngineFailedError(f"Speech-to-text failed {job.attempts} times on a clip."))
            else:
                self._queue.appendleft(job)
        self._signal.set()
