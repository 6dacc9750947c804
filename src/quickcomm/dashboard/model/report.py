"""A shift report: its numbers. Pure."""

from collections.abc import Sequence

import msgspec

from quickcomm.contracts.insight import Source
from quickcomm.dashboard.model.views import Task


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests had this department, intent or urgency, and how many of them are done by now."""

    name: str
    requests: int
    done: int


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the request on; half of the `count` took at most `p50_s`."""

    count: int = 0
    p50_s: float | None = None
    p95_s: float | None = None


class TimedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task with how long it took, or how long it has been waiting."""

    task: Task
    seconds: float


class Emergency(msgspec.Struct, frozen=True, kw_only=True):
    """Seen: acknowledged or done, whichever came first; None while neither has happened."""

    task: Task
    seen_after_s: float | None


class Narrative(msgspec.Struct, frozen=True, kw_only=True):
    text: str = ""
    source: Source = "local"


class ShiftReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came in from `since` to before `until`, and what is open now, whenever it came in."""

    since: str
    until: str
    hours: float
    generated_at: str
    utterances: int
    requests: int
    by_department: tuple[Counted, ...]
    by_intent: tuple[Counted, ...]
    by_urgency: tuple[Counted, ...]
    done: Times
    acknowledged: Times
    slowest: tuple[TimedTask, ...]
    """The longest from request to done."""
    open_now: int
    open: tuple[TimedTask, ...]
    """The oldest of what is open or acknowledged, oldest first."""
    emergencies: int
    """Requests with danger to people: urgency critical."""
    emergencies_unseen: int
    emergencies_seen: Times
    emergency: tuple[Emergency, ...]
    """The newest first."""
    narrative: Narrative = Narrative()


def times(taken: Sequence[tuple[float, int]]) -> Times:
    """Percentiles by nearest rank, from seconds and how often each was taken."""
    count = sum(often for _, often in taken)
    if not count:
        return Times()
    wanted = {percent: -(-count * percent // 100) for percent in (50, 95)}
    found: dict[int, float] = {}
    passed = 0
    for seconds, often in sorted(taken):
        passed += often
        for percent, rank in wanted.items():
            if passed >= rank:
                found.setdefault(percent, float(seconds))
    return Times(count=count, p50_s=found[50], p95_s=found[95])


def counted(rows: Sequence[tuple[str, int, int]]) -> tuple[Counted, ...]:
    """Sum (name, requests, done) by name, the most first."""
    sums: dict[str, tuple[int, int]] = {}
    for name, requests, done in rows:
        before = sums.get(name, (0, 0))
        sums[name] = (before[0] + requests, before[1] + done)
    ordered = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
    return tuple(Counted(name=name, requests=requests, done=done) for name, (requests, done) in ordered)
