"""Figures of one side of a migration: bounded, newest first to stay, read by the gates."""

import time
from collections import OrderedDict, defaultdict, deque
from typing import Final

from quickcomm.contracts.evidence import MAX_SAMPLES, Measured, Spending
from quickcomm.kernel.clock import Clock

RECENT_NS: Final = 60 * 10**9
MAX_SHOWN: Final = 20
TOGETHER: Final = 10
"""So many utterances make a sample of the CPU time: one alone takes less than the process does beside it."""


class Bill:
    """Calls to a language model."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: deque[tuple[int, int, int, float]] = deque(maxlen=10 * MAX_SAMPLES)

    def add(self, prompt_tokens: int, completion_tokens: int, cost: float) -> None:
        self._calls.append((self._clock.now_ns(), prompt_tokens, completion_tokens, cost))

    def since(self, since_ns: int, answers: int) -> Spending:
        """Return what was spent since then, for so many answers."""
        calls = [call for call in self._calls if call[0] >= since_ns]
        return Spending(
            answers=answers,
            calls=len(calls),
            prompt_tokens=sum(prompt for _, prompt, _, _ in calls),
            completion_tokens=sum(completion for _, _, completion, _ in calls),
            cost=sum(cost for *_, cost in calls),
        )


class Measurements:
    """Counts what a module answers, what fails, and how long stages take. Used from the event loop."""

    def __init__(self, clock: Clock, side: str) -> None:
        self._clock = clock
        self._side = side
        self._answers: deque[tuple[int, bool]] = deque(maxlen=10 * MAX_SAMPLES)
        self._refused: deque[int] = deque(maxlen=MAX_SAMPLES)
        self._stages: defaultdict[str, deque[tuple[int, float]]] = defaultdict(lambda: deque(maxlen=MAX_SAMPLES))
        self._compared: deque[tuple[int, str]] = deque(maxlen=MAX_SAMPLES)
        self._clients: OrderedDict[int, int] = OrderedDict()
        self._noise: deque[tuple[int, bool]] = deque(maxlen=MAX_SAMPLES)
        self._cpu: deque[tuple[int, float]] = deque(maxlen=MAX_SAMPLES)
        self._read = 0
        self._cpu_s = time.process_time()
        self.bill = Bill(clock)
        """Of what this side serves."""

    def client(self, bucket: int) -> None:
        """Note that a client, or a conversation, of this bucket was served."""
        self._clients[bucket] = self._clock.now_ns()

    def answered(self, ms: float, *, failed: bool) -> None:
        """Count an answer, and how long it took; `failed`: through no fault of the caller."""
        self._answers.append((self._clock.now_ns(), failed))
        self.stage("answer", ms)

    def refused(self) -> None:
        """Count a decision that the store refused, for another side makes them."""
        self._refused.append(self._clock.now_ns())

    def stage(self, name: str, ms: float) -> None:
        self._stages[name].append((self._clock.now_ns(), ms))

    def read(self, utterances: int) -> None:
        """Count utterances that were read, whichever side answers them: by these the CPU time is divided."""
        self._read += utterances
        if self._read >= TOGETHER:
            cpu_s = time.process_time()
            self._cpu.append((self._clock.now_ns(), (cpu_s - self._cpu_s) * 1e3 / self._read))
            self._cpu_s, self._read = cpu_s, 0

    def compared(self, difference: str) -> None:
        """Count an answer that the other side gave as well; `difference`: where it is another one, else empty."""
        self._compared.append((self._clock.now_ns(), difference))

    def noise(self, *, differs: bool) -> None:
        """Count an answer that this side gave twice."""
        self._noise.append((self._clock.now_ns(), differs))

    def since(self, since_ns: int) -> Measured:
        """Return the figures since then, as far back as they are kept."""
        recent_ns = self._clock.now_ns() - RECENT_NS
        answers = [failed for at_ns, failed in self._answers if at_ns >= since_ns]
        compared = [difference for at_ns, difference in self._compared if at_ns >= since_ns]
        noise = [differs for at_ns, differs in self._noise if at_ns >= since_ns]
        return Measured(
            side=self._side,
            since_ns=since_ns,
            answered=len(answers),
            errors=sum(answers),
            recent_errors=sum(failed for at_ns, failed in self._answers if at_ns >= max(recent_ns, since_ns)),
            recent_refused=sum(at_ns >= max(recent_ns, since_ns) for at_ns in self._refused),
            conversations=sum(at_ns >= since_ns for at_ns in self._clients.values()),
            stages_ms={
                name: tuple(ms for at_ns, ms in samples if at_ns >= since_ns) for name, samples in self._stages.items()
            },
            recent_different=sum(
                bool(difference) for at_ns, difference in self._compared if at_ns >= max(recent_ns, since_ns)
            ),
            compared=len(compared),
            alike=sum(not difference for difference in compared),
            noise=(sum(noise), len(noise)),
            different=tuple(list(dict.fromkeys(difference for difference in compared if difference))[-MAX_SHOWN:]),
            cpu_s=time.process_time(),
            cpu_ms=tuple(ms for at_ns, ms in self._cpu if at_ns >= since_ns),
            spent=self.bill.since(since_ns, len(answers)),
        )
