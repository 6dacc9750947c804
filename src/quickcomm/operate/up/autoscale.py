"""`up --autoscale`: asks the one scaling policy how many processes audio and intelligence should have, and has them.

The policy is `capacity/model/scaling.py`, as in `quickcomm simulate`. Here is what surrounds it: readings, bounds, one
change at a time, what an operator asked for, and talkers that go to a new process.
"""

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec
import structlog
from prometheus_client import Gauge

from quickcomm.capacity.model.scaling import READ_EVERY_S, Decision, Memory, Past, Rule, ScalingPolicy, Wanted, decide
from quickcomm.contracts.commands import ShareOut
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.runtime.alarms import rfc3339
from quickcomm.operate.up.loads import AUDIO, FAILURES, INTELLIGENCE, Ask, Loads, Meter, excess
from quickcomm.topology.model.settings import AutoscaleSettings
from quickcomm.topology.module import Keeper

AGAIN_S: Final = 30.0
"""After processes could not be started or stopped."""
SHARE_S: Final = 10.0
"""For a process to share out talkers, beside `EACH_S` for each of them."""
EACH_S: Final = 1.0
MODULES: Final = (AUDIO, INTELLIGENCE)
Scaled = Literal["audio", "intelligence"]
WANTED: Final = Gauge("quickcomm_processes_wanted", "Processes that autoscaling wants", ["module"])

log = structlog.get_logger(__name__)


class Processes(Protocol):
    """`Fleet`."""

    @property
    def keepers(self) -> Sequence[Keeper]: ...

    @property
    def changing(self) -> bool: ...

    async def scale(self, name: str, replicas: int) -> None: ...


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """Processes of a module: `first` when the site starts, `most` that there can be at all."""

    first: int
    most: int


class Least:
    """How many processes of a module an operator asked for last, kept for an `up` that takes over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._asked = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        except (OSError, *MALFORMED):
            self._asked = {}

    def of(self, module: str, first: int) -> int:
        """Return it; `first` where nothing was asked for."""
        return self._asked.get(module, first)

    def keep(self, module: str, count: int) -> None:
        """Keep it. A full disk is no reason not to obey."""
        self._asked[module] = count
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(msgspec.json.encode(self._asked))
            new.replace(self._path)
        except OSError as error:
            log.warning("autoscale.least_not_kept", module=module, error=str(error))


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a module, for people."""

    processes: int
    wanted: int
    least: int
    most: int
    why: str
    since: str
    """When so many were first wanted."""


def policy_of(
    settings: AutoscaleSettings, allowed: Mapping[str, Allowed], least: Least, workers: int, cores: int
) -> ScalingPolicy:
    """Return the policy within the bounds of this site. `workers`: of a process of audio.

    What an operator asked for counts, also where the settings allow fewer.
    """
    default = ScalingPolicy()

    def rule(module: str, default: Rule, most: int, talkers: float) -> Rule:
        at_least = least.of(module, allowed[module].first)
        at_most = max(at_least, min(most, allowed[module].most))
        return Rule(talkers=talkers, behind_s=default.behind_s, least=at_least, most=at_most)

    audio_most = settings.audio_most or max(1, cores // max(1, workers))
    intelligence_most = settings.intelligence_most or cores
    return msgspec.structs.replace(
        default,
        audio=rule(AUDIO, default.audio, audio_most, settings.talkers),
        intelligence=rule(INTELLIGENCE, default.intelligence, intelligence_most, default.intelligence.talkers),
    )


class Autoscaler:
    """`cores`: of this machine."""

    def __init__(
        self,
        processes: Processes,
        meter: Meter,
        ask: Ask,
        clock: Clock,
        *,
        settings: AutoscaleSettings,
        allowed: Mapping[str, Allowed],
        least: Least,
        cores: int,
    ) -> None:
        self._processes = processes
        self._meter = meter
        self._ask = ask
        self._clock = clock
        self._settings = settings
        self._allowed = allowed
        self._least = least
        self._cores = cores
        self._memory = Memory()
        self._standing: dict[str, Standing] = {}
        self._not_read = ""
        self._not_before = -math.inf
        self._shared_at = -math.inf

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        log.info("autoscale.on", cores=self._cores)
        while True:
            await self._clock.sleep(READ_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Take a reading, and make one change at most. What cannot be read changes nothing."""
        if self._processes.changing:
            return
        loads = await self._read()
        if loads is None or self._has_changed(loads):
            return
        reading = loads.reading
        policy = policy_of(self._settings, self._allowed, self._least, reading.workers, self._cores)
        decision = decide(policy, reading, self._memory)
        self._tell(policy, decision, loads)
        now = self._clock.monotonic()
        modules: tuple[Scaled, ...] = (AUDIO, INTELLIGENCE)
        for module in modules:
            wanted, there = getattr(decision, module), getattr(reading, module)
            if wanted.processes == there:
                self._remember(module, getattr(decision.memory, module))
            elif now >= self._not_before and not (module == AUDIO and self._waits(wanted, loads)):
                await self._scale(module, there, wanted, getattr(decision.memory, module))
                return
        if now - self._shared_at >= policy.settle_s:
            await self._share(loads, policy.audio.behind_s)

    def asked_for(self, module: str, count: int) -> None:
        """Take in what an operator scaled a module to: there are never fewer from now on."""
        if module in MODULES:
            self._least.keep(module, count)

    def row(self) -> dict[str, Any]:
        """Return what is wanted, and why, for `quickcomm status`."""
        found: dict[str, Any] = msgspec.to_builtins(self._standing)
        return found | ({"not_read": self._not_read} if self._not_read else {})

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _read(self) -> Loads | None:
        try:
            loads = await self._meter.read()
        except FAILURES as error:
            why = str(error) or "it takes too long to answer"
            if why != self._not_read:
                log.warning("autoscale.not_read", why=why)
            self._not_read = why
            return None
        if self._not_read:
            log.info("autoscale.read_again")
        self._not_read = ""
        return loads

    def _has_changed(self, loads: Loads) -> bool:
        """Return True where processes were started or stopped while the reading was taken."""
        there = [keeper.name for keeper in self._processes.keepers if keeper.module == AUDIO]
        return self._processes.changing or there != list(loads.audio)

    def _tell(self, policy: ScalingPolicy, decision: Decision, loads: Loads) -> None:
        now = rfc3339(datetime.fromtimestamp(self._clock.now_ns() / 1e9, UTC))
        for module in MODULES:
            wanted: Wanted = getattr(decision, module)
            rule: Rule = getattr(policy, module)
            waits = self._waits(wanted, loads) if module == AUDIO else ""
            before = self._standing.get(module)
            self._standing[module] = Standing(
                processes=getattr(loads.reading, module),
                wanted=wanted.processes,
                least=rule.least,
                most=rule.most,
                why=waits or wanted.why,
                since=now if before is None or before.wanted != wanted.processes else before.since,
            )
            WANTED.labels(module).set(wanted.processes)

    def _waits(self, wanted: Wanted, loads: Loads) -> str:
        """Return why processes of audio that are too many stay; empty where they need not."""
        going = list(loads.audio.values())[wanted.processes :]
        calls = sum(load.cannot_resume for load in going)
        return f"{calls} conversations that cannot resume are waited for" if calls else ""

    def _remember(self, module: Scaled, past: Past) -> None:
        self._memory = msgspec.structs.replace(self._memory, **{module: past})

    async def _scale(self, module: Scaled, there: int, wanted: Wanted, past: Past) -> None:
        """Have as many as are wanted. Where that fails the policy is told nothing, and asked again later."""
        began = self._clock.monotonic()
        told = {"module": module, "before": there, "processes": wanted.processes, "why": wanted.why}
        try:
            await self._processes.scale(module, wanted.processes)
        except FAILURES as error:
            log.warning("autoscale.not_scaled", **told, error=str(error), again_in_s=AGAIN_S)
            self._not_before = self._clock.monotonic() + AGAIN_S
            return
        now = self._clock.monotonic()
        log.info("autoscale.scaled", **told, took_s=round(now - began, 1))
        if wanted.processes > there:  # what was started has its chance from now on
            past = msgspec.structs.replace(past, grown_at=now)
        self._remember(module, past)
        if module == AUDIO and wanted.processes > there and (loads := await self._read()) is not None:
            await self._share(loads)

    async def _share(self, loads: Loads, behind_s: float = -1.0) -> None:
        """Have processes with more talkers than others give some away; `behind_s`: only those that are behind."""
        for name, count in excess(loads.audio, behind_s).items():
            self._shared_at = self._clock.monotonic()
            try:
                [row] = await self._ask(name, ShareOut(conversations=count), SHARE_S + EACH_S * count)
            except FAILURES as error:
                log.warning("autoscale.not_shared", process=name, conversations=count, error=str(error))
            else:
                log.info("autoscale.shared", process=name, conversations=row.get("given_up", 0))


def cores_here() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
