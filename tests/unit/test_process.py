"""The lifecycle of a process: its parts, and one of them that is stopped while the others go on."""

import asyncio
import gc
import re
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from quickcomm.contracts.commands import GetLedgers, GetMetrics, StartModule, StopModule
from quickcomm.contracts.link import InstanceStatus
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import BusyError, InvalidInputError
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.bus import Bus
from quickcomm.kernel.messaging.live import Peer
from quickcomm.kernel.messaging.rpc import UnsupportedError
from quickcomm.kernel.runtime.admin_socket import ask
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.movable import Movable, asleep
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.process import Address, Process
from quickcomm.kernel.settings import InstanceSettings


class Module:
    """Everything that a part can bring, each bound to the module, as the real ones are."""

    def __init__(self, name: str, happened: list[str]) -> None:
        self.name = name
        self.happened = happened
        self.heard = 0
        self.stuck = False
        self.unable = False

    def part(self) -> Part:
        return Part(
            name=self.name,
            routes=[web.get(f"/{self.name}", self.hello)],
            answers=[(GetLedgers, self.ledgers)] if self.name == "first" else (),
            subscriptions=[(InstanceStatus, self.hear)],
            work={f"{self.name}:work": self.work},
            open=lambda: self.happened.append(f"open {self.name}"),
            stops=True,
            stopping=lambda: self.happened.append(f"stopping {self.name}"),
            drain=self.drain,
            retire=self.retire,
            close=self.close,
            live_status=InstanceStatus,
        )

    async def hello(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.name)

    async def ledgers(self, _request: GetLedgers) -> list[str]:
        return [self.name]

    def hear(self, _status: InstanceStatus, _peer: Peer) -> None:
        self.heard += 1

    async def work(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.happened.append(f"ended {self.name}")

    async def drain(self) -> None:
        self.happened.append(f"drain {self.name}")
        if self.stuck:
            await asyncio.Event().wait()

    async def retire(self) -> None:
        if self.unable:
            raise BusyError("The disk is full.")
        self.happened.append(f"retire {self.name}")

    async def close(self) -> None:
        self.happened.append(f"close {self.name}")


@asynccontextmanager
async def running(
    path: Path, *modules: Module, movable: Movable | None = None
) -> AsyncGenerator[tuple[Process, Messaging]]:
    messaging = Messaging.over(cast("Bus", None), SystemClock())
    directory = DataDirectory(path)
    directory.create()
    address = Address(host="127.0.0.1", port=0, place=InstanceSettings())
    parts = [module.part() for module in modules]
    movable = movable or Movable()
    process = Process("test", address, directory, parts, messaging, SystemClock(), retention_days=0, movable=movable)
    del parts, modules
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(process.run(ready.set, stop))
    await ready.wait()
    try:
        yield process, messaging
    finally:
        stop.set()
        await task


async def test_parts_open_drain_and_close_in_order(tmp_path: Path) -> None:
    happened: list[str] = []
    async with running(tmp_path, Module("first", happened), Module("second", happened)):
        assert happened == ["open first", "open second"]
    assert happened[2:6] == ["stopping first", "stopping second", "drain first", "drain second"]
    assert happened[-2:] == ["close second", "close first"]


async def test_an_operator_reads_its_metrics_which_counts_as_no_reading(tmp_path: Path) -> None:
    async with running(tmp_path, Module("first", [])):
        texts = [(await ask(DataDirectory(tmp_path).socket, GetMetrics()))[0]["text"] for _ in range(2)]
    assert "quickcomm_machine_cores " in texts[0]
    reads = [re.findall(r"^quickcomm_metrics_reads_total .*$", text, re.MULTILINE) for text in texts]
    assert reads[0] == reads[1] != []


async def test_one_is_stopped_and_its_memory_is_free_while_the_other_goes_on(tmp_path: Path) -> None:
    happened: list[str] = []
    first, second = Module("first", happened), Module("second", happened)
    known = weakref.ref(first)
    async with running(tmp_path, first, second) as (process, messaging), aiohttp.ClientSession(process.url) as client:
        del first
        [stopped] = await ask(DataDirectory(tmp_path).socket, StopModule(name="first"))
        assert stopped == {"module": "first", "stopped": True}
        assert happened[2:] == ["stopping first", "drain first", "ended first", "close first"]
        async with client.get("/first") as answer:
            assert answer.status == 503
            assert (await answer.json())["retryable"]
        async with client.get("/second") as answer:
            assert await answer.text() == "second"
        with pytest.raises(UnsupportedError):
            await messaging.rpc.call(GetLedgers())
        messaging.live.publish(InstanceStatus())
        assert second.heard
        assert [part.name for part in process.parts] == ["second"]
        gc.collect()
        assert known() is None, "something holds the module that was stopped"
    assert happened.count("close first") == 1
    assert happened[-1] == "close second"


async def test_one_that_is_not_built_is_closed_and_can_be_started_while_the_others_go_on(tmp_path: Path) -> None:
    happened: list[str] = []
    first, second = Module("first", happened), Module("second", happened)

    async def built() -> Part:
        happened.append("build first")
        return first.part()

    async def never() -> Part:
        raise AssertionError

    async def instead(_request: web.Request) -> web.Response:
        return web.Response(text="instead")

    async def retire(name: str) -> None:
        happened.append(f"nothing waits for {name}")

    def doors() -> list[web.RouteDef]:
        return [web.get(route.path, asleep) for route in first.part().routes if isinstance(route, web.RouteDef)]

    for stand_ins, answered in (((), 503), ([web.get("/first", instead)], 200)):
        happened.clear()
        movable = Movable(
            builders={"first": built, "second": never}, asleep={"first": doors()}, retire=retire, stand_ins=stand_ins
        )
        async with (
            running(tmp_path, second, movable=movable) as (process, messaging),
            aiohttp.ClientSession(process.url) as client,
        ):
            assert happened == ["nothing waits for first", "open second"]
            async with client.get("/first") as answer:
                assert answer.status == answered
            with pytest.raises(UnsupportedError):
                await messaging.rpc.call(GetLedgers())
            await ask(DataDirectory(tmp_path).socket, StopModule(name="first"))
            await ask(DataDirectory(tmp_path).socket, StartModule(name="first"))
            assert happened[2:] == ["nothing waits for first", "build first", "open first"]
            assert [part.name for part in process.parts] == ["first", "second"]
            async with client.get("/first") as answer:
                assert await answer.text() == "first"
            assert await messaging.rpc.call(GetLedgers()) == ["first"]
        assert happened[-2:] == ["close second", "close first"]


async def test_an_operator_who_hangs_up_cuts_the_drain_short_and_the_rest_is_done(tmp_path: Path) -> None:
    happened: list[str] = []
    first = Module("first", happened)
    first.stuck = True
    async with running(tmp_path, first) as (process, _):
        asked = asyncio.create_task(process.stop_part("first"))
        while "drain first" not in happened:  # noqa: ASYNC110 - the module only writes it down
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert happened[-2:] == ["ended first", "close first"]
        assert process.parts == ()


async def test_what_others_need_cannot_be_stopped(tmp_path: Path) -> None:
    async with running(tmp_path, Module("first", [])):
        with pytest.raises(InvalidInputError, match="first"):
            await ask(DataDirectory(tmp_path).socket, StopModule(name="database"))


async def test_only_what_goes_on_elsewhere_is_told_so_and_before_it_stops(tmp_path: Path) -> None:
    """A database that is noted as stale is emptied at the next start: where nothing moves, that must not happen."""
    for moves in (False, True):
        happened: list[str] = []
        async with running(tmp_path, Module("first", happened), movable=Movable(moves=moves)) as (process, _):
            await process.stop_part("first")
            assert ("retire first" in happened) is moves
            if moves:
                assert happened.index("retire first") < happened.index("drain first")


async def test_a_part_that_cannot_note_it_is_not_stopped(tmp_path: Path) -> None:
    happened: list[str] = []
    module = Module("first", happened)
    module.unable = True
    async with running(tmp_path, module, movable=Movable(moves=True)) as (process, _):
        with pytest.raises(BusyError):
            await process.stop_part("first")
        assert [part.name for part in process.parts if part.stops] == ["first"]
        assert "drain first" not in happened


async def test_what_was_cut_off_while_it_stopped_is_done_when_it_is_asked_again(tmp_path: Path) -> None:
    retired: list[str] = []

    async def retire(name: str) -> None:
        retired.append(name)
        if len(retired) == 1:
            raise BusyError("The store is away.")

    async def never() -> Part:
        raise AssertionError

    movable = Movable(builders={"first": never}, moves=True, retire=retire)
    async with running(tmp_path, Module("first", []), movable=movable) as (process, messaging):
        with pytest.raises(BusyError):
            await messaging.rpc.answer(StopModule(name="first"))
        await messaging.rpc.answer(StopModule(name="first"))
        assert retired == ["first", "first"]
        assert process.parts == ()
