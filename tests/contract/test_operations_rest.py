"""Operations over REST, from the socket to the executor: lists, one, and what an administrator decides."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.dashboard_site import Site, running
from tests.support.sagas import RefusedError, World, trip

from quickcomm.contracts.operations import CompensateOperation, ResumeOperation, StartOperation
from quickcomm.contracts.saga import OperationView
from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.saga.durable import Durable
from quickcomm.kernel.saga.running import Runner
from quickcomm.operations.adapters.journal import SqlJournal
from quickcomm.operations.service.desk import PARKED_ALARM, Desk

ONCE: Final = {"hotel": 1, "flight": 1, "tell": 1}


class Office:
    """A desk with a durable executor, before modules of which the last one may refuse; and a dashboard."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory / "booking.sqlite", ("hotel", "flight"))
        self.teller = World(directory / "teller.sqlite", ("tell",))
        self.refuses = True
        self.site: Site
        self.journal = SqlJournal(self.world.database)
        operations = {"trip": trip(flight_stays="No refund.")}
        runner = Runner(operations, self.world.rpc, self.world.clock)
        self.durable = Durable(runner, self.journal, f"sqlite:///{directory / 'steps.sqlite'}", "one")
        self.desk = Desk(operations, self.journal, None, self.durable, self.world.clock)
        self.durable.told = self.desk.told
        self.teller.trouble = self._trouble

    async def open(self) -> None:
        for world in (self.world, self.teller):
            world.open()
        self.world.rpc.serve(list(self.teller.rpc.answers.values()))
        self.journal.migrate()
        await self.durable.open()

    async def aclose(self) -> None:
        await self.durable.aclose()
        for world in (self.world, self.teller):
            await world.database.aclose()

    async def sums(self) -> dict[str, int]:
        return await self.world.sums() | await self.teller.sums()

    async def start(self, who: str = "Ann", site: str = "main") -> OperationView:
        """Return one that has come to rest."""
        return await self.desk.start(StartOperation(operation="trip", site=site, by="ada", given={"who": who}))

    def _trouble(self, step: str) -> None:
        if step == "tell" and self.refuses:
            raise RefusedError("The phone is off.")


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    office = Office(tmp_path)
    await office.open()
    async with running(tmp_path / "site", answers=office.desk.answers()) as office.site:
        yield office
    await office.aclose()


async def listed(office: Office, **query: str) -> list[Any]:
    items: list[Any] = (await office.site.get("/v1/operations", query))["items"]
    return items


async def test_a_parked_one_shows_its_steps_and_what_would_stay(office: Office) -> None:
    parked = await office.start()
    stand = await office.site.get(f"/v1/operations/{parked.id}")
    assert (stand["status"], stand["step"], stand["why"], stand["back"]) == (
        "parked",
        "tell",
        "The phone is off.",
        False,
    )
    assert [(step["name"], step["module"], step["stays"]) for step in stand["steps"]] == [
        ("hotel", "hotel", ""),
        ("flight", "flight", "No refund."),
        ("tell", "teller", ""),
    ]
    office.refuses = False
    done = await office.start("Bob")
    assert [each["operation_id"] for each in await listed(office)] == [done.id, parked.id]
    assert [each["operation_id"] for each in await listed(office, unfinished="true")] == [parked.id]
    assert [each["operation_id"] for each in await listed(office, limit="1")] == [done.id]
    await office.site.get("/v1/operations", {"unfinished": "maybe"}, expect=400)


async def test_an_administrator_has_it_go_on(office: Office) -> None:
    parked = await office.start()
    [found] = office.desk.alarms()
    assert isinstance(found, tuple)
    code, words = found
    assert code == PARKED_ALARM
    assert parked.id in words
    assert "Ann" not in words, "all sites see the alarms"
    again = await office.site.post(f"/v1/operations/{parked.id}/resume")
    assert again["status"] == "parked"
    office.refuses = False
    done = await office.site.post(f"/v1/operations/{parked.id}/resume")
    assert (done["status"], await office.sums(), list(office.desk.alarms())) == ("done", ONCE, [])
    assert [event["text"] for event in done["history"] if event["what"] == "resumed"] == ["the admin", "the admin"]
    await office.site.post(f"/v1/operations/{parked.id}/resume", expect=409)
    await office.site.post(f"/v1/operations/{parked.id}/compensate", expect=409)


async def test_an_administrator_has_it_taken_back(office: Office) -> None:
    parked = await office.start()
    back = await office.site.post(f"/v1/operations/{parked.id}/compensate")
    assert (back["status"], back["back"]) == ("compensated", True)
    assert await office.sums() == {"hotel": 0, "flight": 1}
    assert [event["text"] for event in back["history"] if event["what"] == "kept"] == ["No refund."]


async def test_another_site_neither_sees_nor_decides(office: Office) -> None:
    parked = await office.start()
    path = f"/v1/operations/{parked.id}"
    await office.site.get(path, role="elsewhere", expect=404)
    for action in ("resume", "compensate"):
        await office.site.post(f"{path}/{action}", "elsewhere", expect=404)
        await office.site.post(f"{path}/{action}", "read", expect=403)
        await office.site.post(f"/v1/operations/nothing/{action}", expect=404)
    assert (await office.site.get("/v1/operations", role="elsewhere"))["items"] == []
    assert (await office.site.get(path))["history"][-1]["what"] == "parked"


async def test_of_two_decisions_at_once_one_counts(office: Office) -> None:
    parked = await office.start()
    office.refuses = False
    answers = await asyncio.gather(
        office.desk.resume(ResumeOperation(id=parked.id, by="ada")),
        office.desk.compensate(CompensateOperation(id=parked.id, by="grace")),
        return_exceptions=True,
    )
    [refused] = [each for each in answers if isinstance(each, BaseException)]
    assert isinstance(refused, ConflictError)
    [found] = [each for each in answers if isinstance(each, OperationView)]
    decided = [event.what for event in found.history if event.what in ("resumed", "compensating")]
    assert (decided, found.status, await office.sums()) == (["resumed"], "done", ONCE)


async def test_where_no_executor_answers_it_is_503(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        for path in ("/v1/operations", "/v1/operations/one"):
            await site.get(path, expect=503)
        for action in ("resume", "compensate"):
            await site.post(f"/v1/operations/one/{action}", expect=503)
