"""A site that is being moved all the time: every few seconds, other weights, and the other side decides."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.support.moving import Moving
from tests.support.server import READY_S, quickcomm
from tests.support.site import Behind

from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.routes import ModuleRoute
from quickcomm.kernel.errors import QuickCommError

EVERY_S: Final = 2.0
HALF: Final = ModuleRoute(mode="canary", weight=BUCKETS // 2)
FULL: Final = ModuleRoute(mode="full", weight=BUCKETS, decides="service")
HALF_DECIDING: Final = ModuleRoute(mode="canary", weight=BUCKETS // 2, decides="service")
SHADOW: Final = ModuleRoute(mode="shadow")
STEPS: Final[tuple[dict[str, ModuleRoute], ...]] = (
    {"dashboard": HALF, "intelligence": SHADOW, "audio": HALF},
    {"dashboard": FULL, "intelligence": HALF, "audio": SHADOW},
    {"dashboard": HALF_DECIDING, "intelligence": FULL, "audio": HALF},
    {"dashboard": SHADOW, "intelligence": HALF, "audio": FULL},
)
"""Each module goes there and back, a step behind the other."""


class Migrating(Behind):
    """The monolith with services beside it; a thread changes the routes until the site is stopped."""

    serving = ("monolith", "dashboard", "intelligence", "audio")

    def __init__(self, data_dir: Path, *flags: str, **settings: str) -> None:
        super().__init__(data_dir, "--deployment", "monolith", *flags, **settings)
        self._stop = threading.Event()
        self._flips = threading.Thread(target=lambda: asyncio.run(self._flip()), daemon=True)
        self._begun = False

    @property
    def page_databases(self) -> Sequence[Path]:
        """Each side has its own, and is told by its own pages."""
        return [self.page_database, self.layout.directory.dashboard.database]

    def wait_ready(self) -> None:
        super().wait_ready()
        if not self._begun:
            self._begun = True
            where = ("--data-dir", str(self.data_dir))
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda module: quickcomm("scale", f"{module}=1", *where, timeout=READY_S), STEPS[0]))
            self._flips.start()

    def stop(self) -> int | None:
        self._stop.set()
        if self._begun:
            self._flips.join()
        return super().stop()

    async def _flip(self) -> None:
        async with contextlib.aclosing(Moving(self)) as moving:
            for step in itertools.cycle(STEPS):
                with contextlib.suppress(QuickCommError, TimeoutError):  # the store, or a process, was killed
                    await moving.to(**step)
                if await asyncio.to_thread(self._stop.wait, EVERY_S):
                    return
