"""Speech-to-text of one process of audio: the queue by deadline, batches, early decoding, what is left out under load.

Follows `quickcomm.audio.service.transcriber` and decides with its own `Load`. Not modelled: urgent lines, drafts.
"""

import math
from collections.abc import Sequence

import simpy

from quickcomm.audio.model.segmenter import SegmenterSettings
from quickcomm.audio.ports import LIKE_SECONDS, Effort, SttTraits, length_step
from quickcomm.audio.service.load import Load
from quickcomm.capacity.model.timing import Timing
from quickcomm.capacity.simulation.cores import Steps, Thread
from quickcomm.contracts.audio_socket import FRAME_MS

WINDOW_S = 8.0
"""The shortest window of the encoder."""
MAX_BATCH = SttTraits(model="").max_batch
TAIL_S = SegmenterSettings().tail * FRAME_MS / 1000


class Job:
    """A clip that is to be decoded. `factor`: how much longer it takes than others of its length."""

    __slots__ = ("began_at", "done", "ended_at", "factor", "guess", "line", "queued_at", "seconds", "words")

    def __init__(self, line: int, seconds: float, ended_at: float, factor: float, done: simpy.Event) -> None:
        self.line = line
        self.seconds = seconds + TAIL_S
        self.ended_at = ended_at
        self.factor = factor
        self.done = done
        self.queued_at = 0.0
        self.began_at = math.inf
        self.guess = False
        self.words = True


class Decoder:
    def __init__(self, env: simpy.Environment, timing: Timing, scale: float, threads: Sequence[Thread]) -> None:
        """`scale`: how much slower than the default this machine is; `threads`: its workers."""
        self._env = env
        self._timing = timing
        self._scale = scale
        self.threads = threads
        self.load = Load(len(threads))
        self.waiting: list[Job] = []
        """In the order of their deadlines."""
        self._guesses: list[Job] = []
        self._in_hand: list[Job] = []
        self._busy = 0
        self._signal = env.event()
        for thread in threads:
            env.process(self._work(thread))

    @property
    def backlog_s(self) -> float:
        return sum(job.seconds for job in self.waiting)

    @property
    def spare(self) -> bool:
        return not self.waiting and not self._guesses and not self._busy and self.load.calm

    def look(self) -> None:
        longest = max((self._env.now - max(job.ended_at, job.queued_at) for job in self.waiting), default=0.0)
        self.load.look(max(0.0, longest), self._env.now)

    def submit(self, job: Job) -> None:
        job.guess = False
        job.queued_at = self._env.now
        self.waiting.append(job)
        self.waiting.sort(key=_deadline)
        self._wake()

    def guess(self, job: Job) -> bool:
        """Decode it if there is room right now."""
        if not self.spare:
            return False
        job.guess = True
        self._guesses.append(job)
        self._wake()
        return True

    def adopt(self, job: Job) -> None:
        """A guess was right."""
        job.guess = False
        if job in self._guesses:
            self._guesses.remove(job)
            self.submit(job)

    def hand_over(self, other: "Decoder") -> None:
        """The process is gone: another one decodes what it had."""
        jobs = [job for job in (*self._in_hand, *self.waiting) if not (job.guess or job.done.triggered)]
        self.waiting.clear()
        self._guesses.clear()
        for job in jobs:
            other.submit(job)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._signal.triggered:
            self._signal.succeed()

    def _work(self, thread: Thread) -> Steps:
        while True:
            self.look()
            batch = self._next_batch()
            if not batch:
                if self._signal.triggered:
                    self._signal = self._env.event()
                yield self._signal
                continue
            self._busy += 1
            self._in_hand += batch
            began = self._env.now
            for job in batch:
                job.began_at = min(job.began_at, began)
            yield thread.do(self._cost(batch, self.load.effort))
            self._busy -= 1
            self._in_hand = [job for job in self._in_hand if job not in batch]
            self.load.demand.decoded(len(batch), sum(job.seconds for job in batch), self._env.now - began)
            for job in batch:
                if not job.done.triggered:
                    job.done.succeed()

    def _next_batch(self) -> list[Job]:
        waiting = self.waiting or self._guesses[:1]
        batch: list[Job] = []
        passed: set[int] = set()
        for job in waiting:
            alike = not batch or length_step(job.seconds) == length_step(batch[0].seconds)
            if alike and job.line not in passed:
                batch.append(job)
                if len(batch) == MAX_BATCH:
                    break
            else:
                passed.add(job.line)
        if self.waiting:
            self.waiting = [job for job in self.waiting if job not in batch]
        else:
            self._guesses = self._guesses[1:]
        return batch

    def _cost(self, batch: Sequence[Job], effort: Effort) -> float:
        """Seconds of an idle core."""
        timing = self._timing
        longest = max(job.seconds for job in batch)
        window = max(WINDOW_S, length_step(longest) * LIKE_SECONDS + timing.window_margin_s)
        a_second = timing.tokens_s
        a_second += timing.opinion_s if effort < Effort.ONE_OPINION else 0.0
        a_second += timing.words_s if effort < Effort.LEAST and batch[0].words else 0.0
        single = timing.encode_s * window / WINDOW_S + a_second * longest
        factor = sum(job.factor for job in batch) / len(batch)
        return single * factor * self._scale * (1 + timing.batch * (len(batch) - 1))


def _deadline(job: Job) -> float:
    return job.ended_at
