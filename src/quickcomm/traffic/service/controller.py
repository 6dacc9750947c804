"""Carries out what the state machine asks for: stores it first, then acts, then waits until it is in force everywhere.

Each module with a change under way has a task that performs one effect after the other; a rollback cancels it. All
changes of state go through `change`, one after the other, and are stored before anything follows from them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final

import structlog

from quickcomm.contracts.migration import DECIDING
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError, UnavailableError
from quickcomm.kernel.messaging.bus import BusUnavailableError
from quickcomm.kernel.routing import StaleRoutesError
from quickcomm.traffic.model import machine, overflow
from quickcomm.traffic.model.ladder import MODULES
from quickcomm.traffic.model.state import (
    Change,
    Effect,
    EndMonolith,
    Moved,
    MoveLease,
    Publish,
    RetireModule,
    ReviveModule,
    Settle,
    SiteState,
    StartProcesses,
    StopProcesses,
    WaitFollowed,
    WaitReady,
)
from quickcomm.traffic.ports import Journal, RoutesPort, Site, TrafficSettings

EDGE: Final = "edge"
LOOK_EVERY_S: Final = 0.1
TICK_S: Final = 0.5
RETRY_S: Final = 10.0
"""So long a fault that passes by itself is no problem yet."""

STOPPED: Final = "The migration controller is starting or stopping. Try again in a moment."

log = structlog.get_logger(__name__)


class NotInForceError(UnavailableError):
    """The change is stored and goes on, but is not in force everywhere; the text says why."""

    code = "migration.not_in_force"


class AbandonedError(QuickCommError):
    """Another change took the place of this one before it was in force."""

    code = "migration.abandoned"


class Controller:
    """One of a site: whoever opens the journal raises its epoch, and the store refuses the routes of earlier ones."""

    def __init__(
        self, journal: Journal, routes: RoutesPort, site: Site, clock: Clock, settings: TrafficSettings
    ) -> None:
        self._journal = journal
        self._routes = routes
        self._processes = site
        self._clock = clock
        self._settings = settings
        self._changing = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._at_monolith = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self.site = SiteState()
        self.epoch = 0
        self.problems: dict[str, str] = {}
        """By module: why its change does not get on."""
        self._waits: dict[str, str] = {}
        """By module: what the effect under way waits for."""

    async def open(self) -> None:
        """Read the state that an earlier controller left."""
        self.site, self.epoch = await self._journal.begin()

    async def run(self) -> None:
        """Carry out what is stored, and what is asked for, until cancelled. Raises `StaleRoutesError`."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                while True:
                    await self.tick()
                    await self._clock.sleep(TICK_S)
        except* QuickCommError as errors:
            raise _first(errors) from errors
        finally:
            self._group = None
            self._tell()

    async def tick(self) -> None:
        """Publish again what the store has lost, and go on with the changes under way."""
        if self.site.version:
            try:
                if await self._routes.version() < self.site.version:
                    log.warning("routes.published_again", version=self.site.version)
                    await self._send()
            except StaleRoutesError:
                raise
            except QuickCommError as error:
                log.info("routes.store_unavailable", error=str(error)[:200])
        for name in MODULES:
            await self._end_overrides(name)
            self._drive(name)

    async def change(self, transition: Callable[[SiteState], Moved]) -> Moved:
        """Store a transition and begin what follows from it. Raises what it raises; then nothing has changed.

        A caller that is cancelled leaves it whole: it is stored and known, or neither.
        """
        if self._group is None:
            raise UnavailableError(STOPPED)
        moved = await asyncio.shield(self._group.create_task(self._changed(transition), name="change"))
        if isinstance(moved, QuickCommError):
            raise moved
        return moved

    async def in_force(self, name: str, change: Change | None) -> None:
        """Return when a change is in force everywhere; at once where there is none.

        Raises `NotInForceError` where it does not get on, and `AbandonedError` where another one took its place.
        """
        if change is None:
            return
        while True:
            news, now = self._news, self.site.of(name).change
            if self._group is None:
                raise UnavailableError(STOPPED)
            if now is None:
                return
            if now.id != change.id:
                raise AbandonedError(f"{name}: abandoned, because of a {now.action} to {now.target} by {now.by}.")
            if problem := self.problems.get(name):
                told = problem.rstrip(".")
                raise NotInForceError(f"{name}: {change.target} is not in force yet: {told}. It goes on by itself.")
            await news.wait()

    @property
    def moving(self) -> tuple[str, ...]:
        """The modules with a change under way."""
        return tuple(name for name in MODULES if self.site.of(name).change is not None)

    def phase(self, name: str) -> str:
        """Return what the change under way does now, and what it waits for; empty without one."""
        effect, waits = machine.next_effect(self.site, name), self._waits.get(name)
        if effect is None:
            return ""
        if isinstance(effect, MoveLease) and name not in DECIDING:
            effect = Publish(effect.route)  # no decisions are made in such a module
        told = waits and not isinstance(effect, WaitFollowed)  # the status says who is behind
        return f"{effect}: {waits}" if told else str(effect)

    async def followers(self) -> Mapping[str, int]:
        """Return the version that each living process follows. Raises `BusUnavailableError`."""
        return await self._routes.followers()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _end_overrides(self, name: str) -> None:
        """Remove those whose time is over. What cannot be stored now is tried again."""
        now_ns = self._clock.now_ns()
        if overflow.ended(self.site, name, now_ns=now_ns).entries:
            try:
                await self.change(partial(overflow.ended, name=name, now_ns=now_ns))
            except QuickCommError as error:
                log.warning("migration.overrides_not_ended", module=name, error=str(error)[:200])

    async def _changed(self, transition: Callable[[SiteState], Moved]) -> Moved | QuickCommError:
        """Return errors: in a task of the group they would end all of it."""
        async with self._changing:
            before = self.site
            try:
                moved = transition(before)
                if moved.site != before:
                    await self._journal.store(moved.site, moved.entries)
            except QuickCommError as error:
                return error
            if moved.site != before:
                self.site = moved.site
                for entry in moved.entries:
                    log.info("migration.moved", module=entry.name, action=entry.action, to=entry.after, who=entry.who)
                self._follow(before)
        self._tell()
        return moved

    def _follow(self, before: SiteState) -> None:
        """End the work for changes that were replaced, and begin the work for new ones."""
        for name, state in self.site.modules.items():
            old = before.of(name).change
            if state.change is not None and (old is None or old.id != state.change.id):
                self.problems.pop(name, None)
                self._waits.pop(name, None)
                self._drive(name, anew=True)

    def _drive(self, name: str, *, anew: bool = False) -> None:
        """Have a task for the change of a module, one at a time; `anew`: end the one for an earlier change."""
        running = self._drivers.get(name)
        if running is not None and not running.done():
            if not anew:
                return
            running.cancel()
        change = self.site.of(name).change
        if change is not None and self._group is not None:
            self._drivers[name] = self._group.create_task(self._carry_out(name, change, running), name=f"drive-{name}")

    async def _carry_out(self, name: str, change: Change, earlier: asyncio.Task[None] | None) -> None:
        """Perform the effects of a change until none is left. Raises `StaleRoutesError`; other faults are told."""
        if earlier is not None and not earlier.done():
            await asyncio.wait([earlier])
        try:
            while self._is_under_way(name, change):
                effect = machine.next_effect(self.site, name)
                if effect is not None:
                    await self._until_done(name, effect)
                await self._advance(name, change, effect)
        except StaleRoutesError:
            raise
        except QuickCommError as error:  # such as a full disk; the next tick tries again
            self._trouble(name, str(error))

    async def _advance(self, name: str, change: Change, effect: Effect | None) -> None:
        """Store that an effect is done; None: all of them."""

        def advanced(site: SiteState) -> Moved:
            now = site.of(name).change
            if now is None or now.id != change.id:
                return Moved(site=site)
            if effect is None:
                return machine.finished(site, name, at_ns=self._clock.now_ns())
            return machine.done(site, name, effect)

        await self.change(advanced)
        self.problems.pop(name, None)
        self._waits.pop(name, None)

    def _is_under_way(self, name: str, change: Change) -> bool:
        now = self.site.of(name).change
        return now is not None and now.id == change.id

    async def _until_done(self, name: str, effect: Effect) -> None:
        log.info("migration.effect", module=name, effect=str(effect))
        site, route = self._processes, self.site.of(name).route
        match effect:
            case Settle(side=side, without=without):
                await self._until(name, partial(_acted, partial(site.go_on, name, side, without)))
            case Publish():
                return  # it is stored first, and sent by `WaitFollowed`, after a crash again
            case WaitFollowed(version):
                await self._until(name, partial(_acted, self._send))
                await self._until(name, partial(self._behind, version), self._settings.follow_s)
            case WaitReady(side):
                await self._until(name, partial(site.ready, name, route.named(side)), self._settings.ready_s)
            case StartProcesses():
                is_release = self.site.of(name).beside is not None
                again_s = RETRY_S if is_release else LOOK_EVERY_S  # a release is taken back between two attempts
                await self._until(name, partial(_acted, partial(site.start, name, route.candidate)), again_s=again_s)
            case StopProcesses():
                await self._until(name, partial(_acted, partial(site.stop, name, route.candidate)))
            case RetireModule():
                await self._until(name, partial(self._in_monolith, partial(site.retire, name, route.base)))
            case ReviveModule():
                await self._until(name, partial(self._in_monolith, partial(site.revive, name, route.base)))
            case EndMonolith():
                await self._until(name, partial(self._in_monolith, partial(self._end, name)))

    async def _until(
        self,
        name: str,
        attempt: Callable[[], Awaitable[str]],
        within_s: float = RETRY_S,
        again_s: float = LOOK_EVERY_S,
    ) -> None:
        """Try until there is no reason any more why not. After `within_s`, the reason is a problem that is told."""
        deadline = self._clock.monotonic() + within_s
        while True:
            lasting = False
            try:
                why_not = await attempt()
            except StaleRoutesError:
                raise
            except QuickCommError as error:
                why_not, lasting = str(error), not error.retryable and not isinstance(error, BusUnavailableError)
            if not why_not:
                return
            self._waits[name] = why_not.rstrip(".")
            if lasting or self._clock.monotonic() >= deadline:
                self._trouble(name, why_not)
            await self._clock.sleep(max(again_s, TICK_S) if lasting else again_s)

    async def _in_monolith(self, act: Callable[[], Awaitable[None]]) -> str:
        """Act on the monolith's process, for one module at a time: it does not end while another one comes back."""
        async with self._at_monolith:
            return await _acted(act)

    async def _end(self, name: str) -> None:
        """End the monolith's process, unless a module has begun to come back to it meanwhile."""
        if isinstance(machine.next_effect(self.site, name), EndMonolith):
            await self._processes.end()

    async def _behind(self, version: int) -> str:
        """Return who does not follow a version yet."""
        behind = who_is_behind(await self._routes.followers(), version)
        return f"behind version {version}: {', '.join(behind)}" if behind else ""

    async def _send(self) -> None:
        """Publish the newest routes; whoever comes second sends no older ones."""
        async with self._sending:
            await self._routes.publish(self.site.routes, self.epoch)

    def _trouble(self, name: str, why_not: str) -> None:
        if self.problems.get(name) != why_not:
            log.warning("migration.waits", module=name, reason=why_not[:400])
            self.problems[name] = why_not
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def who_is_behind(followers: Mapping[str, int], version: int) -> tuple[str, ...]:
    """Return the living processes that do not follow a version yet, and the edge also where it follows none."""
    known: Iterable[tuple[str, int]] = {EDGE: 0, **followers}.items()
    return tuple(sorted(name for name, follows in known if follows < version))


async def _acted(act: Callable[[], Awaitable[None]]) -> str:
    await act()
    return ""


def _first(errors: BaseExceptionGroup[QuickCommError]) -> QuickCommError:
    """Return an error out of groups in groups."""
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
