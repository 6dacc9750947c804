"""Both executors, one suite: a transaction of this process, and durable execution on DBOS with SQLite."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.sagas import (
    AwayError,
    Booked,
    BookFlight,
    BookHotel,
    CancelFlight,
    RefusedError,
    Trip,
    World,
    effects,
    trip,
)

from quickcomm.contracts.saga import Undone
from quickcomm.kernel.errors import BusyError, ConflictError, NotFoundError
from quickcomm.kernel.saga import CompensatedError, Operation, Progress
from quickcomm.kernel.saga.durable import AT_ONCE, Durable
from quickcomm.kernel.saga.executors import Executor, InTransaction
from quickcomm.kernel.saga.progress import begun, compensating, resumed
from quickcomm.kernel.saga.running import Runner
from quickcomm.kernel.storage import StorageError
from quickcomm.operations.adapters.journal import SqlJournal

ONCE: Final = {"hotel": 1, "flight": 1, "tell": 1}
WITHIN_S: Final = 20.0


class Site:
    """Modules, a journal, and an executor. The teller of a durable one has a database of its own."""

    def __init__(self, kind: str, directory: Path, operation: Operation) -> None:
        self.kind = kind
        self.operation = operation
        self.directory = directory
        self.world = World(
            directory / "site.sqlite", ("hotel", "flight", "tell") if kind == "local" else ("hotel", "flight")
        )
        self.teller = World(directory / "teller.sqlite", ("tell",))
        self.journal = SqlJournal(self.world.database)
        self.runner = Runner({operation.name: operation}, self.world.rpc, self.world.clock)
        self.executor: Executor = InTransaction(self.runner, self.journal, self.world.database, self.world.clock)

    async def open(self) -> None:
        self.world.open()
        if self.kind == "durable":
            self.teller.open()
            self.world.rpc.serve(list(self.teller.rpc.answers.values()))
        self.journal.migrate()
        if self.kind == "durable":
            await self.begin_executor()

    async def begin_executor(self, version: str = "one", at_once: int = AT_ONCE) -> None:
        steps = f"sqlite:///{self.directory / 'steps.sqlite'}"
        durable = Durable(self.runner, self.journal, steps, version, at_once)
        self.executor = durable
        await durable.open()

    async def end_executor(self) -> None:
        if isinstance(self.executor, Durable):
            await self.executor.aclose()

    async def aclose(self) -> None:
        await self.end_executor()
        await self.world.database.aclose()
        if self.kind == "durable":
            await self.teller.database.aclose()

    def begun(self, name: str = "trip-1") -> Progress:
        return begun(self.operation, name, "main", "ada", Trip(who="ada"), self.world.clock.now_ns())

    def troubled(self, trouble: Callable[[str], None]) -> None:
        self.world.trouble = self.teller.trouble = trouble

    async def sums(self) -> dict[str, int]:
        found = await self.world.sums()
        return found if self.kind == "local" else found | await self.teller.sums()

    async def ends(self, progress: Progress) -> Progress:
        await self.executor.start(progress)
        return await self.executor.rest(progress.id, WITHIN_S)


Make = Callable[..., Any]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Site] = []

    async def build(kind: str, operation: Operation | None = None) -> Site:
        site = Site(kind, tmp_path, operation or trip())
        made.append(site)
        await site.open()
        return site

    yield build
    for site in made:
        await site.aclose()


BOTH: Final = pytest.mark.parametrize("kind", ["local", "durable"])


@BOTH
async def test_each_step_has_its_effect_once(make: Make, kind: str) -> None:
    site = await make(kind)
    found = await site.ends(site.begun())
    assert (found.status, await site.sums()) == ("done", ONCE)
    assert [event.what for event in found.history] == ["started", "done", "done", "done", "finished"]
    assert sorted((*site.world.committed, *site.teller.committed)) == ["flight", "hotel", "tell"]


@BOTH
async def test_what_may_still_succeed_is_tried_again(make: Make, kind: str) -> None:
    site = await make(kind)
    failures = iter(["flight", "flight", "tell"])
    next_failure = [next(failures)]

    def trouble(step: str) -> None:
        if step == next_failure[0]:
            next_failure[0] = next(failures, "")
            raise AwayError("The line is down.")

    site.troubled(trouble)
    found = await site.ends(site.begun())
    assert (found.status, await site.sums()) == ("done", ONCE)


@BOTH
async def test_a_refusal_leaves_nothing(make: Make, kind: str) -> None:
    site = await make(kind)

    def trouble(step: str) -> None:
        if step == "tell":
            raise RefusedError("The phone is off.")

    site.troubled(trouble)
    if kind == "local":  # nothing has happened, and nothing is kept of it
        with pytest.raises(RefusedError, match="The phone is off"):
            await site.ends(site.begun())
        with pytest.raises(NotFoundError):
            await site.journal.find("trip-1")
    else:
        found = await site.ends(site.begun())
        assert (found.status, found.why) == ("compensated", "The phone is off.")
        assert found.undone == ("tell", "flight", "hotel")
    assert not any((await site.sums()).values())


@BOTH
async def test_what_is_begun_twice_is_done_once(make: Make, kind: str) -> None:
    site = await make(kind)
    first = await site.ends(site.begun())
    again = await site.ends(site.begun())
    assert (first.status, again.status, await site.sums()) == ("done", "done", ONCE)


@BOTH
async def test_a_kill_between_commit_and_record_doubles_nothing(make: Make, kind: str) -> None:
    site = await make(kind)
    progress = site.begun()
    after: Progress | None = await site.runner.turn(progress)
    assert after is not None
    assert (await site.sums())["hotel"] == 1  # the effect is there, and no executor knows of it
    found = await site.ends(progress)
    assert (found.status, await site.sums()) == ("done", ONCE)


@BOTH
async def test_a_step_that_was_taken_back_has_no_effect_any_more(make: Make, kind: str) -> None:
    site = await make(kind)
    call = site.world.rpc.call
    assert await call(CancelFlight(key="x:flight")) == Undone(found=False)
    with pytest.raises(CompensatedError):
        await call(BookFlight(key="x:flight", hotel=1))
    booked = await call(BookFlight(key="y:flight", hotel=1))
    assert await call(BookFlight(key="y:flight", hotel=1)) == booked
    assert await call(CancelFlight(key="y:flight")) == Undone(found=True)
    assert await call(CancelFlight(key="y:flight")) == Undone(found=True)
    with pytest.raises(CompensatedError):
        await call(BookFlight(key="y:flight", hotel=1))
    assert (await site.sums())["flight"] == 0


async def test_local_steps_of_a_durable_operation_share_a_transaction(make: Make) -> None:
    site = await make("durable")
    seen: list[str] = []

    def trouble(step: str) -> None:
        seen.append(step)
        if step == "flight" and seen.count("flight") == 1:
            raise AwayError("The line is down.")

    site.troubled(trouble)
    found = await site.ends(site.begun())
    assert seen == ["hotel", "flight", "hotel", "flight", "tell"]  # the first hotel went back with its flight
    assert (found.status, await site.sums()) == ("done", ONCE)


@pytest.mark.parametrize("version", ["one", "two"])
async def test_another_executor_goes_on_with_what_was_left(make: Make, version: str) -> None:
    site = await make("durable")
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def away(step: str) -> None:
        if step == "tell":
            loop.call_soon_threadsafe(reached.set)
            raise AwayError("The phone is off.")

    site.troubled(away)
    await site.executor.start(site.begun())
    async with asyncio.timeout(WITHIN_S):
        await reached.wait()
    await site.end_executor()
    site.troubled(lambda _step: None)
    await site.begin_executor(version)
    found = await site.executor.rest("trip-1", WITHIN_S)
    assert (found.status, await site.sums()) == ("done", ONCE)


async def test_as_many_as_are_allowed_go_on_at_once_and_more_are_refused(make: Make) -> None:
    site = await make("durable", trip(60.0))
    await site.end_executor()
    await site.begin_executor(at_once=20)
    held = [True]

    def away(step: str) -> None:
        if step == "tell" and held[0]:
            raise AwayError("The phone is off.")

    site.troubled(away)
    names = [f"trip-{number}" for number in range(20)]
    await asyncio.gather(*(site.executor.start(site.begun(name)) for name in names))
    async with asyncio.timeout(WITHIN_S):
        while len(site.executor._at_work) < len(names):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    with pytest.raises(BusyError, match="20 operations are at work"):
        await site.executor.start(site.begun("one-more"))
    held[0] = False
    found = await asyncio.gather(*(site.executor.rest(name, WITHIN_S) for name in names))
    assert {each.status for each in found} == {"done"}
    assert (await site.ends(site.begun("one-more"))).status == "done"


async def test_a_journal_that_takes_nothing_for_a_moment_ends_no_operation(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await make("durable")
    store, failures = site.journal.store, iter(range(1))

    async def busy(progress: Progress) -> None:
        if progress.results and next(failures, None) is not None:
            raise StorageError("The database is locked.")
        await store(progress)

    monkeypatch.setattr(site.journal, "store", busy)
    found = await site.ends(site.begun())
    assert (found.status, await site.sums()) == ("done", ONCE)
    assert next(failures, None) is None, "it was in trouble"


async def test_what_cannot_be_taken_back_is_parked_until_an_operator_decides(make: Make) -> None:
    site = await make("durable", trip(flight_stays="No refund."))

    def trouble(step: str) -> None:
        if step == "tell":
            raise RefusedError("The phone is off.")

    site.troubled(trouble)
    found = await site.ends(site.begun())
    assert (found.status, found.why) == ("parked", "The phone is off.")
    assert await site.sums() == {"hotel": 1, "flight": 1}
    again = await site.ends(resumed(found, "grace", site.world.clock.now_ns()))
    assert again.status == "parked"
    site.troubled(lambda _step: None)
    done = await site.ends(resumed(again, "grace", site.world.clock.now_ns()))
    assert (done.status, await site.sums()) == ("done", ONCE)
    with pytest.raises(ConflictError):
        compensating(site.operation, done, "grace", 0)


async def test_an_operator_may_take_back_what_is_parked(make: Make) -> None:
    site = await make("durable", trip(flight_stays="No refund."))

    def trouble(step: str) -> None:
        if step == "tell":
            raise RefusedError("The phone is off.")

    site.troubled(trouble)
    found = await site.ends(site.begun())
    back = await site.ends(compensating(site.operation, found, "grace", site.world.clock.now_ns()))
    assert back.status == "compensated"
    assert await site.sums() == {"hotel": 0, "flight": 1}
    assert [event.text for event in back.history if event.what == "kept"] == ["No refund."]


# -- the suite finds what it is there for -----------------------------------------------------------------------------


async def test_a_forgotten_key_is_found(make: Make) -> None:
    site = await make("durable")

    async def book(_request: BookHotel) -> Booked:
        await site.world.database.write(
            lambda connection: connection.execute(effects.insert().values(step="hotel", change=1))
        )
        return Booked(number=1)

    site.world.rpc.serve([(BookHotel, book)])
    progress = site.begun()
    await site.runner.turn(progress)
    await site.ends(progress)
    assert (await site.sums())["hotel"] == 2, "the suite would see this as 1"


async def test_a_compensation_that_is_not_idempotent_is_found(make: Make) -> None:
    site = await make("durable")

    async def cancel(_request: CancelFlight) -> Undone:
        await site.world.database.write(
            lambda connection: connection.execute(effects.insert().values(step="flight", change=-1))
        )
        return Undone(found=True)

    site.world.rpc.serve([(CancelFlight, cancel)])
    await site.world.rpc.call(BookFlight(key="y:flight", hotel=1))
    await site.world.rpc.call(CancelFlight(key="y:flight"))
    await site.world.rpc.call(CancelFlight(key="y:flight"))
    assert (await site.sums())["flight"] == -1, "the suite would see this as 0"


async def test_an_answer_before_the_commit_is_found(make: Make) -> None:
    site = await make("durable")

    async def book(_request: BookHotel) -> Booked:
        return Booked(number=1)  # and the process is killed before it writes

    site.world.rpc.serve([(BookHotel, book)])
    found = await site.ends(site.begun())
    assert found.status == "done"
    assert "hotel" not in await site.sums(), "the suite would see this as 1"
