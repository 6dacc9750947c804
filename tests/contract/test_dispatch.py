"""Dispatching a task, with a real receiver on loopback: as `serve` executes it, and as the process `operations` does.

Under `serve` decisions are transactions of the site's database; beside services they are in the log of the site.
"""

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from tests.support.dashboard_site import Site, heard, insight, running
from tests.support.receiver import ELSEWHERE, HANGS_UP, HERE, SAYS_NOTHING, SECRET, Kind, Receiver, receiving
from tests.support.valkey import Valkey
from tests.unit.test_traces import Outbox

from quickcomm.contracts.checking import CompareDashboard
from quickcomm.contracts.dispatching import ConfirmDispatch, DescribeTask, ReleaseTask, Reserved, ReserveTask
from quickcomm.contracts.operations import GetOperation, ListOperations, StartOperation
from quickcomm.contracts.saga import Undone
from quickcomm.dashboard.model.changes import TaskChangedError
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import BusyError, ConflictError, NotFoundError
from quickcomm.kernel.messaging.rpc.local import LocalRpc
from quickcomm.kernel.saga import CompensatedError
from quickcomm.kernel.saga.durable import Durable
from quickcomm.kernel.saga.executors import Executor, InTransaction
from quickcomm.kernel.saga.keys import migrate_keys
from quickcomm.kernel.saga.running import Runner
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry import TelemetrySettings, set_tracing
from quickcomm.kernel.telemetry.ids import parsed, traceparent
from quickcomm.kernel.telemetry.traces import Traces
from quickcomm.operations.adapters.journal import SqlJournal
from quickcomm.operations.adapters.webhook import post, wait_asked
from quickcomm.operations.declaration import OperationsSettings
from quickcomm.operations.definitions import OPERATIONS
from quickcomm.operations.service.desk import Desk
from quickcomm.operations.service.notices import Notices
from quickcomm.operations.service.on_demand import OnDemand

Json = dict[str, Any]
TEXT: Final = "two towels to the room with the green door"
TASK_ID: Final = "shift-1:0:0:0"
TASK: Final = f"/v1/tasks/{TASK_ID}"
WITHIN_S: Final = 30.0


class QuickClock(SystemClock):
    """Pauses take a hundredth of what is asked for, and are remembered."""

    def __init__(self) -> None:
        super().__init__(pauses=0.01)
        self.pauses_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        await super().sleep(seconds)


class Dispatches:
    """A dashboard with a task, and an executor of operations beside it."""

    def __init__(self, kind: str, directory: Path, receiver: Receiver) -> None:
        self.kind = kind
        self.site: Site
        self.receiver = receiver
        self.clock = QuickClock()
        self.settings = OperationsSettings(webhook_url=receiver.url, webhook_secret=SECRET)
        self.steps = directory / "operations" / "steps.sqlite"
        self.rpc = LocalRpc(self.clock)
        self._own = Database(directory / "operations.sqlite")
        self._executor: Durable | OnDemand | None = None
        self._desk: Desk | None = None

    async def begin(self) -> None:
        """Start the executor, or another one."""
        database = self.site.database if self.kind == "serve" else self._own
        if self.kind == "services" and self._desk is None:
            self._own.open()
        journal = SqlJournal(database)
        journal.migrate()
        notices = Notices(self.rpc, post, self.settings, self.clock)
        self.rpc.serve([*self.site.dashboard._answers(), *notices.answers()])
        runner = Runner(OPERATIONS, self.rpc, self.clock)
        durable = Durable(runner, journal, f"sqlite:///{self.steps}", "one")
        here: InTransaction | None = None
        executor: Executor
        if self.kind == "serve":
            here = InTransaction(runner, journal, database, self.clock)
            executor = self._executor = OnDemand(durable, lambda: self.steps.parent.mkdir(exist_ok=True))
            if await journal.unfinished():
                await self._executor.open()
        else:
            self.steps.parent.mkdir(exist_ok=True)
            executor = self._executor = durable
            await durable.open()
        self._desk = Desk(OPERATIONS, journal, here, executor, self.clock, lambda _operation: notices.check())
        durable.told = self._desk.told

    async def end(self) -> None:
        """Stop the executor where it is."""
        if self._executor is not None:
            await self._executor.aclose()

    async def aclose(self) -> None:
        await self.end()
        if self.kind == "services":
            await self._own.aclose()

    async def ask(self, request: Any) -> Any:
        """Answer what REST asks the executor."""
        assert self._desk is not None
        return await dict(self._desk.answers())[type(request)](request)

    async def dispatch(self, to: str = "Maria", *, expect: int = 200, seen: int | None = None) -> Json:
        found: Json = await self.site.post(f"{TASK}/dispatch", body={"assignee": to}, expect=expect, seen=seen)
        return found

    async def ended(self, to: str = "Maria") -> Json:
        """Dispatch; return how it stands in the end."""
        return await self.until_over(await self.dispatch(to))

    async def until_over(self, stand: Json) -> Json:
        async with asyncio.timeout(WITHIN_S):
            while stand["status"] not in ("done", "compensated", "parked"):
                await asyncio.sleep(0.02)
                stand = await self.site.get(f"/v1/operations/{stand['operation_id']}")
        return stand

    async def task(self) -> tuple[str | None, int]:
        """Return the assignee and the version."""
        [found] = (await self.site.get("/v1/tasks"))["items"]
        return found["assignee"], found["version"]


Begin = Callable[..., Any]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture(params=["serve", "services"])
async def begin(request: pytest.FixtureRequest, tmp_path: Path, server: Valkey) -> AsyncIterator[Begin]:
    """Return what begins a site; with settings of the webhook."""
    async with AsyncExitStack() as stack:

        async def build(**settings: Any) -> Dispatches:
            found = Dispatches(request.param, tmp_path, await stack.enter_async_context(receiving()))
            found.settings = msgspec.structs.replace(found.settings, **settings)
            answers = [(kind, found.ask) for kind in (StartOperation, ListOperations, GetOperation)]
            url = server.url if request.param == "services" else None
            found.site = await stack.enter_async_context(running(tmp_path / "site", answers=answers, redis_url=url))
            migrate_keys(found.site.database.engine)
            await found.begin()
            stack.push_async_callback(found.aclose)
            await found.site.say(heard(0, TEXT), insight("request_item", "412"))
            return found

        yield build


def signature(secret: bytes, headers: dict[str, str], body: bytes) -> str:
    told = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, told, "sha256")).decode()


def events(stand: Json) -> list[tuple[str, str]]:
    return [(event["what"], event["step"]) for event in stand["history"]]


async def test_a_task_is_given_to_a_person_who_is_told(begin: Begin) -> None:
    all_of_it = await begin()
    assert all_of_it.kind == "services" or not all_of_it.steps.exists()  # `serve` does without until it is needed
    stand = await all_of_it.ended()
    assert (stand["status"], stand["subject"]) == ("done", TASK_ID)
    done = [("done", "reserve"), ("done", "notice"), ("done", "confirm")]
    assert events(stand) == [("started", ""), *done, ("finished", "")]
    assert (stand["results"]["notice"]["status"], stand["results"]["notice"]["attempts"]) == (204, 1)
    [got] = all_of_it.receiver.got
    secret = base64.b64decode(SECRET.removeprefix("whsec_"))
    assert got.headers["webhook-signature"] == signature(secret, got.headers, got.body)
    assert got.id == f"{stand['operation_id']}:notice"
    assert (got.data["text"], got.data["assignee"], got.data["rooms"]) == (TEXT, "Maria", ["412"])
    assert (got.data["task_id"], got.data["conversation_id"]) == (TASK_ID, "shift-1")
    assert await all_of_it.task() == ("Maria", 1)
    assert all_of_it.steps.exists()
    assert not (await all_of_it.rpc.call(CompareDashboard(items=True))).faults  # a check finds nothing


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """All traces are in the sample, and kept here."""
    found = Outbox()
    set_tracing(Traces(TelemetrySettings(sample=1.0), SystemClock(), found, lambda: 1000.0))
    yield found
    set_tracing(None)


async def test_its_steps_are_one_trace_linked_to_the_utterance(begin: Begin, outbox: Outbox) -> None:
    all_of_it = await begin()
    stand = await all_of_it.ended()
    [root] = [each for each in outbox.calls if each.name == "operation"]
    assert (root.attributes["saga.id"], root.attributes["saga.status"]) == (stand["operation_id"], "done")
    steps = [each for each in outbox.calls if each.name == "saga.step"]
    assert [each.attributes["saga.step"] for each in steps] == ["reserve", "notice", "confirm"]
    assert {(each.trace_id, each.parent_id) for each in steps} == {(root.trace_id, root.span_id)}
    [link] = root.links
    utterance = parsed(traceparent("main", TASK_ID.rpartition(":")[0], 1.0))
    assert utterance is not None
    assert link == utterance[:2]


@pytest.mark.parametrize(
    "kind",
    [302, *(pytest.param(each, marks=pytest.mark.long) for each in (408, 425, 429, 500, HANGS_UP)), 503, SAYS_NOTHING],
)
async def test_what_may_still_succeed_is_tried_again_with_the_same_id(begin: Begin, kind: Kind) -> None:
    all_of_it = await begin(webhook_timeout_s=0.5 if kind == SAYS_NOTHING else 10.0)
    all_of_it.receiver.will(kind)
    stand = await all_of_it.ended()
    assert (stand["status"], await all_of_it.task()) == ("done", ("Maria", 1))
    assert stand["results"]["notice"]["attempts"] == len(all_of_it.receiver.got) == 2
    assert len(all_of_it.receiver.ids) == 1
    assert {got.path for got in all_of_it.receiver.got} == {HERE}, f"no redirect to {ELSEWHERE} is followed"


@pytest.mark.parametrize("status", [400, *(pytest.param(each, marks=pytest.mark.long) for each in (401, 404)), 410])
async def test_a_refused_notice_releases_the_task(begin: Begin, status: int) -> None:
    all_of_it = await begin()
    all_of_it.receiver.will(status)
    stand = await all_of_it.ended()
    assert (stand["status"], len(all_of_it.receiver.got)) == ("compensated", 1)
    assert str(status) in stand["why"]
    assert ("undone", "reserve") in events(stand)
    assert await all_of_it.task() == (None, 2)
    again = await all_of_it.ended("Ann")  # it may be dispatched anew
    assert (again["status"], await all_of_it.task()) == ("done", ("Ann", 3))
    assert len(all_of_it.receiver.ids) == 2


async def test_a_notice_that_is_not_delivered_in_time_releases_the_task(begin: Begin) -> None:
    all_of_it = await begin(webhook_within_s=1.0)
    all_of_it.receiver.will(*(503 for _ in range(20)))
    stand = await all_of_it.ended()
    assert (stand["status"], await all_of_it.task()) == ("compensated", (None, 2))
    assert stand["why"].startswith("Not delivered within 1 s")


async def test_a_receiver_that_is_not_there_is_told_without_its_address(begin: Begin) -> None:
    all_of_it = await begin(webhook_within_s=0.2, webhook_url="http://token:hush@127.0.0.1:9/hush")
    stand = await all_of_it.ended()
    assert stand["status"] == "compensated"
    assert "could not be reached" in stand["why"]
    assert "hush" not in str(stand)


async def test_who_asks_to_wait_is_asked_again_later_within_bounds(begin: Begin) -> None:
    all_of_it = await begin()
    all_of_it.receiver.answer_headers["Retry-After"] = "7"
    all_of_it.receiver.will(429)
    assert (await all_of_it.ended())["status"] == "done"
    assert 7.0 in all_of_it.clock.pauses_s
    all_of_it.receiver.answer_headers["Retry-After"] = "99999"
    all_of_it.receiver.will(503)
    assert (await all_of_it.ended())["status"] == "done"
    assert max(all_of_it.clock.pauses_s) == 120.0


async def test_a_task_that_was_changed_meanwhile_stays_as_it_is(begin: Begin) -> None:
    all_of_it = await begin()
    all_of_it.receiver.will(503)
    all_of_it.receiver.on_request = lambda: all_of_it.site.post(f"{TASK}/assign", body={"assignee": "Ann"})
    stand = await all_of_it.ended()
    assert (stand["status"], len(all_of_it.receiver.got)) == ("compensated", 1)
    assert await all_of_it.task() == ("Ann", 2)


async def test_without_a_webhook_the_answer_says_what_to_set(begin: Begin) -> None:
    all_of_it = await begin(webhook_url="")
    told = await all_of_it.dispatch(expect=409)
    assert told["code"] == "operations.no_webhook"
    assert "operations.webhook_url" in told["detail"]
    assert await all_of_it.task() == (None, 0)
    assert (await all_of_it.site.get("/v1/operations"))["items"] == []


async def test_what_cannot_be_dispatched_is_told_and_nobody_is_notified(begin: Begin) -> None:
    all_of_it = await begin()
    site = all_of_it.site
    unknown = await site.post("/v1/tasks/shift-9:0:0:0/dispatch", body={"assignee": "Maria"})
    assert "There is no task" in (await all_of_it.until_over(unknown))["why"]
    for name in ("", " ", "a\nb", "x" * 81):
        await all_of_it.dispatch(name, expect=400)
    await site.post(f"{TASK}/acknowledge")
    stale = await all_of_it.until_over(await all_of_it.dispatch(seen=0))
    assert (stale["status"], await all_of_it.task()) == ("compensated", (None, 1))
    await site.post(f"{TASK}/complete")
    done = await all_of_it.ended()
    assert (done["status"], done["why"].endswith("Reopen it before you assign it.")) == ("compensated", True)
    assert all_of_it.receiver.got == []


async def test_an_answer_that_was_lost_causes_no_second_notice(begin: Begin) -> None:
    all_of_it = await begin()
    first = await all_of_it.until_over(await all_of_it.dispatch(seen=0))
    again = await all_of_it.until_over(await all_of_it.dispatch(seen=0))
    assert (first["status"], again["status"], len(all_of_it.receiver.got)) == ("done", "compensated", 1)
    assert await all_of_it.task() == ("Maria", 1)


async def test_one_dispatch_of_a_task_at_a_time(begin: Begin) -> None:
    all_of_it = await begin()
    all_of_it.receiver.on_request = all_of_it.receiver.goes_on.wait
    waiting = asyncio.create_task(all_of_it.dispatch())
    await all_of_it.receiver.came.wait()
    assert await all_of_it.task() == ("Maria", 1)  # reserved, and seen by all
    told = await all_of_it.dispatch("Ann", expect=409)
    assert "is running" in told["detail"]
    same = asyncio.create_task(all_of_it.dispatch())
    await asyncio.sleep(0)
    all_of_it.receiver.goes_on.set()
    ended = [await all_of_it.until_over(await each) for each in (waiting, same)]
    assert {each["status"] for each in ended} == {"done"}


async def test_another_executor_goes_on_and_sends_the_same_id(begin: Begin) -> None:
    all_of_it = await begin()
    all_of_it.receiver.will(SAYS_NOTHING)
    waiting = asyncio.create_task(all_of_it.dispatch())
    await all_of_it.receiver.came.wait()
    await all_of_it.end()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    with pytest.raises(BusyError):
        await all_of_it.ask(StartOperation(operation="dispatch", site="main", by="ada", given=_given("shift-2:0:0:0")))
    await all_of_it.begin()
    [stand] = (await all_of_it.site.get("/v1/operations"))["items"]
    stand = await all_of_it.until_over(stand)
    assert (stand["status"], await all_of_it.task()) == ("done", ("Maria", 1))
    assert len(all_of_it.receiver.got) == 2
    assert len(all_of_it.receiver.ids) == 1


async def test_no_record_of_a_dispatch_has_what_was_said(begin: Begin, capfd: pytest.CaptureFixture[str]) -> None:
    all_of_it = await begin()
    all_of_it.receiver.will(503)
    stand = await all_of_it.ended()
    assert "green door" not in str(stand)
    await all_of_it.end()
    assert b"green door" not in b"".join(
        path.read_bytes() for path in all_of_it.steps.parent.iterdir() if path.is_file()
    )
    told = "".join(capfd.readouterr())
    assert "green door" not in told
    assert SECRET not in told


def _given(task_id: str) -> Json:
    return {"task_id": task_id, "assignee": "Maria"}


# -- the steps of the dashboard ---------------------------------------------------------------------------------------


def reserving(key: str, to: str = "Maria", expected: int | None = None) -> ReserveTask:
    return ReserveTask(key=key, site="main", task_id=TASK_ID, assignee=to, by="grace", expected=expected)


def releasing(key: str) -> ReleaseTask:
    return ReleaseTask(key=key, site="main", task_id=TASK_ID, by="grace")


def confirming(key: str) -> ConfirmDispatch:
    return ConfirmDispatch(key="x", site="main", task_id=TASK_ID, by="grace", reserved=key, notified_ns=7)


def describing(key: str) -> DescribeTask:
    return DescribeTask(site="main", task_id=TASK_ID, reserved=key)


async def test_a_reservation_is_made_once_for_its_key(begin: Begin) -> None:
    all_of_it = await begin()
    call = all_of_it.rpc.call
    first: Reserved = await call(reserving("one:reserve"))
    assert (first.version, await all_of_it.task()) == (1, ("Maria", 1))
    await all_of_it.site.post(f"{TASK}/assign", body={"assignee": None})
    assert await call(reserving("one:reserve")) == first  # sent again: nothing happens
    assert await all_of_it.task() == (None, 2)
    with pytest.raises(ConflictError):
        await call(describing("one:reserve"))
    with pytest.raises(TaskChangedError):
        await call(reserving("two:reserve", expected=1))


async def test_a_reservation_that_was_taken_back_is_refused_from_then_on(begin: Begin) -> None:
    all_of_it = await begin()
    call = all_of_it.rpc.call
    assert await call(releasing("early:reserve")) == Undone(found=False)
    with pytest.raises(CompensatedError):
        await call(reserving("early:reserve"))
    await call(reserving("one:reserve"))
    assert await call(releasing("one:reserve")) == Undone(found=True)
    await call(releasing("one:reserve"))
    with pytest.raises(CompensatedError):
        await call(reserving("one:reserve"))
    assert await all_of_it.task() == (None, 2)
    await call(reserving("two:reserve", "Ann"))
    for late in ("early:reserve", "one:reserve"):  # also when another reservation has come since
        with pytest.raises(CompensatedError):
            await call(reserving(late))
    await call(confirming("one:reserve"))  # of a reservation that does not stand
    assert (await call(describing("two:reserve"))).assignee == "Ann"
    assert await all_of_it.task() == ("Ann", 3)


async def test_what_was_changed_since_is_not_released(begin: Begin) -> None:
    all_of_it = await begin()
    call = all_of_it.rpc.call
    await call(reserving("one:reserve"))
    await call(confirming("one:reserve"))
    await call(confirming("one:reserve"))
    await all_of_it.site.post(f"{TASK}/acknowledge")
    await call(releasing("one:reserve"))
    assert await all_of_it.task() == ("Maria", 2)


async def test_there_must_be_a_task(begin: Begin) -> None:
    all_of_it = await begin()
    request = msgspec.structs.replace(reserving("one:reserve"), task_id="shift-9:0:0:0")
    with pytest.raises(NotFoundError):
        await all_of_it.rpc.call(request)


def test_a_wait_is_asked_for_in_seconds_or_by_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < wait_asked(later) <= 90
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert [wait_asked(each) for each in ("", "soon", "-5", past, "12")] == [0.0, 0.0, 0.0, 0.0, 12.0]
