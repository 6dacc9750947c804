"""The public face of intelligence: build it, run it, close it."""

import asyncio
from pathlib import Path
from typing import Final

from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.adapters.embedding import MINILM
from quickcomm.intelligence.adapters.local import build_local_classifier
from quickcomm.intelligence.adapters.side_work import SideSettings, SideWork
from quickcomm.intelligence.adapters.sql_results import MIGRATIONS, SqlResults
from quickcomm.intelligence.ports import Classifier, Heard, OpensTask
from quickcomm.intelligence.service.understanding import Understanding
from quickcomm.kernel.bus import Bus
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.model_files import ModelReport, ModelStore
from quickcomm.kernel.site_pack import SitePack
from quickcomm.kernel.storage import Database, migrate

GROUP: Final = "intelligence"


class Intelligence:
    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        clock: Clock,
        classifier: Classifier,
        opens_task: OpensTask,
        side: SideWork | None = None,
    ) -> None:
        self._database = database
        self._bus = bus
        self._side = side or SideWork(database, bus, clock)
        self._store = SqlResults(database)
        self._understanding = Understanding(classifier, self._store, clock, opens_task)

    def migrate(self) -> None:
        migrate(self._database.engine, "intelligence", MIGRATIONS)
        self._side.restore()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._side.run(), name="intelligence:side")
            await self._bus.subscribe(TRANSCRIPTS, GROUP, self._understanding.handle)

    async def purge(self, before_ns: int) -> None:
        await self._store.purge(before_ns)
        await self._side.purge(before_ns)

    async def aclose(self) -> None:
        """Write what is left. May be called again."""
        await self._side.aclose()


def build_classifier(pack: SitePack, cache: Path) -> Classifier:
    """The local classifier of a pack; learns it at the first start (seconds). Raises `ConfigurationError`."""
    return build_local_classifier(pack, cache)


def describe_models(store: ModelStore) -> list[ModelReport]:
    """Which embedding model would be used, where from, and whether it is the published one."""
    return [store.describe(MINILM)]


__all__ = ["Classifier", "Heard", "Intelligence", "SideSettings", "SideWork", "build_classifier", "describe_models"]
