"""Those who talk, look and ask at a simulated site: lines come and go with the day, bursts, pages, questions."""

import math
import random
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import simpy

from quickcomm.audio.model.segmenter import SegmenterSettings
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.capacity.model.load import Load
from quickcomm.capacity.simulation.cores import Steps
from quickcomm.capacity.simulation.decoding import Job
from quickcomm.capacity.simulation.site import HANGOVER_S, Line, Site
from quickcomm.contracts.audio_socket import FRAME_MS

LOOK_S: Final = 5.0
"""So often the number of lines follows the level of the day."""
BURST_S: Final = 60.0
BURST_EVERY_S: Final = 1_200.0
"""Between two bursts, on average. Assumed: `Load.burst` says "at times"."""
SPREAD: Final = 0.6
"""Of the lengths of utterances: sigma of the logarithm. Measured: the recordings of the benchmarks, mean 4.0 s."""
SHORTEST_S: Final = 0.5
LONGEST_S: Final = SegmenterSettings().longest * FRAME_MS / 1000
LEAST_PAUSE_S: Final = HANGOVER_S + 0.05
FALSE_PAUSES: Final = 0.1
"""Pauses a second of speech that are long enough for an early decoding, but do not end the utterance. Measured: 25 in
250 s of the recordings."""
PARTIAL_S: Final = AudioSettings().partial_every_s


class Said(NamedTuple):
    """One utterance: seconds of pause before it, and of itself."""

    pause_s: float
    seconds: float


class Crowd(Protocol):
    """Who talks, and how."""

    @property
    def captions(self) -> bool:
        """Return True if what is being said is shown meanwhile, and so decoded several times."""
        ...

    def level(self, now_s: float) -> tuple[float, float, float]:
        """Return lines, pages and questions a second at a time of the simulation."""
        ...

    def talk(self, line: Line, site: Site) -> Iterator[Said]:
        """Return what is said on a line, from now on."""
        ...


class Scripted(msgspec.Struct, frozen=True):
    """The same lines all the time, each with a script of its own, as benchmarks have it."""

    scripts: Sequence[Sequence[Said]]
    captions: bool = False
    pages: float = 1.0
    queries_per_s: float = 0.0

    def level(self, now_s: float) -> tuple[float, float, float]:
        del now_s
        return len(self.scripts), self.pages, self.queries_per_s

    def talk(self, line: Line, site: Site) -> Iterator[Said]:
        del site
        return iter(self.scripts[line.number])


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A load. `talkers`: so many lines instead of the curve, all else as in the busiest hour."""

    load: Load
    hour: "Calendar"
    talkers: int | None = None

    @property
    def captions(self) -> bool:
        return any(level.pages for level in self.load.level)

    def level(self, now_s: float) -> tuple[float, float, float]:
        there = self.load.at(self._hour(now_s))
        lines = there.conversations if self.talkers is None else float(self.talkers)
        return lines, there.pages, there.queries_per_s

    def talk(self, line: Line, site: Site) -> Iterator[Said]:
        """Utterances of a logarithmic normal distribution, pauses of an exponential one."""
        mean, rng = self.load.utterance_s, line.rng
        while True:
            share = self.load.at(self._hour(site.env.now)).speech
            if share <= 0:
                yield Said(LOOK_S, 0.0)
                continue
            length = rng.lognormvariate(math.log(mean) - SPREAD**2 / 2, SPREAD)
            pause = max(0.0, mean / share - mean - LEAST_PAUSE_S)
            yield Said(LEAST_PAUSE_S + rng.expovariate(1) * pause, min(LONGEST_S, max(SHORTEST_S, length)))

    def _hour(self, now_s: float) -> float:
        return self.hour.at(now_s) if self.talkers is None else self.load.busiest.at_h


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """From time of the simulation to time of day. Of each `step_s` of the day only `look_s` are simulated."""

    start_h: float = 0.0
    step_s: float = 1.0
    look_s: float = 1.0

    def passed_s(self, now_s: float) -> float:
        """Return the seconds of the day that have passed since the beginning."""
        steps, rest = divmod(now_s, self.look_s)
        return float(steps * self.step_s + rest)

    def at(self, now_s: float) -> float:
        return (self.start_h + self.passed_s(now_s) / 3_600) % 24

    def when(self, passed_s: float) -> float:
        """Return the time of the simulation at which so much has passed; in a step that is cut short, early in it."""
        steps, rest = divmod(passed_s, self.step_s)
        return float(steps * self.look_s + (rest if self.step_s == self.look_s else self.look_s / 4))


class People:
    """Makes the crowd's lines talk at a site. `burst`: what the level is multiplied with at times."""

    def __init__(self, site: Site, crowd: Crowd, burst: float = 1.0) -> None:
        self._site = site
        self._crowd = crowd
        self._burst = burst
        self._rng = random.Random(f"{site.plan.seed} people")  # noqa: S311 - a simulation
        self._next = 0
        self.bursts: list[float] = []
        self._burst_until = -math.inf
        site.env.process(self._follow())
        site.env.process(self._ask())
        if burst > 1:
            site.env.process(self._bursts())

    def _follow(self) -> Steps:
        """Have as many lines as the level of the day says."""
        site, env = self._site, self._site.env
        while True:
            lines, site.pages, _ = self._crowd.level(env.now)
            wanted = round(lines * (self._burst if env.now < self._burst_until else 1.0))
            while len(site.lines) > wanted:
                site.lines.popitem()
            while len(site.lines) < wanted:
                self._arrive()
            yield env.timeout(LOOK_S)

    def _arrive(self) -> None:
        site = self._site
        audio = site.of("audio")
        line = Line(self._next, audio[self._next % len(audio)], site.plan.seed)
        site.lines[self._next] = line
        self._next += 1
        site.env.process(self._talk(line))

    def _talk(self, line: Line) -> Steps:
        site, env = self._site, self._site.env
        for said in self._crowd.talk(line, site):
            yield env.timeout(said.pause_s)
            if site.lines.get(line.number) is not line:
                return
            if not said.seconds:
                continue
            line.speaks = True
            yield from self._speak(line, said.seconds)
            line.speaks, line.last_spoke = False, env.now
            env.process(site.utter(line, said.seconds))

    def _speak(self, line: Line, seconds: float) -> Steps:
        """Say an utterance; what is decoded of it meanwhile is thrown away or shown as a caption."""
        env, began = self._site.env, self._site.env.now
        caption: Job | None = None
        pause_at = line.rng.expovariate(FALSE_PAUSES)
        caption_at = PARTIAL_S if self._crowd.captions else math.inf
        while (at := min(pause_at, caption_at)) < seconds:
            yield env.timeout(began + at - env.now)
            decoder = self._site.decoder(line)
            if pause_at <= caption_at:
                pause_at += line.rng.expovariate(FALSE_PAUSES)
                decoder.guess(self._guessed(line, at, words=True))
                continue
            caption_at += PARTIAL_S
            if caption is None or caption.done.triggered:
                job = self._guessed(line, at, words=False)
                caption = job if decoder.guess(job) else None
        yield env.timeout(began + seconds - env.now)

    def _guessed(self, line: Line, seconds: float, *, words: bool) -> Job:
        job = Job(line.number, seconds, self._site.env.now, 1.0, self._site.env.event())
        job.words = words
        return job

    def _ask(self) -> Steps:
        env = self._site.env
        while True:
            rate = self._crowd.level(env.now)[2]
            yield env.timeout(self._rng.expovariate(rate) if rate else LOOK_S)
            if rate:
                env.process(self._site.query())

    def _bursts(self) -> Steps:
        env: simpy.Environment = self._site.env
        while True:
            yield env.timeout(self._rng.expovariate(1 / BURST_EVERY_S))
            self.bursts.append(env.now)
            self._burst_until = env.now + BURST_S
            yield env.timeout(BURST_S)
