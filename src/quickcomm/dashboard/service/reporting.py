"""Shift reports: the numbers from the store, words about them from a narrator who may use no other numbers."""

from collections import OrderedDict
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.narrative import Narrate
from quickcomm.dashboard.model.report import Narrative, ShiftReport
from quickcomm.dashboard.model.report_words import facts, plain_words, supported
from quickcomm.dashboard.ports import Reports, Shift
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import InvalidInputError, QuickCommError
from quickcomm.kernel.messaging.rpc import Rpc

NS: Final = 10**9
EARLIEST_NS: Final = 1 - 2**63
"""What a store can hold."""
DEFAULT_HOURS: Final = 8
MAX_DAYS: Final = 31
MAX_REMEMBERED: Final = 64

log = structlog.get_logger(__name__)


class ShiftReports:
    def __init__(self, reports: Reports, clock: Clock, rpc: Rpc) -> None:
        self._reports = reports
        self._clock = clock
        self._rpc = rpc
        self._told: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def shift(self, site: str, since_ns: int | None, until_ns: int | None, *, ask: bool) -> ShiftReport:
        """The last 8 hours where nothing else is said; `ask`: whether a language model may find the words.

        Raises `InvalidInputError` for a time that runs backwards or is longer than 31 days.
        """
        now = self._clock.now_ns()
        until = now if until_ns is None else until_ns
        since = max(EARLIEST_NS, until - DEFAULT_HOURS * 3_600 * NS) if since_ns is None else since_ns
        if since >= until:
            raise InvalidInputError("`since` must be before `until`.")
        if until - since > MAX_DAYS * 86_400 * NS:
            raise InvalidInputError(f"A report covers at most {MAX_DAYS} days; move `since` or `until`.")
        report = await self._reports.shift(site, Shift(since_ns=since, until_ns=until, now_ns=now))
        told = await self._tell(site, facts(report)) if ask else None
        narrative = Narrative(text=plain_words(report)) if told is None else Narrative(text=told, source="llm")
        return msgspec.structs.replace(report, narrative=narrative)

    async def _tell(self, site: str, known: str) -> str | None:
        """The same facts are told once: a page that is loaded again costs nothing."""
        told = self._told.get((site, known))
        if told is not None:
            return told
        try:
            text = (await self._rpc.call(Narrate(site=site, facts=known))).text
        except QuickCommError:  # plain words do as well
            text = None
        told = None if text is None else supported(text, known)
        if told is None:
            log.info("report.plain", refused=text is not None)
            return None
        self._told[site, known] = told
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        return told
