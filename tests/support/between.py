"""Faults of the network between the processes of a running site: to the store, and between services.

A service that talks to the store does so through a proxy of its own: `--redis-url unix://FOLDER/{user}.sock`. Services
listen on Unix sockets; each is renamed, and a proxy listens in its place. A service that is started again binds its
socket anew, and a proxy is put there again.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.proxy import Proxy, proxied

from quickcomm.operate.up.access import users

LOOK_S: Final = 0.01
ADMINISTRATION: Final = ".admin.sock"
SHORTEST_S, LONGEST_S = 0.2, 8.0
DELAYS_S: Final = (0.02, 0.4)
KINDS: Final = ("slow", "frozen", "reset", "cut")


class Sockets:
    """Proxies in the place of the Unix sockets in a folder, by the names of the processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.proxies: dict[str, Proxy] = {}
        self._servers: dict[Path, asyncio.Server] = {}
        self._ours: dict[Path, int] = {}

    async def run(self) -> None:
        """Put proxies in place until cancelled."""
        while True:
            for path in self._folder.glob("*-[0-9]*.sock"):
                if not path.name.endswith(ADMINISTRATION):
                    with contextlib.suppress(OSError):  # it is gone again
                        if path.stat().st_ino != self._ours.get(path):
                            await self._install(path)
            await asyncio.sleep(LOOK_S)

    async def _install(self, path: Path) -> None:
        real, new = path.with_suffix(".real"), path.with_suffix(".new")
        proxy = self.proxies.setdefault(path.stem, Proxy(real))
        server = await asyncio.start_unix_server(proxy.serve, new)  # which takes the place of what is left there
        self._swap(path, real, new)
        if (before := self._servers.get(path)) is not None:
            before.close()
        self._servers[path] = server

    def _swap(self, path: Path, real: Path, new: Path) -> None:
        self._ours[path] = new.stat().st_ino
        path.replace(real)
        new.replace(path)

    def close(self) -> None:
        """Break what goes through them; the sockets are the services' own again."""
        for path, server in self._servers.items():
            server.close()
            with contextlib.suppress(OSError):
                if path.stat().st_ino == self._ours[path]:
                    path.with_suffix(".real").replace(path)
        for proxy in self.proxies.values():
            proxy.reset()


@asynccontextmanager
async def between_services(folder: Path) -> AsyncGenerator[Sockets]:
    """Proxies before all services whose sockets are in this folder."""
    sockets = Sockets(folder)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(sockets.run())
        try:
            yield sockets
        finally:
            looking.cancel()
            sockets.close()


@asynccontextmanager
async def before_store(port: int, folder: Path) -> AsyncGenerator[dict[str, Proxy]]:
    """Proxies before a store, by its users: `FOLDER/{user}.sock`."""
    async with AsyncExitStack() as stack:
        yield {
            user: await stack.enter_async_context(proxied(port, socket_path=folder / f"{user}.sock"))
            for user in users()
        }


class Fault(NamedTuple):
    """`at_s`: seconds from the beginning. `place`, `delay_s`: from 0 to 1, which wire and how slow."""

    at_s: float
    kind: str
    seconds: float
    place: float
    delay_s: float


def planned(count: int, seconds: float, seed: int) -> list[Fault]:
    """Return so many faults, the same ones for the same seed."""
    chance = random.Random(f"faults {seed}")  # noqa: S311 - to be repeated, not to be secret
    return sorted(
        Fault(
            at_s=chance.uniform(0, seconds),
            kind=chance.choice(KINDS),
            seconds=chance.uniform(SHORTEST_S, LONGEST_S),
            place=chance.random(),
            delay_s=chance.uniform(*DELAYS_S),
        )
        for _ in range(count)
    )


class Faults:
    """Has the wires of a site fail as it was planned. `had`: how often each kind was, and on which kind of wire."""

    def __init__(self, store: Mapping[str, Proxy], services: Mapping[str, Proxy]) -> None:
        self._store = store
        self._services = services
        self.had: Counter[str] = Counter()

    async def run(self, plan: list[Fault]) -> None:
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                await asyncio.sleep(max(0.0, began + fault.at_s - asyncio.get_running_loop().time()))
                tasks.create_task(self._have(fault))
        self.mend()

    def mend(self) -> None:
        for proxy in (*self._store.values(), *self._services.values()):
            proxy.mend()

    async def _have(self, fault: Fault) -> None:
        wires = {f"store {name}": wire for name, wire in self._store.items() if wire.links}
        wires |= {f"service {name}": wire for name, wire in self._services.items()}
        if not wires:
            return
        name = sorted(wires)[int(fault.place * len(wires))]
        wire = wires[name]
        self.had[f"{name.split()[0]} {fault.kind}"] += 1
        match fault.kind:
            case "slow":
                wire.delay_s = fault.delay_s
            case "frozen":
                wire.freeze()
            case "reset":
                wire.reset()
                return
            case _:
                wire.cut()
        await asyncio.sleep(fault.seconds)
        wire.mend()
