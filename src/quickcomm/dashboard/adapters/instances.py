"""The processes that hear and understand, as a dashboard of its own sees them: told directly, asked, and watched."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.health import Alarm
from quickcomm.contracts.link import Committed, InstanceStatus
from quickcomm.dashboard.adapters.hub import Hub
from quickcomm.dashboard.adapters.links import Links
from quickcomm.dashboard.ports import Health, OnReceipt
from quickcomm.dashboard.service.direct import Direct
from quickcomm.dashboard.service.overview import HEARS, UNDERSTANDS, Overview
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import Instance, Registry
from quickcomm.kernel.internal import Trust
from quickcomm.kernel.telemetry import Budget, Word
from quickcomm.kernel.telemetry.stages import StageHealth

LINKED: Final = frozenset({HEARS, UNDERSTANDS})
"""Modules whose instances tell at once what they hear, and how they are."""


class _Ear:
    """Implements `Told`."""

    def __init__(self, hub: Hub, direct: Direct, overview: Overview) -> None:
        self._overview = overview
        self.caption: Callable[[Caption], None] = hub.caption
        self.behind: Callable[[Behind], None] = hub.behind
        self.committed: Callable[[Committed], None] = direct.put

    def status(self, instance: Instance, status: InstanceStatus) -> None:
        self._overview.told(instance.module, instance.name, status)

    def lost(self, instance: Instance) -> None:
        self._overview.lost(instance.module, instance.name)


class Instances:
    def __init__(self, registry: Registry, trust: Trust, clock: Clock, budget: Budget) -> None:
        """`budget`: until an instance has told another one."""
        self._links = Links(registry, trust, LINKED)
        self._overview = Overview(clock, budget)
        self._direct = Direct()

    @property
    def budget(self) -> Budget:
        return self._overview.budget

    @property
    def on_receipt(self) -> OnReceipt:
        return self._links.receipt

    @property
    def keep_trace(self) -> Callable[[Word], None]:
        return self._links.keep_trace

    def health(self, stages: tuple[StageHealth, ...], own: Sequence[Alarm], trace_url: str | None) -> Health:
        """Of the whole site. `own`: alarms of this process."""
        return self._overview.health(stages, own, trace_url)

    async def run(self, hub: Hub, apply: Callable[[Sequence[Committed]], Awaitable[None]]) -> None:
        """Listen and tell until cancelled. `apply`: what becomes of utterances that come directly."""
        hub.on_watching(lambda: self._links.watching(hub.watching()))
        self._links.watching(hub.watching())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._direct.run(apply), name="dashboard:direct")
            tasks.create_task(self._links.run(_Ear(hub, self._direct, self._overview)), name="dashboard:links")
