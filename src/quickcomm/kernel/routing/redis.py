"""Routes in the site's Valkey: a hash with version and routes, and one with the version that each process follows.

A store that was emptied changes nobody's route, nor does one with something unreadable: followers keep what they have,
and the controller publishes it again. A process that starts meanwhile begins with the routes in the controller's file.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.routes import ModuleRoute, Routes
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, QuickCommError
from quickcomm.kernel.messaging.bus.home import first_row
from quickcomm.kernel.messaging.bus.redis_link import Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.routing.port import StaleRoutesError, UnreadableRoutesError

EDGE: Final = "edge"
"""The name under which `up` follows for the edge."""
LOOK_EVERY_S: Final = 0.1
RETRY_S: Final = 0.5
FRESH_MS: Final = 2_000
"""Who has not looked for longer is not waited for: its process hangs or has ended."""

FOLLOW: Final = Script("""
-- KEYS: followers. ARGV: name, version that it follows, key of the routes, which followers may only read.
-- Returns the version in the store (0: none), its routes if that is another one, and the version that the edge follows.
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. (t[1] * 1000 + math.floor(t[2] / 1000)))
local known = redis.call('HMGET', ARGV[3], 'version', 'routes')
local version = known[1] or '0'
local edge = string.match(redis.call('HGET', KEYS[1], 'edge') or '0', '^%d+') or '0'
return {version, version ~= ARGV[2] and known[2] or '', edge}
""")

PUBLISH: Final = Script("""
-- KEYS: routes. ARGV: epoch of the controller, version, routes, groups that are not waited for.
-- Returns 1, or 0 where the store has newer ones. What is no number is replaced.
local known = redis.call('HMGET', KEYS[1], 'epoch', 'version')
local epoch, version = tonumber(known[1] or 0) or 0, tonumber(known[2] or 0) or 0
if epoch > tonumber(ARGV[1]) or version > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'version', ARGV[2], 'routes', ARGV[3], 'unawaited', ARGV[4])
return 1
""")

FOLLOWERS: Final = Script("""
-- KEYS: followers. ARGV: ms. Returns name, version, name, … of those who have looked within so many ms.
local t = redis.call('TIME')
local now, answer = t[1] * 1000 + math.floor(t[2] / 1000), {}
local found = redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do
  local version, at = string.match(found[i + 1], '^(%d+) (%d+)$')
  if at and now - tonumber(at) <= tonumber(ARGV[1]) then
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = version
  end
end
return answer
""")

log = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class RouteNames:
    """The keys, as access rules name them, too."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self.routes = f"{prefix}:routes"
        self.followers = f"{prefix}:routes:followers"


class RoutesFollower:
    """Implements `FollowedRoutes`: looks into the store ten times a second."""

    def __init__(
        self, link: Link, name: str, clock: Clock, routes: Routes | None = None, *, prefix: str = PREFIX
    ) -> None:
        """`name`: of this process, or `EDGE`. `routes`: those by which it was started."""
        self._link = link
        self._name = name
        self._clock = clock
        self._names = RouteNames(prefix)
        self._store = RedisRoutes(link, prefix=prefix)
        self._routes = routes or Routes()
        self._followed = 0
        self._in_force = 0
        self._acts: list[Callable[[], Awaitable[None]]] = []
        self._waits = False

    @property
    def routes(self) -> Routes:
        return self._routes

    @property
    def in_force(self) -> int:
        return self._in_force

    def on_change(self, act: Callable[[], Awaitable[None]]) -> None:
        self._acts.append(act)

    async def known(self) -> Routes:
        """Return the routes in the store, without following them. Raises `BusUnavailableError`."""
        return await self._store.read()

    async def catch_up(self) -> Routes:
        """Take newer routes of the store, and return those that count now, before they are followed."""
        found = await self.known()
        if found.version > self._routes.version:
            self._routes = found
        return self._routes

    async def adopt(self, last: Routes) -> Routes:
        """Take the routes in the store, or `last`, as `first_routes` does; return them, before they are followed."""
        self._routes = await first_routes(self._store, last)
        return self._routes

    async def look(self) -> None:
        """Take what is new, act on it and report it. Raises `BusUnavailableError`, and what an act raises."""
        while True:
            _, payload, edge = await self._link.run(
                FOLLOW, (self._names.followers,), self._name, self._followed, self._names.routes
            )
            changed = int(edge) != self._in_force
            self._in_force = int(edge)
            if payload and (found := _decoded(payload)).version > self._routes.version:
                self._routes = found
                changed = True
            if changed or self._followed != self._routes.version:
                for act in self._acts:
                    await act()
            if self._followed == self._routes.version:
                return
            self._followed = self._routes.version

    async def run(self) -> None:
        """Follow until cancelled. Where the store is away, everything stays as it is."""
        while True:
            try:
                await self.look()
            except QuickCommError as error:
                if not self._waits:
                    log.warning("routes.not_followed", error=str(error)[:200])
                self._waits = True
                await self._clock.sleep(RETRY_S)
            else:
                self._waits = False
                await self._clock.sleep(LOOK_EVERY_S)

    async def aclose(self) -> None:
        """Close the connection. May be called again."""
        await self._link.aclose()


class RedisRoutes:
    """The controller's end."""

    def __init__(self, link: Link, *, prefix: str = PREFIX) -> None:
        self._link = link
        self._names = RouteNames(prefix)

    async def publish(self, routes: Routes, epoch: int) -> None:
        """Raises `StaleRoutesError` where a newer controller, or newer routes, are in the store."""
        arguments = (epoch, routes.version, _encode(routes), " ".join(routes.unawaited))
        if not await self._link.run(PUBLISH, (self._names.routes,), *arguments):
            raise StaleRoutesError("The store has the routes of a newer controller.")

    async def followers(self) -> dict[str, int]:
        """Return the version that each living process follows, by its name."""
        found = await self._link.run(FOLLOWERS, (self._names.followers,), FRESH_MS)
        return {name.decode(): int(version) for name, version in zip(found[::2], found[1::2], strict=True)}

    async def read(self) -> Routes:
        """Return the routes in the store; those of version 0 where it has none. Raises `UnreadableRoutesError`."""
        [found] = await self._link.call("HMGET", self._names.routes, "routes")
        return _decoded(found) if found else Routes()

    async def version(self) -> int:
        """Return the version in the store; 0 where it has none, or one that cannot be read."""
        try:
            return (await self.read()).version
        except UnreadableRoutesError:
            return 0


async def first_routes(store: RedisRoutes, last: Routes) -> Routes:
    """Return what a process begins with: the routes in the store, or the `last` that are known, where it has no others.

    A store that does not answer, or has something unreadable, is no reason not to start: that is logged.
    """
    try:
        found = await store.read()
    except QuickCommError as error:
        log.warning("routes.not_known", error=str(error)[:200], begins_with_version=last.version)
        return last
    return found if found.version >= last.version else last


class _Module(msgspec.Struct):
    route: ModuleRoute = ModuleRoute()


class _State(msgspec.Struct):
    """What the controller stores of its state, as far as it is routes."""

    version: int = 0
    modules: dict[str, _Module] = {}


def stored_routes(database: Path) -> Routes:
    """Return the routes in the file of a controller; those of version 0 where there are none, or none readable."""
    try:
        row = first_row(database, "traffic_state", "state")
        state = _State() if row is None else msgspec.json.decode(row[0], type=_State)
    except (QuickCommError, *MALFORMED) as error:
        log.warning("routes.not_stored", error=str(error)[:200])
        return Routes()
    return Routes(version=state.version, modules={name: each.route for name, each in state.modules.items()})


def _decoded(found: bytes) -> Routes:
    try:
        return msgspec.json.decode(found, type=Routes)
    except MALFORMED as error:
        raise UnreadableRoutesError(f"The routes in the store cannot be read: {error}") from error
