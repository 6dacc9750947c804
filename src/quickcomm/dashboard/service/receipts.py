"""Receipts and reports of painting on their way to the store: batched, bounded, never in the way of a push."""

import asyncio
from collections import OrderedDict
from typing import Final, TypeVar

import structlog

from quickcomm.contracts.timing import Latency
from quickcomm.dashboard.ports import State, Store
from quickcomm.kernel.errors import QuickCommError

MAX_PENDING: Final = 10_000
MAX_KNOWN: Final = 20_000
FLUSH_EVERY_S: Final = 0.25

log = structlog.get_logger(__name__)
_Key = tuple[str, str]
T = TypeVar("T")


class Receipts:
    """Beyond its bounds the oldest are dropped: they are measurements, not messages."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stamped: OrderedDict[_Key, Latency] = OrderedDict()
        self._painted: OrderedDict[_Key, float] = OrderedDict()
        self._known: OrderedDict[_Key, Latency] = OrderedDict()
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()

    def known(self, site: str, utterance_id: str) -> Latency | None:
        """What it was stamped with lately: before the flush the store does not know it yet."""
        return self._known.get((site, utterance_id))

    def stamped(self, site: str, utterance_id: str, receipt: Latency) -> None:
        _put(self._known, (site, utterance_id), receipt, MAX_KNOWN)
        _put(self._stamped, (site, utterance_id), receipt, MAX_PENDING)
        self._wake.set()

    def painted(self, site: str, utterance_id: str, painted_ms: float) -> None:
        if (site, utterance_id) not in self._painted:
            _put(self._painted, (site, utterance_id), painted_ms, MAX_PENDING)
            self._wake.set()

    async def run(self) -> None:
        """Store them in batches until cancelled."""
        while True:
            await self._wake.wait()
            await self.flush()
            await asyncio.sleep(FLUSH_EVERY_S)

    async def flush(self) -> None:
        """Return when all that was there is stored, also what another flush has in hand."""
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        self._wake.clear()
        stamped, self._stamped = self._stamped, OrderedDict()
        painted, self._painted = self._painted, OrderedDict()
        if not stamped and not painted:
            return

        def work(state: State) -> None:
            for (site, utterance_id), receipt in stamped.items():
                state.save_receipt(site, utterance_id, receipt)
            for (site, utterance_id), painted_ms in painted.items():
                state.save_painted(site, utterance_id, painted_ms)

        try:
            await self._store.transact(work)
        except QuickCommError as error:
            log.warning("dashboard.receipts_lost", receipts=len(stamped), error=str(error))


def _put(entries: OrderedDict[_Key, T], key: _Key, value: T, limit: int) -> None:
    entries[key] = value
    if len(entries) > limit:
        entries.popitem(last=False)
