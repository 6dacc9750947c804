"""What the processes of both sides have measured of themselves, put together by side."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from quickcomm.contracts.evidence import Measure, MeasureAudio, Measured, MeasureDashboard, MeasureIntelligence
from quickcomm.contracts.routes import ModuleRoute, Side
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc import Rpc
from quickcomm.traffic.adapters.heard import heard_together
from quickcomm.traffic.adapters.understood import shadowed_together, spent_together

MEASURES: Final[Mapping[str, type[Measure]]] = {
    "dashboard": MeasureDashboard,
    "intelligence": MeasureIntelligence,
    "audio": MeasureAudio,
}


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """By side; None: no process of it answered. `silent_s`: for so long none of the service has."""

    monolith: Measured | None = None
    service: Measured | None = None
    silent_s: float | None = None


class Measurer:
    """Asks both sides, and remembers since when the service has not answered."""

    def __init__(self, rpc: Rpc, clock: Clock) -> None:
        self._rpc = rpc
        self._clock = clock
        self._answered: dict[tuple[str, Side], float] = {}

    async def sides(self, module: str, since_ns: int, route: ModuleRoute) -> Sides:
        """Return what the sides of a route measured since then; nothing of a module that does not measure itself."""
        kind = MEASURES.get(module)
        if kind is None:
            return Sides()
        replies = await self._rpc.call_all(kind(since_ns=since_ns))
        found = [reply for reply in replies.values() if isinstance(reply, Measured)]
        ours, theirs = _together(found, route.candidate), _together(found, route.base)
        now = self._clock.monotonic()
        who = (module, route.candidate)
        if ours is not None or who not in self._answered:
            self._answered[who] = now
        return Sides(monolith=theirs, service=ours, silent_s=now - self._answered[who])


def agreement(sides: Iterable[Measured | None]) -> tuple[int, int] | None:
    """Return how many answers were alike on both sides, of how many; None where none was compared."""
    known = [each for each in sides if each is not None]
    compared = sum(each.compared for each in known)
    return (sum(each.alike for each in known), compared) if compared else None


def _together(found: Iterable[Measured], side: Side) -> Measured | None:
    """Add up the processes of a side; None where there is none."""
    own = [each for each in found if each.side == side]
    if not own:
        return None
    stages = {name for each in own for name in each.stages_ms}
    unanswered = [each.oldest_unanswered_s for each in own if each.oldest_unanswered_s is not None]
    counted = [each.conversations for each in own if each.conversations is not None]
    return Measured(
        side=side,
        since_ns=own[0].since_ns,
        answered=sum(each.answered for each in own),
        errors=sum(each.errors for each in own),
        recent_errors=sum(each.recent_errors for each in own),
        recent_refused=sum(each.recent_refused for each in own),
        conversations=sum(counted) if counted else None,
        stages_ms={name: tuple(ms for each in own for ms in each.stages_ms.get(name, ())) for name in stages},
        oldest_unanswered_s=max(unanswered, default=None),
        recent_different=sum(each.recent_different for each in own),
        compared=sum(each.compared for each in own),
        alike=sum(each.alike for each in own),
        different=tuple(dict.fromkeys(one for each in own for one in each.different)),
        cpu_s=sum(each.cpu_s for each in own),
        cpu_ms=tuple(ms for each in own for ms in each.cpu_ms or ())
        if any(each.cpu_ms is not None for each in own)
        else None,
        spent=spent_together(each.spent for each in own),
        shadow=shadowed_together([each.shadow for each in own if each.shadow is not None]),
        left=sum(each.left for each in own),
        unbalanced=sum(each.unbalanced for each in own),
        recent_fenced=sum(each.recent_fenced for each in own),
        recent_not_back=sum(each.recent_not_back for each in own),
        heard=heard_together(each.heard for each in own),
    )
