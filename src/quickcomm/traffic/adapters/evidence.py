"""Evidence about a module: what both sides have and answer, and how long messages wait for each of them.

What cannot be measured yet is left out, with the reason, so that the gate waits for it.
"""

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import aiohttp
import msgspec
import structlog

from quickcomm.contracts.checking import ListBacklog, Waiting
from quickcomm.contracts.evidence import Measured
from quickcomm.contracts.migration import Understandings
from quickcomm.contracts.routes import SERVICE, ModuleRoute, group_of
from quickcomm.kernel.checking.checker import Report
from quickcomm.kernel.checking.compare import Finding
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import Registry
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.runtime.admin_socket import ask
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.traffic.adapters.heard import hearings
from quickcomm.traffic.adapters.measuring import Measurer, Sides, agreement
from quickcomm.traffic.adapters.parity import Dashboards
from quickcomm.traffic.adapters.site import COMPARED, running, told
from quickcomm.traffic.adapters.understood import Times, recently_alike, times_ms, understandings
from quickcomm.traffic.model.gates import Evidence, SideEvidence
from quickcomm.traffic.model.hearing import HEARD
from quickcomm.traffic.ports import SiteError

COMPARE_EVERY_S: Final = 30.0
RECENT_EVERY_S: Final = 2.0
"""Between two comparisons of all, what has just changed is compared: it is little, however much there is."""
RECENT_NS: Final = 30 * 10**9
"""Longer than from one of them to the next, the second look included."""
SETTLE_S: Final = 2.0
"""The second look comes so long after the first one, if both sides have handled by then what was waiting."""
SETTLES_WITHIN_S: Final = 30.0
"""Else nothing is compared: what one side has and the other has not is on its way. How far it is behind is a figure."""
OLD_S: Final = 120.0
"""A comparison that ended longer ago says nothing any more."""
NS: Final = 10**9
UNMEASURED: Final[Mapping[str, str]] = {
    "errors": "no answers were counted yet",
    "recent errors": "no answers were counted yet",
    "latency": "no stage was measured yet",
    "agreement": "too few answers were compared yet",
    "oldest unanswered": "unanswered utterances are not counted by side yet",
}
AUDIO: Final = "audio"
NOT_HEARD: Final = "neither side hears what the other one serves (audio.shadow_share)"
HOUR_S: Final = 3_600.0
SOME_S: Final = 60.0
"""Of a stage, before the rate of conversations is estimated."""
COMPARED_AT_LEAST: Final = 35
"""So many answers can show that nine of ten agree."""
UNDERSTANDS: Final = "intelligence"
UNDERSTOOD: Final = "understood"
"""The stage of utterances that both sides understood."""
NO_SHADOW: Final = "neither side understands what the other one answers (intelligence.shadow_share)"

log = structlog.get_logger(__name__)


class SiteEvidence:
    """Implements `EvidenceSource`. The comparison, which takes long, is made beside, while somebody asks for it."""

    def __init__(
        self,
        directory: DataDirectory,
        registry: Registry,
        dashboards: Dashboards,
        measurer: Measurer,
        clock: Clock,
        budgets_ms: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """`budgets_ms`: what the stages may take."""
        self._budgets_ms = budgets_ms
        self._measurer = measurer
        self._directory = directory
        self._registry = registry
        self._dashboards = dashboards
        self._clock = clock
        self._wanted = asyncio.Event()
        self._report: Report | None = None
        self._recent = Report()
        self._compared_ns = 0
        self._needed_ns = 1
        self._why_not = "not compared yet"

    async def run(self) -> None:
        """Compare again and again while it is asked for, until cancelled."""
        next_whole = self._clock.monotonic()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            began_ns = self._clock.now_ns()
            try:
                if self._clock.monotonic() >= next_whole or self._compared_ns < self._needed_ns:
                    self._report, self._recent = await self._dashboards.report(self._settled), Report()
                    self._compared_ns = began_ns
                    next_whole = self._clock.monotonic() + COMPARE_EVERY_S
                else:
                    self._recent = await self._dashboards.recent(began_ns - RECENT_NS, self._settled)
            except QuickCommError as error:
                self._why_not = str(error)
                log.info("parity.not_compared", reason=str(error)[:200])
            await self._clock.sleep(RECENT_EVERY_S)

    async def of(self, module: str, since_ns: int, route: ModuleRoute) -> Evidence:
        now_ns, why_not = self._clock.now_ns(), dict(UNMEASURED)
        ages: tuple[float | None, float | None] = (None, None)
        if running(self._registry, module, route.candidate):
            waiting = await self._waiting()
            groups = [group_of(module, side) for side in (route.candidate, route.base)]
            ages = tuple(queue_age_s(waiting, group, now_ns) for group in groups)  # type: ignore[assignment]
        else:
            why_not["queue age"] = "no process of the service serves"
        differences = self._differences(since_ns, now_ns) if module == COMPARED else None
        if differences is None:
            why_not["differences"] = self._why_not
        sides = await self._measurer.sides(module, since_ns, route)
        seconds = (now_ns - since_ns) / NS
        found = Evidence() if module != AUDIO else _of_audio(sides)
        if found.heard is None:
            why_not |= dict.fromkeys(HEARD, NOT_HEARD)
        understood = understandings(sides.service, sides.monolith, route)
        if module == UNDERSTANDS and understood is None:
            why_not["agreement"] = NO_SHADOW
        seen = [each.conversations for each in (sides.service, sides.monolith) if each and each.conversations]
        return msgspec.structs.replace(
            found,
            seconds=seconds,
            service=_side(sides.service, times_ms(sides.service, sides.monolith), ages[0], sides.silent_s),
            monolith=_side(sides.monolith, times_ms(sides.monolith, sides.service), ages[1]),
            differences=None if differences is None else len({each.name for each in differences}),
            first_difference=told(differences[0]) if differences else "",
            recent_different=sum(each.recent_different for each in (sides.service, sides.monolith) if each),
            agreement=_agreed(sides, understood),
            recently_alike=recently_alike((sides.service, sides.monolith)) if module == UNDERSTANDS else None,
            understood=understood,
            budgets_ms=self._budgets_ms,
            conversations_per_hour=sum(seen) * HOUR_S / seconds if seen and seconds >= SOME_S else None,
            why_not=why_not,
        )

    def _differences(self, since_ns: int, now_ns: int) -> tuple[Finding, ...] | None:
        """Return all there are, by a comparison that began in this stage and is not old; else have one made."""
        self._needed_ns = max(self._needed_ns, since_ns)
        self._wanted.set()
        if self._report is None or self._compared_ns < max(since_ns, now_ns - int(OLD_S * NS)):
            return None
        return (*self._report.findings, *self._recent.findings)

    async def _settled(self) -> None:
        """Return when both sides have handled what waits now. Raises `SiteError` where one does not get that far."""
        began_ns = self._clock.now_ns()
        deadline = self._clock.monotonic() + SETTLES_WITHIN_S
        await self._clock.sleep(SETTLE_S)
        while self._clock.monotonic() < deadline:
            groups = (COMPARED, group_of(COMPARED, SERVICE))
            waiting = [each for each in await self._waiting() if each.count and each.group in groups]
            if all(each.oldest_ns > began_ns for each in waiting):
                return
            await self._clock.sleep(SETTLE_S / 4)
        raise SiteError("a side is too far behind to be compared")

    async def _waiting(self) -> list[Waiting]:
        try:
            rows = await ask(self._directory.control, ListBacklog())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SiteError(f"`quickcomm up` does not answer on {self._directory.control}") from error
        return msgspec.convert(rows, list[Waiting])


def _of_audio(sides: Sides) -> Evidence:
    """Return what audio alone tells; nothing where no process of the service has told it."""
    both = [each for each in (sides.service, sides.monolith) if each is not None]
    if sides.service is None:
        return Evidence()
    return Evidence(
        heard=hearings(each.heard for each in both),
        unbalanced=sides.service.unbalanced,
        recent_fenced=sides.service.recent_fenced,
        recent_not_taken_over=sum(each.recent_not_back for each in both),
        left=sum(each.left for each in both),
    )


def _side(
    found: Measured | None, understood_ms: Times, queue_age_s: float | None, silent_s: float | None = None
) -> SideEvidence:
    if found is None:
        return SideEvidence(queue_age_s=queue_age_s, silent_s=silent_s)
    return SideEvidence(
        conversations=found.conversations,
        answered=found.answered - found.errors,
        errors=found.errors,
        recent_errors=found.recent_errors,
        recent_refused=found.recent_refused,
        stages_ms=found.stages_ms | ({UNDERSTOOD: understood_ms} if understood_ms else {}),
        queue_age_s=queue_age_s,
        oldest_unanswered_s=found.oldest_unanswered_s,
        silent_s=silent_s,
        cpu_ms=found.cpu_ms,
    )


def _agreed(sides: Sides, understood: Understandings | None) -> tuple[int, int] | None:
    """Return how many answers were alike, of how many; of what people read, only where it says something.

    A site without readers is not held up by it. What is understood on both sides comes by itself.
    """
    if understood is not None:
        return understood.alike, understood.compared
    found = agreement((sides.service, sides.monolith))
    return None if found is None or found[1] < COMPARED_AT_LEAST else found


def queue_age_s(waiting: Iterable[Waiting], group: str, now_ns: int) -> float:
    """Return for how long the oldest message of a group waits; 0 where none does."""
    oldest_ns = min((each.oldest_ns for each in waiting if each.group == group and each.count), default=now_ns)
    return max(0.0, (now_ns - oldest_ns) / NS)
