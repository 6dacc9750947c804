"""The processes of a simulated site, and the way of an utterance through them."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import simpy

from quickcomm.audio.model.segmenter import SegmenterSettings
from quickcomm.capacity.model.timing import Timing
from quickcomm.capacity.model.units import Deployment, Per, UnitCosts
from quickcomm.capacity.simulation.cores import Cores, Steps, Thread, weight
from quickcomm.capacity.simulation.decoding import TAIL_S, Decoder, Job
from quickcomm.contracts.audio_socket import FRAME_MS
from quickcomm.dashboard.ports import DashboardSettings
from quickcomm.topology.model.settings import PrioritySettings

Module = Literal["audio", "intelligence", "dashboard"]
MODULES: Final[tuple[Module, ...]] = ("audio", "intelligence", "dashboard")
WORKERS: Final = 2
"""Decode workers of all processes of audio on a host, as `stt.workers = 0` shares them out."""
QUERIES: Final = DashboardSettings()
BEAT_S: Final = 0.1
"""So often what goes on all the time takes its CPU: sockets, voice detection, the edge."""
BEATS_A_COUNT: Final = 5
HOUR_S: Final = 3_600.0
REFERENCE_S: Final = 0.042
"""CPU of audio a second of speech that the default timing gives at 8 to 16 talkers; a measured one scales all of it."""
HANGOVER_S: Final = SegmenterSettings().hangover * FRAME_MS / 1000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated. `beside`: cores of each host that other programs take."""

    deployment: Deployment
    timing: Timing = Timing()
    units: UnitCosts | None = None
    hosts: int = 1
    cores: int = 2
    workers: int = 0
    """Decode workers of each process of audio; 0: `WORKERS`, shared out."""
    processes: dict[Module, int] = {}
    """Of services, at the beginning; one where nothing is said."""
    model: float = 0.0
    """The share of utterances that a model is asked about."""
    beside: float = 0.0
    seed: int = 0


class Utterance:
    """Times in seconds of the simulation; None: not yet. `shown`: the card; `understood`: its insights are shown."""

    __slots__ = ("closed", "decoded", "ended", "heard", "number", "queued_s", "seconds", "shown", "understood")

    def __init__(self, number: int, ended: float, seconds: float) -> None:
        self.number = number
        self.seconds = seconds
        self.ended = ended
        self.queued_s = 0.0
        self.closed: float | None = None
        self.decoded: float | None = None
        self.heard: float | None = None
        self.shown: float | None = None
        self.understood: float | None = None


class Process:
    """One process. `loop`: all its Python, one thing at a time; `store`: its database; `ear`: voice detection."""

    def __init__(self, site: "Site", modules: tuple[Module, ...], host: int, nice: int) -> None:
        cores, share = site.hosts[host], weight(nice)
        self.modules = modules
        self.host = host
        self.alive = True
        self.loop, self.store, self.ear = (Thread(cores, share) for _ in range(3))
        self.model = simpy.Resource(site.env, site.plan.timing.model_at_once)
        self.asked = simpy.Resource(site.env, QUERIES.queries_at_once)
        """Cards do not wait behind questions: the dashboard answers few at once."""
        hears = "audio" in modules
        engine = [Thread(cores, share) for _ in range(site.workers)] if hears else []
        self.decoder = Decoder(site.env, site.plan.timing, site.scale, engine) if hears else None
        self.threads = (self.loop, self.store, self.ear, *engine)

    @property
    def cpu_s(self) -> float:
        return sum(thread.used[0] for thread in self.threads)

    def stop(self) -> None:
        self.alive = False
        for thread in self.threads:
            thread.stop()

    def start(self) -> None:
        self.alive = True
        for thread in self.threads:
            thread.start()

    def hand_over(self, other: "Process") -> None:
        """Another process does what this one had in hand."""
        self.loop.hand_over(other.loop)
        self.store.hand_over(other.store)
        if self.decoder is not None and other.decoder is not None:
            self.decoder.hand_over(other.decoder)


class Line:
    """A conversation. `audio`: the process that has it now."""

    __slots__ = ("audio", "before", "last_spoke", "number", "rng", "speaks")

    def __init__(self, number: int, audio: Process, seed: int) -> None:
        self.number = number
        self.audio = audio
        self.rng = random.Random(f"{seed} {number}")  # noqa: S311 - a simulation
        self.before: simpy.Event | None = None
        self.last_spoke = float("-inf")
        self.speaks = False


class Site:
    """Threads, processes and lines; `people` makes them talk, `events` starts, stops and loses processes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.env = simpy.Environment()
        self.hosts = [Cores(self.env, plan.cores, plan.timing.beside) for _ in range(plan.hosts)]
        audio = 1 if plan.deployment == "monolith" else plan.processes.get("audio", 1)
        self.workers = plan.workers or max(1, WORKERS // -(-audio // plan.hosts))
        self.scale = self.cost("audio", "speech_s", REFERENCE_S) / REFERENCE_S
        self.processes: list[Process] = []
        self.gone: list[Process] = []
        """Stopped for good; their CPU still counts."""
        self.lines: dict[int, Line] = {}
        self.utterances: list[Utterance] = []
        self.unread: dict[int, float] = {}
        """Transcripts that nothing has begun to understand: number, published at."""
        self.queries: list[float] = []
        self.refused = 0
        self.pages = 0.0
        self.edges = [Thread(cores, 1.0) for cores in self.hosts]
        self.others = [Thread(cores, 1.0) for cores in self.hosts]
        self._turns = itertools.count()
        for modules, count in self._wanted().items():
            for _ in range(count):
                self.add(modules)
        self.env.process(self._beat())

    # -- processes --------------------------------------------------------------------------------------------------

    def add(self, modules: tuple[Module, ...]) -> Process:
        """Have one more process, on the host with the fewest."""
        used = Counter(process.host for process in self.processes)
        host = min(range(self.plan.hosts), key=used.__getitem__)
        nice = PrioritySettings().of(modules[0] if len(modules) == 1 else "monolith")
        process = Process(self, modules, host, nice)
        self.processes.append(process)
        return process

    def of(self, module: Module) -> list[Process]:
        """Return the living processes of a module, else all: their work waits until they are back."""
        found = [process for process in self.processes if module in process.modules]
        return [process for process in found if process.alive] or found

    def spread(self, stay: Sequence[Process]) -> None:
        """Give each of `stay` as many lines; none moves without need."""
        most = -(-len(self.lines) // len(stay))
        has = {id(process): 0 for process in stay}
        homeless = []
        for line in self.lines.values():
            if has.get(id(line.audio), most) < most:
                has[id(line.audio)] += 1
            else:
                homeless.append(line)
        for line in homeless:
            line.audio = min(stay, key=lambda process: has[id(process)])
            has[id(line.audio)] += 1

    def _wanted(self) -> dict[tuple[Module, ...], int]:
        if self.plan.deployment == "monolith":
            return {MODULES: self.plan.hosts}
        return {(module,): self.plan.processes.get(module, 1) for module in MODULES}

    # -- CPU --------------------------------------------------------------------------------------------------------

    def cost(self, module: Module, per: Per, default_s: float) -> float:
        """Return the CPU seconds of the unit-cost file, else the default."""
        plan = self.plan
        name = "monolith" if plan.deployment == "monolith" else module
        figure = plan.units.find(plan.deployment, name, per, "cpu_s") if plan.units else None
        return default_s if figure is None else figure.median

    def _beat(self) -> Steps:
        """Have what goes on all the time take its CPU."""
        for beat in itertools.count():
            yield self.env.timeout(BEAT_S)
            if beat % BEATS_A_COUNT == 0:
                there = Counter(id(line.audio) for line in self.lines.values())
                speak = Counter(id(line.audio) for line in self.lines.values() if line.speaks)
            for process in self.processes:
                self._go_on(process, there[id(process)], speak[id(process)])
            if self.plan.beside:
                for other in self.others:
                    other.do(self.plan.beside * BEAT_S)

    def _go_on(self, process: Process, lines: int, speak: int) -> None:
        """`lines`, `speak`: conversations of the process, and in how many of them somebody speaks."""
        timing, first = self.plan.timing, process.modules[0]
        loop_s = self.cost(first, "process_h", 0.0) / HOUR_S
        if "dashboard" in process.modules:
            loop_s += self.pages * self.cost("dashboard", "page_h", 0.0) / HOUR_S / len(self.of("dashboard"))
        if lines:
            open_s = lines * self.cost("audio", "silent_channel_h", timing.open_s * HOUR_S) / HOUR_S / 2
            process.ear.do((open_s + speak * timing.hear_s * self.scale) * BEAT_S)
            loop_s += open_s + speak * timing.receive_s * self.scale
            self.edges[process.host].do(speak * timing.edge_s * BEAT_S)
        if loop_s:
            process.loop.do(loop_s * BEAT_S)

    # -- an utterance -----------------------------------------------------------------------------------------------

    def utter(self, line: Line, seconds: float) -> Steps:
        """Take an utterance that has just ended from its last word to its insights on the pages."""
        env, timing, rng = self.env, self.plan.timing, line.rng
        utterance = Utterance(len(self.utterances), env.now, seconds)
        self.utterances.append(utterance)
        before, published = line.before, env.event()
        line.before = published
        understand_s = rng.lognormvariate(0.0, timing.understand_spread)
        asked, model_s = rng.random() < self.plan.model, rng.lognormvariate(0.0, timing.model_spread)

        yield from self._hear(line, utterance)
        if before is not None and not before.processed:
            yield before
        yield line.audio.store.do(timing.publish_s * self.scale)
        yield line.audio.loop.do(timing.push_s)
        utterance.heard = env.now
        published.succeed()
        self.unread[utterance.number] = env.now
        if self.plan.deployment == "services":
            yield env.timeout(timing.hop_s)
        env.process(self._understand(utterance, understand_s, model_s if asked else None))
        yield from self._show()
        utterance.shown = env.now

    def _hear(self, line: Line, utterance: Utterance) -> Steps:
        """Wait for silence, and decode: early in the pause where nothing else is to be done, else at its end."""
        env, timing, rng = self.env, self.plan.timing, line.rng
        factor = rng.lognormvariate(-(timing.decode_spread**2) / 2, timing.decode_spread)
        place = rng.random() * timing.message_s
        early_s, closed_s = (
            _known_after(silence_s, place, timing.message_s) + rng.random() * FRAME_MS / 1000
            for silence_s in (TAIL_S, HANGOVER_S)
        )
        job = Job(line.number, utterance.seconds, env.now, factor, env.event())
        yield env.timeout(early_s)
        yield line.audio.loop.do(timing.receive_s * BEAT_S)
        early = self.decoder(line).guess(job)
        yield env.timeout(max(0.0, utterance.ended + closed_s - env.now))
        yield line.audio.loop.do(timing.receive_s * BEAT_S)
        utterance.closed = env.now
        if early:
            self.decoder(line).adopt(job)
        else:
            self.decoder(line).submit(job)
        yield job.done
        utterance.decoded = env.now
        utterance.queued_s = max(0.0, min(job.began_at, env.now) - utterance.closed)

    def decoder(self, line: Line) -> Decoder:
        decoder = line.audio.decoder
        assert decoder is not None  # noqa: S101 - a process of audio has one
        return decoder

    def _show(self) -> Steps:
        timing = self.plan.timing
        process = self.next_of("dashboard")
        yield process.store.do(timing.publish_s / 2)
        yield process.loop.do(timing.push_s * (1 + self.pages))

    def _understand(self, utterance: Utterance, factor: float, model: float | None) -> Steps:
        """`factor`, `model`: how much longer than the median the local classifier takes, and the model, if asked."""
        timing = self.plan.timing
        process = self.next_of("intelligence")
        answered = False
        if model is not None:
            until = self.env.now + timing.model_budget_s
            with process.model.request() as place:
                yield place | self.env.timeout(timing.model_budget_s)
                self.unread.pop(utterance.number, None)
                if place.triggered:
                    yield process.loop.do(self.cost("intelligence", "utterance_model", timing.ask_s))
                    left_s = max(0.0, until - self.env.now)
                    yield self.env.timeout(min(left_s, timing.model_s * model))
                    answered = timing.model_s * model <= left_s
        if not answered:
            yield process.loop.do(self.cost("intelligence", "utterance_local", timing.understand_s) * factor)
        self.unread.pop(utterance.number, None)
        if self.plan.deployment == "services":
            yield self.env.timeout(timing.hop_s)
        yield from self._show()
        utterance.understood = self.env.now

    def next_of(self, module: Module) -> Process:
        """Return the processes of a module in turn."""
        found = self.of(module)
        return found[next(self._turns) % len(found)]

    def query(self) -> Steps:
        """Answer a question of a page or a program."""
        began, timing = self.env.now, self.plan.timing
        process = self.next_of("dashboard")
        yield self.edges[process.host].do(timing.edge_query_s)
        if len(process.asked.queue) >= QUERIES.queries_waiting:
            self.refused += 1
            return
        half_s = self.cost("dashboard", "query", timing.query_s) / 2
        with process.asked.request() as turn:
            yield turn
            yield process.store.do(half_s)
            yield process.loop.do(half_s)
        self.queries.append(self.env.now - began)


def _known_after(silence_s: float, place: float, message_s: float) -> float:
    """Return when so much silence is known, after the message with the last word began: sound comes in messages.

    `place`: of the last word in its message, in seconds.
    """
    if not message_s:
        return silence_s
    return float((place + silence_s) // message_s * message_s)
