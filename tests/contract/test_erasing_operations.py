"""Erasure as an operation: on the data of a site, by both executors, cut off and taken up; and names in records."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import pytest
from tests.contract.test_erasing_a_site import NAMED, SAID, SECRET, cards, talk, words
from tests.support.drill import opened
from tests.support.remains import forms

from quickcomm.contracts.closing import (
    ArchiveConversation,
    Archived,
    FinishConversation,
    Finished,
    SummarizeConversation,
    Summarized,
)
from quickcomm.contracts.correcting import Correcting
from quickcomm.contracts.erasing import (
    ERASE,
    EraseOperations,
    ErasureView,
    GetErasure,
    ListErasures,
    Scope,
    StartErasure,
    Wanted,
)
from quickcomm.contracts.operations import ListOperations, StartOperation
from quickcomm.contracts.saga import OperationView
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import BusyError, InvalidInputError, NotFoundError
from quickcomm.kernel.messaging.rpc import LocalRpc
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.saga import digest
from quickcomm.kernel.saga.durable import Durable
from quickcomm.kernel.saga.progress import begun
from quickcomm.kernel.saga.running import Runner
from quickcomm.kernel.storage import Database
from quickcomm.operate.erasing import Erasing, Here
from quickcomm.operate.erasure_desk import ErasureDesk
from quickcomm.operate.erasures import Erasures
from quickcomm.operations.adapters.erasing import erasing_answers
from quickcomm.operations.adapters.journal import SqlJournal
from quickcomm.operations.declaration import OperationsSettings, steps_of
from quickcomm.operations.definitions import OPERATIONS
from quickcomm.operations.service.desk import Desk
from quickcomm.operations.service.on_demand import OnDemand

NAME: Final = "Quentin Vandermolen"
WITHIN_S: Final = 25.0
KINDS: Final = pytest.mark.parametrize("kind", ["serve", "services"])


class Executing:
    """A site whose operations are executed here, without the processes of its modules."""

    def __init__(self, kind: str, site: DataDirectory) -> None:
        self.kind = kind
        self.site = site
        self.clock = SystemClock(pauses=0.01)
        self.rpc = LocalRpc(self.clock)
        self.own = site if kind == "serve" else site.part("operations")
        self.steps = steps_of(OperationsSettings(), site)

    async def __aenter__(self) -> Self:
        self.own.create()
        self.database = Database(self.own.database)
        self.database.open()
        self.journal = SqlJournal(self.database)
        self.journal.migrate()
        runner = Runner(OPERATIONS, self.rpc, self.clock)
        self.durable = Durable(runner, self.journal, self.steps, digest(OPERATIONS.values()))
        on_demand = OnDemand(self.durable, self.site.part("operations").create)
        desk = Desk(OPERATIONS, self.journal, None, on_demand if self.kind == "serve" else self.durable, self.clock)
        self.durable.told = desk.told
        erasures = ErasureDesk(self.site, Here(self.rpc, self.own.database), self.clock)
        self.rpc.serve(desk.answers())
        self.rpc.serve(erasing_answers(self.database, OPERATIONS, self.steps, executed=True))
        self.rpc.serve(erasures.answers())
        left = await self.journal.unfinished()
        execute = on_demand.open if self.kind == "serve" and left else self.durable.run
        self._work = [asyncio.create_task(erasures.run())]
        if self.kind != "serve" or left:
            self._work.append(asyncio.create_task(execute()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """As a process that ends in the middle of what it does."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self.durable.aclose()
        await self.database.aclose()

    async def until_done(self, erasure: str) -> ErasureView:
        async with asyncio.timeout(WITHIN_S):
            while True:
                found = await self.rpc.call(GetErasure(site="main", id=erasure))
                if found.status == "done":
                    return found
                await asyncio.sleep(0.02)

    async def asked(self, request: Any) -> Any:
        """Ask as soon as operations are executed."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    return await self.rpc.call(request)
                except BusyError:
                    await asyncio.sleep(0.02)


@pytest.fixture
async def site(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    for each in (directory, directory.dashboard):
        each.create()
        async with opened(each.database) as database:
            await SqlStore(database).transact(talk)
    return directory


def start(**wanted: Any) -> StartErasure:
    return StartErasure(wanted=Wanted(**wanted), by="ada", wait_s=20)


@KINDS
async def test_all_sides_are_erased_and_the_name_is_kept_nowhere(site: DataDirectory, kind: str) -> None:
    async with Executing(kind, site) as executing:
        counted = await executing.asked(StartErasure(wanted=Wanted(name=SECRET), by="ada", dry_run=True))
        assert (counted.status, counted.id, counted.utterances, counted.touched) == ("found", "", len(NAMED), 1)
        assert Erasures(site.path).list() == []
        found = await executing.asked(start(name=SECRET))
        found = await executing.until_done(found.id)
        assert {(line.store, line.count) for line in found.erased if line.what == "cards"} == {
            (f"dashboard, {path}", 2) for path in (site.database, site.dashboard.database)
        }
        [operation] = await executing.rpc.call(ListOperations(subject=found.id))
        assert [event.step for event in operation.history if event.what == "done"] == [
            *("audio", "intelligence", "dashboard", "operations", "messages", "again", "files", "receipt")
        ]
        listed = await executing.rpc.call(ListErasures(site="main"))
        assert [each.id for each in listed.items] == [found.id]
        assert (await executing.rpc.call(ListErasures(site="other"))).items == ()
        with pytest.raises(NotFoundError):
            await executing.rpc.call(GetErasure(site="other", id=found.id))
        nothing = await executing.asked(start(name=SECRET))
        assert (nothing.status, nothing.id, nothing.utterances) == ("found", "", 0)
        with pytest.raises(InvalidInputError, match="one of the three"):
            await executing.rpc.call(start(name="n", conversation="c"))
    assert (cards(site.database), cards(site.dashboard.database)) == (2, 2)
    assert words(site) == []
    assert list(holding(site.path, SECRET)) == []


@KINDS
async def test_what_was_cut_off_goes_on_with_the_next_executor(site: DataDirectory, kind: str) -> None:
    """Once in a step, once before the operation was started."""
    reached = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()
        writer.close()

    async with Executing(kind, site) as executing, await asyncio.start_unix_server(hang, site.dashboard.socket):
        erasing = Erasing(site.path)
        receipt = erasing.begin(Wanted(name=SECRET), Scope(utterances=tuple(sorted(NAMED))), "ada")
        given = {"erasure": receipt.id}
        asked = StartOperation(operation=ERASE, site="main", by="ada", given=given, wait_s=0)
        await executing.asked(asked)
        async with asyncio.timeout(WITHIN_S):
            await reached.wait()  # a process of the dashboard is asked, and does not answer
            # What was done before is on record a moment later, which nothing tells.
            while (await executing.rpc.call(GetErasure(site="main", id=receipt.id))).step != "dashboard":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert words(site)
    site.dashboard.socket.unlink(missing_ok=True)
    later = Erasing(site.path).begin(Wanted(name="x"), Scope(utterances=(SAID[2].utterance_id,)), "ada")
    async with Executing(kind, site) as executing:
        await executing.until_done(receipt.id)
        await executing.until_done(later.id)
        about = await executing.rpc.call(ListOperations())
        assert sorted(each.subject for each in about) == sorted([receipt.id, later.id])
    assert words(site) == []
    assert (cards(site.database), cards(site.dashboard.database)) == (1, 1)


# -- names in the records of operations -------------------------------------------------------------------------------


def holding(folder: Path, text: str) -> Iterator[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return (path.name for path in files if any(form in path.read_bytes() for form in forms(text)))


async def closed(executing: Executing, conversation_id: str, assignee: str) -> OperationView:
    given = {"conversation_id": conversation_id, "tasks": "hand_over", "assignee": assignee}
    found: OperationView = await executing.asked(
        StartOperation(operation="close", site="main", by="grace", given=given, wait_s=20)
    )
    assert found.status == "done"
    return found


def serve_closings(rpc: LocalRpc) -> None:
    async def finish(_request: FinishConversation) -> Finished:
        return Finished(state="ended", ledgers=())

    async def summarize(_request: SummarizeConversation) -> Summarized:
        return Summarized()

    async def archive(_request: ArchiveConversation) -> Archived:
        return Archived(at_ns=1)

    rpc.serve([(FinishConversation, finish), (SummarizeConversation, summarize), (ArchiveConversation, archive)])


@KINDS
async def test_names_in_records_of_operations_are_erased(site: DataDirectory, kind: str) -> None:
    async with Executing(kind, site) as executing:
        serve_closings(executing.rpc)
        first = await closed(executing, "a", NAME)
        second = await closed(executing, "b", "the night desk")
        third = await closed(executing, "c", NAME)
        assert list(holding(site.path, NAME))
        found = await executing.asked(start(conversation="a"))
        await executing.until_done(found.id)
        assert list(holding(site.path, NAME)), "another conversation was handed over to the same person"
        found = await executing.asked(start(name=NAME))
        await executing.until_done(found.id)
        stands = {each.id: each for each in await executing.rpc.call(ListOperations())}
        assert {name: stands[each.id].by for name, each in (("a", first), ("b", second), ("c", third))} == {
            "a": "erased",
            "b": "grace",
            "c": "erased",
        }
        kept = await executing.rpc.call(ListOperations(subject="b"))
        assert [event.text for event in kept[0].history if event.what == "started"] == ["grace"]
        again = await executing.asked(
            StartOperation(operation="close", site="main", by="ada", given={"conversation_id": "a"}, wait_s=0)
        )
        assert again.id == first.id, "it stays known that it was closed"
    assert list(holding(site.path, NAME)) == []
    assert list(holding(site.path, "the night desk"))


async def test_an_operation_at_work_is_waited_for(tmp_path: Path) -> None:
    site = DataDirectory(tmp_path / "data")
    site.create()
    async with Executing("serve", site) as executing:
        serve_closings(executing.rpc)
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def archive(_request: ArchiveConversation) -> Archived:
            reached.set()
            await go_on.wait()
            return Archived(at_ns=1)

        executing.rpc.serve([(ArchiveConversation, archive)])
        closing = asyncio.create_task(closed(executing, "a", NAME))
        async with asyncio.timeout(WITHIN_S):
            await reached.wait()
        erase = EraseOperations(erasure="e", at_ns=1, scope=Scope(conversations=("a",)))
        with pytest.raises(BusyError, match="at work"):
            await executing.rpc.call(erase)
        go_on.set()
        await closing
        assert [line.count for line in await executing.rpc.call(erase)] == [1]
        assert [line.count for line in await executing.rpc.call(erase)] == [0]
        assert site.database.name not in set(holding(site.path, NAME)), "files of steps are cleaned by the step `files`"


async def test_who_corrected_an_utterance_is_erased_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "site.sqlite") as database:
        journal = SqlJournal(database)
        journal.migrate()
        for number, utterance in enumerate(("a:0:0", "a:0:16000"), 1):
            given = Correcting(utterance_id=utterance, number=number)
            began = begun(OPERATIONS["correct"], f"o{number}", "main", NAME, given, 1)
            await journal.store(msgspec.structs.replace(began, status="done"))
        steps = f"sqlite:///{tmp_path / 'steps.sqlite'}"
        erase = dict(erasing_answers(database, OPERATIONS, steps, executed=False))[EraseOperations]
        await erase(EraseOperations(erasure="e", at_ns=1, scope=Scope(utterances=("a:0:0",))))
        assert ((await journal.find("o1")).by, (await journal.find("o2")).by) == ("erased", NAME)
        assert NAME not in str(await journal.find("o1"))
