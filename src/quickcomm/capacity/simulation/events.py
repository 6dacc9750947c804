"""What happens to the processes of a simulated site: scaling, deploys, a lost host. Each is told in `Happenings`."""

from typing import Final, NamedTuple

from quickcomm.capacity.model.scaling import READ_EVERY_S, Decision, Memory, Reading, ScalingPolicy, Wanted, decide
from quickcomm.capacity.simulation.cores import Steps
from quickcomm.capacity.simulation.people import Calendar
from quickcomm.capacity.simulation.site import Module, Process, Site

TALKED_S: Final = 10.0
LOOK_S: Final = 0.5


class Happening(NamedTuple):
    """`at_s`: of the simulation; `at_h`: of the day."""

    at_s: float
    at_h: float
    what: str


class Events:
    def __init__(self, site: Site, calendar: Calendar) -> None:
        self._site = site
        self._calendar = calendar
        self.told: list[Happening] = []
        site.env.process(self._look())

    def autoscale(self, policy: ScalingPolicy) -> None:
        self._site.env.process(self._autoscale(policy))

    def deploy(self, module: Module, passed_s: float) -> None:
        """Restart all processes of a module one by one; of a monolith, the monolith's."""
        self._site.env.process(self._deploy(module, self._calendar.when(passed_s)))

    def lose_host(self, host: int, passed_s: float, for_s: float) -> None:
        self._site.env.process(self._lose_host(host, self._calendar.when(passed_s), for_s))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _tell(self, what: str) -> None:
        now = self._site.env.now
        self.told.append(Happening(now, self._calendar.at(now), what))

    def _look(self) -> Steps:
        """Let each decoder see its load, as audio does."""
        site = self._site
        while True:
            yield site.env.timeout(LOOK_S)
            for process in site.of("audio"):
                if process.decoder is not None and process.alive:
                    own = [line for line in site.lines.values() if line.audio is process]
                    process.decoder.look()
                    process.decoder.load.demand.look(sum(line.speaks for line in own), len(own), site.env.now)

    def _take_away(self, process: Process) -> Steps:
        """Have others of its module take over what it had in hand; without others it waits until the process is back.

        A monolith's conversations are its own: they always wait.
        """
        site = self._site
        process.stop()
        while site.plan.deployment == "services":
            yield site.env.timeout(site.plan.timing.take_over_s)
            if process.alive:
                return
            others = [each for each in site.of(process.modules[0]) if each.alive]
            if others:
                if process.decoder is not None:
                    site.spread(others)
                process.hand_over(others[0])
                return

    def _bring_back(self, process: Process) -> None:
        if process not in self._site.processes:
            return
        process.start()
        if process.decoder is not None and self._site.plan.deployment == "services":
            self._site.spread(self._site.of("audio"))

    def _deploy(self, module: Module, at_s: float) -> Steps:
        site = self._site
        yield site.env.timeout(at_s - site.env.now)
        self._tell(f"deploy of {module} begins")
        for process in [each for each in site.of(module) if each.alive]:
            site.env.process(self._take_away(process))
            yield site.env.timeout(site.plan.timing.start_s)
            self._bring_back(process)
        self._tell(f"deploy of {module} is over")

    def _lose_host(self, host: int, at_s: float, for_s: float) -> Steps:
        site = self._site
        yield site.env.timeout(at_s - site.env.now)
        lost = [process for process in site.processes if process.host == host and process.alive]
        self._tell(f"host {host} is lost, with {len(lost)} processes")
        for process in lost:
            site.env.process(self._take_away(process))
        yield site.env.timeout(for_s)
        for process in lost:
            self._bring_back(process)
        self._tell(f"host {host} is back")

    def _reading(self) -> Reading:
        site, now = self._site, self._site.env.now
        audio = [process for process in site.processes if "audio" in process.modules]
        return Reading(
            at_s=self._calendar.passed_s(now),
            talkers=sum(line.speaks or now - line.last_spoke < TALKED_S for line in site.lines.values()),
            audio=len(audio),
            workers=site.workers,
            backlog_s=sum(process.decoder.backlog_s for process in audio if process.decoder is not None),
            intelligence=sum("intelligence" in process.modules for process in site.processes),
            lag_s=now - min(site.unread.values(), default=now),
            lag_messages=len(site.unread),
        )

    def _autoscale(self, policy: ScalingPolicy) -> Steps:
        site, memory = self._site, Memory()
        while True:
            yield site.env.timeout(READ_EVERY_S)
            decision: Decision = decide(policy, self._reading(), memory)
            memory = decision.memory
            self._scale("audio", decision.audio)
            self._scale("intelligence", decision.intelligence)

    def _scale(self, module: Module, wanted: Wanted) -> None:
        site = self._site
        there = [process for process in site.processes if module in process.modules]
        if wanted.processes != len(there):
            self._tell(f"{module}: {len(there)} → {wanted.processes} processes: {wanted.why}")
        for _ in range(wanted.processes - len(there)):
            self._start(module)
        for process in there[wanted.processes :]:
            site.processes.remove(process)
            site.gone.append(process)
            site.env.process(self._take_away(process))

    def _start(self, module: Module) -> None:
        """Have one more process, which works after its start-up time."""
        site = self._site
        process = site.add((module,))
        process.stop()

        def begin() -> Steps:
            yield site.env.timeout(site.plan.timing.start_s)
            self._bring_back(process)

        site.env.process(begin())
