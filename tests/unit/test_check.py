"""The checker over sides in memory: whatever is planted is found and named, and nothing else is."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from quickcomm.contracts.checking import (
    ANSWERED,
    CONTENT,
    ENDED,
    TRANSCRIBED,
    Compare,
    CompareDashboard,
    Contents,
    Conversations,
    Key,
    ListBacklog,
    RecentAudio,
    RecentDashboard,
    Summary,
    Waiting,
)
from quickcomm.contracts.commands import STORE, Command, ListDeadLetters
from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.operations import ListOperations
from quickcomm.contracts.saga import OperationStatus, OperationView
from quickcomm.kernel.checking.checker import DAY_NS, NS, SIDES, Checker, CheckOptions, Parity, Report
from quickcomm.kernel.checking.compare import AUDIO, DASHBOARD, INTELLIGENCE
from quickcomm.kernel.checking.gathering import Gathering
from quickcomm.kernel.checking.part import SiteCheck
from quickcomm.kernel.clock import FakeClock, SystemClock
from quickcomm.kernel.errors import BusyError, UnavailableError
from quickcomm.kernel.messaging.rpc import Answer, LocalRpc
from quickcomm.kernel.runtime.admin_socket import admin_socket
from quickcomm.kernel.settings import CheckSettings
from quickcomm.operate.check import Side

NOW_NS: Final = 1_700_000_000_000_000_000
OLD_NS: Final = NOW_NS - 3_600 * NS
LEDGER: Final = (Ledger(received=3, speech=1, silence=1, gap=1),)
Rows = dict[Key, tuple[object, int]]
"""Content and time, by key."""


class Settling(FakeClock):
    """Things happen while the checker waits, and no time passes."""

    def __init__(self) -> None:
        super().__init__(NOW_NS)
        self.meanwhile: list[Callable[[], None]] = []
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        while self.meanwhile:
            self.meanwhile.pop()()


class Sides:
    """What three modules have. An `Ask`."""

    def __init__(self, utterances: list[Key], conversations: list[Key]) -> None:
        said: Rows = dict.fromkeys(utterances, (None, OLD_NS))
        over: Rows = dict.fromkeys(conversations, (LEDGER, OLD_NS))
        self.has: dict[str, dict[str, Rows]] = {
            AUDIO: {TRANSCRIBED: dict(said), ANSWERED: dict(said), ENDED: dict(over)},
            INTELLIGENCE: {ANSWERED: dict(said)},
            DASHBOARD: {TRANSCRIBED: dict(said), ANSWERED: dict(said), ENDED: dict(over)},
        }
        self.waiting: list[Waiting] = []
        self.letters: list[dict[str, Any]] = []
        self.away: set[str] = set()
        self.asked: list[Command] = []
        self.operations: list[OperationView] = []

    async def __call__(self, request: Command, /) -> Any:
        self.asked.append(request)
        if request.module in self.away:
            raise BusyError(f"{request.module} is away.")
        match request:
            case ListBacklog():
                return msgspec.to_builtins(self.waiting)
            case ListDeadLetters():
                return self.letters
            case ListOperations():
                return msgspec.to_builtins(self.operations)
            case RecentAudio() | RecentDashboard():
                keys = [key for key, (_, at_ns) in self.has[request.module][ENDED].items() if at_ns >= request.since_ns]
                return Conversations(keys=keys)
        assert isinstance(request, Compare)
        return self.contents(request)

    def contents(self, request: Compare) -> Contents:
        kinds = {kind: rows for kind, rows in self.has[request.module].items() if (kind in CONTENT) == request.content}
        counted = sorted(key for key in next(iter(kinds.values())) if within(key, request))
        until = counted[request.limit - 1] if len(counted) > request.limit else request.until
        gathering = Gathering(request, until)
        shrunk = msgspec.structs.replace(request, until=until)
        for kind, rows in kinds.items():
            here = ((*key, content, at_ns) for key, (content, at_ns) in rows.items() if within(key, shrunk))
            gathering.add(kind, here)
        return gathering.contents()


def within(key: Key, request: Compare) -> bool:
    return request.after < key and (request.until is None or key <= request.until)


def run(sides: Sides, **options: Any) -> Report:
    settings = CheckOptions(**{"page": 3, **options})
    return asyncio.run(Checker(sides, Settling(), settings).run())


def parity(here: Sides, there: Sides) -> Report:
    return asyncio.run(Parity(here, there, Settling(), CheckOptions(page=3)).run())


def lately(sides: Sides, since_ns: int) -> Report:
    async def check() -> Report:
        checker = Checker(sides, Settling(), CheckOptions(page=2))
        return await checker.run(await checker.recent(since_ns))

    return asyncio.run(check())


conversation_ids = st.text("ab-.:~09".replace(":", ""), min_size=1, max_size=3)
keys = st.lists(
    st.tuples(st.sampled_from(["main", "north"]), conversation_ids, st.integers(0, 1), st.integers(0, 9)),
    min_size=1,
    max_size=30,
    unique=True,
)
Faulty = tuple[str, str, str, str]
PLANTED: Final = {
    "card.missing": [(DASHBOARD, TRANSCRIBED), (DASHBOARD, ANSWERED)],
    "insights.missing": [(DASHBOARD, ANSWERED)],
    "insights.unrecorded": [(INTELLIGENCE, ANSWERED)],
    "answer.missing": [(AUDIO, ANSWERED)],
}


def site_of(drawn: list[tuple[str, str, int, int]]) -> tuple[Sides, list[Key]]:
    utterances = [(site, f"{name}:{speaker}:{start}") for site, name, speaker, start in drawn]
    return Sides(utterances, sorted({(site, name) for site, name, _, _ in drawn})), utterances


@given(keys)
def test_what_agrees_is_clean(drawn: list[tuple[str, str, int, int]]) -> None:
    sides, utterances = site_of(drawn)
    report = run(sides)
    assert report.findings == ()
    assert report.utterances == len(utterances)
    assert not any(isinstance(request, Compare) and request.items for request in sides.asked), "sums were enough"


def test_operations_that_get_no_further_are_told() -> None:
    sides, _ = site_of([])
    now_ns = FakeClock().now_ns()

    def standing(name: str, status: OperationStatus, since_s: int) -> OperationView:
        at_ns = now_ns - since_s * NS
        return OperationView(
            id=name,
            name="close",
            site="main",
            subject="shift-1",
            by="ada",
            status=status,
            step="archive",
            why="away",
            started_ns=at_ns,
            changed_ns=at_ns,
        )

    sides.operations = [
        standing("parked", "parked", 1),
        standing("at work", "running", 5),
        standing("stuck", "compensating", 300),
    ]
    found = run(sides).findings
    assert [(each.code, each.id, each.event) for each in found] == [
        ("operation.parked", "parked", "archive"),
        ("operation.stuck", "stuck", "archive"),
    ]
    assert found[0].repair == "quickcomm sagas resume parked"


@given(keys, st.data())
def test_whatever_is_planted_is_found_and_named(drawn: list[tuple[str, str, int, int]], data: st.DataObject) -> None:
    sides, utterances = site_of(drawn)
    code = data.draw(st.sampled_from(sorted(PLANTED)))
    lost = data.draw(st.lists(st.sampled_from(utterances), min_size=1, unique=True))
    for module, kind in PLANTED[code]:
        for key in lost:
            del sides.has[module][kind][key]
    found = run(sides).findings
    assert {(each.code, each.site, each.id) for each in found} == {(code, *key) for key in lost}
    assert {each.since_ns for each in found} == {OLD_NS}
    assert all(each.detail and each.repair and each.event for each in found)


@given(keys, st.data())
def test_a_forgotten_beginning_of_a_log_is_no_finding(
    drawn: list[tuple[str, str, int, int]], data: st.DataObject
) -> None:
    sides, utterances = site_of(drawn)
    for key in data.draw(st.lists(st.sampled_from(utterances), unique=True)):
        del sides.has[AUDIO][TRANSCRIBED][key]
        del sides.has[AUDIO][ANSWERED][key]
    assert run(sides).findings == ()


def test_a_utterance_that_never_left_audio_is_found() -> None:
    sides = Sides([("main", "a:0:1"), ("main", "a:0:2")], [("main", "a")])
    for module, kind in ((DASHBOARD, TRANSCRIBED), (DASHBOARD, ANSWERED), (INTELLIGENCE, ANSWERED)):
        del sides.has[module][kind]["main", "a:0:2"]
    [finding] = run(sides).findings
    assert (finding.code, finding.id, finding.event) == ("card.missing", "a:0:2", "transcripts.v1/dashboard")


def test_ledgers_and_ends_are_compared() -> None:
    sides = Sides([], [("main", "a"), ("main", "b"), ("main", "c")])
    sides.has[DASHBOARD][ENDED]["main", "a"] = ((Ledger(received=1, speech=1),), OLD_NS)
    del sides.has[DASHBOARD][ENDED]["main", "b"]
    assert [(each.code, each.id) for each in run(sides).findings] == [("end.missing", "b"), ("ledger.differs", "a")]


def test_what_arrives_while_one_looks_is_no_finding() -> None:
    sides, key = Sides([("main", "a:0:1")], []), ("main", "a:0:1")
    row = sides.has[DASHBOARD][ANSWERED].pop(key)
    clock = Settling()
    clock.meanwhile.append(lambda: sides.has[DASHBOARD][ANSWERED].update({key: row}))
    report = asyncio.run(Checker(sides, clock, CheckOptions(settle_s=10)).run())
    assert report.findings == ()
    assert clock.slept == [10]


@pytest.mark.parametrize(("oldest_ns", "count"), [(NOW_NS - 1, 0), (NOW_NS + 1, 1)])
def test_a_message_that_still_waits_explains_it_unless_it_is_newer(oldest_ns: int, count: int) -> None:
    sides = Sides([("main", "a:0:1")], [])
    del sides.has[DASHBOARD][ANSWERED]["main", "a:0:1"]
    sides.waiting = [Waiting(stream="insights.v1", group="dashboard", count=1, oldest_ns=oldest_ns)]
    assert len(run(sides).findings) == count
    assert run(sides, settle_s=0).findings == (), "where nothing runs, whatever waits explains it"


def test_a_message_that_waits_for_long_is_told_of() -> None:
    sides = Sides([], [])
    sides.waiting = [Waiting(stream="insights.v1", group="audio", count=7, oldest_ns=NOW_NS - 90 * NS)]
    [finding] = run(sides).findings
    assert (finding.code, finding.event, finding.since_ns) == ("backlog.stuck", "insights.v1/audio", NOW_NS - 90 * NS)
    assert finding.detail == "7 messages wait; the first of them for 90 s"


def test_a_message_that_goes_on_is_not_stuck_and_one_that_waits_where_nothing_runs_neither() -> None:
    sides, clock = Sides([], []), Settling()
    sides.waiting = [Waiting(stream="insights.v1", group="audio", count=7, oldest_ns=NOW_NS - 90 * NS)]
    assert run(sides, settle_s=0).findings == ()
    clock.meanwhile.append(sides.waiting.clear)
    assert asyncio.run(Checker(sides, clock).run()).findings == ()


def test_where_nobody_says_what_changed_that_is_told() -> None:
    sides = Sides([("main", "a:0:1")], [("main", "a")])
    sides.away = {AUDIO, DASHBOARD}
    assert set(lately(sides, OLD_NS).unavailable) == {AUDIO, DASHBOARD}


def test_a_dead_letter_is_the_repair_of_what_it_would_have_brought() -> None:
    sides = Sides([("main", "a:0:1"), ("main", "b:0:1")], [])
    for key in list(sides.has[DASHBOARD][ANSWERED]):
        del sides.has[DASHBOARD][ANSWERED][key]
    letter = {"stream": "insights.v1", "group": "dashboard", "conversation_id": "a", "reason": "no", "attempts": 5}
    sides.letters = [{**letter, "id": 7, "at_ns": NOW_NS}, {**letter, "id": 8, "at_ns": NOW_NS}]
    found = {(each.code, each.id, each.repair) for each in run(sides).findings}
    assert ("insights.missing", "a:0:1", "quickcomm dead-letters replay 7; quickcomm dead-letters replay 8") in found
    assert {repair for code, _, repair in found if code == "dead_letter"} == {
        "quickcomm dead-letters replay 7",
        "quickcomm dead-letters replay 8",
    }
    assert not any(id_ == "b:0:1" and "replay" in repair for _, id_, repair in found)


def test_what_is_deleted_at_its_age_is_not_missed() -> None:
    sides = Sides([("main", "a:0:1"), ("main", "b:0:1")], [])
    del sides.has[DASHBOARD][TRANSCRIBED]["main", "a:0:1"]
    del sides.has[DASHBOARD][TRANSCRIBED]["main", "b:0:1"]
    for rows in (sides.has[INTELLIGENCE][ANSWERED], sides.has[DASHBOARD][ANSWERED]):
        rows["main", "a:0:1"] = (None, NOW_NS - 90 * DAY_NS + 3_600 * NS)
    assert [each.id for each in run(sides, retention_days=90).findings] == ["b:0:1"]


def test_a_module_that_is_away_is_told_and_the_others_are_compared() -> None:
    sides = Sides([("main", "a:0:1")], [])
    sides.away = {INTELLIGENCE}
    del sides.has[DASHBOARD][TRANSCRIBED]["main", "a:0:1"]
    report = run(sides)
    assert [each.code for each in report.findings] == ["card.missing"]
    assert report.unavailable == {INTELLIGENCE: "intelligence is away."}


def test_where_nobody_knows_what_waits_what_may_be_on_its_way_is_no_finding() -> None:
    sides = Sides([("main", "a:0:1")], [])
    del sides.has[DASHBOARD][ANSWERED]["main", "a:0:1"]
    sides.away = {STORE}
    report = run(sides)
    assert (report.findings, set(report.unavailable)) == ((), {"messages"})


def test_it_rests_between_answers() -> None:
    clock = Settling()
    asyncio.run(Checker(Sides([("main", "a:0:1")], []), clock, CheckOptions(share=0.1)).run())
    assert len(clock.slept) == 3, "once a module"


@given(st.lists(conversation_ids, min_size=1, unique=True), st.data())
def test_the_ranges_of_conversations_have_all_of_them(names: list[str], data: st.DataObject) -> None:
    utterances = [("main", f"{name}:0:{start}") for name in names for start in range(3)]
    sides = Sides(utterances, [("main", name) for name in names])
    name = data.draw(st.sampled_from(names))
    del sides.has[DASHBOARD][TRANSCRIBED]["main", f"{name}:0:1"]
    del sides.has[DASHBOARD][ENDED]["main", name]
    for other in names:
        if other != name:
            for module in (AUDIO, DASHBOARD):
                sides.has[module][ENDED].pop(("main", other), None)
    report = lately(sides, OLD_NS)
    assert {(each.code, each.id) for each in report.findings} == {
        ("card.missing", f"{name}:0:1"),
        ("end.missing", name),
    }
    assert lately(sides, OLD_NS + 1) == Report()


@given(st.lists(conversation_ids, min_size=1, unique=True))
def test_an_utterance_is_in_one_of_the_ranges(names: list[str]) -> None:
    """A conversation `a1` lies between `a` and its utterances."""
    utterances = [("main", f"{name}:0:{start}") for name in names for start in range(2)]
    sides = Sides(utterances, [("main", name) for name in names])
    assert lately(sides, OLD_NS).utterances == len(utterances)


@given(keys, st.data())
def test_two_dashboards_are_compared_row_by_row(drawn: list[tuple[str, str, int, int]], data: st.DataObject) -> None:
    here, utterances = site_of(drawn)
    there, _ = site_of(drawn)
    for sides in (here, there):
        sides.has[DASHBOARD] |= {
            kind: {key: (f"{kind} of {key}", OLD_NS) for key in utterances} for kind in ("cards", "tasks")
        }
    assert parity(here, there).findings == ()
    kind = data.draw(st.sampled_from(["cards", "tasks"]))
    lost, changed = data.draw(st.sampled_from(utterances)), data.draw(st.sampled_from(utterances))
    there.has[DASHBOARD][kind][changed] = ("something else", OLD_NS)
    del there.has[DASHBOARD][kind][lost]
    wanted = {(f"{kind}.missing", *lost)} | ({(f"{kind}.differ", *changed)} if changed != lost else set())
    report = parity(here, there)
    assert {(each.code, each.site, each.id) for each in report.findings} == wanted
    mirrored = parity(there, here)
    assert {(each.code, each.site, each.id) for each in mirrored.findings} == wanted


async def test_a_server_goes_on_where_its_check_breaks() -> None:
    """And checks again the next time; then the metric and the line on the page are there."""
    sides, clock = Sides([("main", "a:0:1")], [("main", "a")]), FakeClock(NOW_NS, pauses=0)
    del sides.has[DASHBOARD][TRANSCRIBED]["main", "a:0:1"]
    broken = [ValueError("a broken row")]

    async def ask(request: Any) -> Any:
        if broken:
            raise broken.pop()
        return await sides(request)

    rpc = LocalRpc(clock)
    rpc.serve([(RecentAudio, ask), (RecentDashboard, ask), *((kind, ask) for kind in SIDES.values())])
    letters: list[Answer] = [(ListBacklog, ask), (ListDeadLetters, ask)]
    site = SiteCheck(rpc, letters, clock, CheckSettings(), retention_days=0)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(site.run())
        while not site.alarms():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        task.cancel()
    [alarm] = site.alarms()
    assert (alarm.code, alarm.message) == (
        "check.card.missing",
        "1 have no card, such as a:0:1. See: quickcomm check",
    )
    assert REGISTRY.get_sample_value("quickcomm_check_findings", {"kind": "card.missing"}) == 1
    assert SiteCheck(rpc, letters, clock, CheckSettings(every_minutes=0), retention_days=0).part().work == {}


async def test_of_several_processes_of_a_side_one_that_answers_is_asked(tmp_path: Path) -> None:
    """They have one database; some may have been killed."""

    async def compare_it(_request: CompareDashboard) -> Contents:
        return Contents(kinds={"cards": Summary(count=7)})

    rpc = LocalRpc(SystemClock())
    rpc.serve([(CompareDashboard, compare_it)])
    killed, alive = tmp_path / "dashboard-1.admin.sock", tmp_path / "dashboard-2.admin.sock"
    killed.touch()
    async with admin_socket(rpc, alive):
        found = msgspec.convert(await Side(killed, alive)(CompareDashboard()), Contents)
    assert found.kinds["cards"].count == 7
    with pytest.raises(UnavailableError, match="does not answer"):
        await Side(killed, alive)(CompareDashboard())


@pytest.mark.parametrize(
    ("later", "lasts"),
    [((4, 3), False), ((2, 2), False), ((2, 1), True), ((4, 1), False), ((2, None), True)],
    ids=["both have gone on", "alike by then", "unchanged", "one goes on: compared once it is calm", "lost"],
)
async def test_of_two_dashboards_only_a_difference_that_lasts_counts(
    later: tuple[int, int | None], *, lasts: bool
) -> None:
    """A conversation that goes on is read of one side a moment later than of the other, at each look."""
    key, clock = ("main", "a"), Settling()
    here, there = Sides([], []), Sides([], [])

    def are(one: int, other: int | None) -> None:
        for sides, value in ((here, one), (there, other)):
            sides.has[DASHBOARD]["cards"] = {} if value is None else {key: (value, OLD_NS)}

    are(2, None if later == (2, None) else 1)
    clock.meanwhile.append(lambda: are(*later))
    report = await Parity(here, there, clock, CheckOptions(page=3)).run([(("main", ""), ("main", "b"))])
    assert bool(report.findings) == lasts
