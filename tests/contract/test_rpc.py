"""One behaviour for requests between modules, within a process and between processes over real sockets."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from tests.support.dashboard_site import running
from tests.support.linked import Word, served

from quickcomm.contracts.commands import GetLedgers, ListKeys
from quickcomm.contracts.messaging import Request
from quickcomm.contracts.narrative import Narrate, Narrated
from quickcomm.contracts.prompts import GetPrompts, PromptsView
from quickcomm.contracts.usage import DayUsage, GetUsage, UsageReport
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry, Instance
from quickcomm.kernel.errors import ConflictError, InvalidInputError, NotFoundError, QuickCommError
from quickcomm.kernel.messaging.rpc import (
    Answer,
    DeadlineError,
    LocalRpc,
    NotOwnerError,
    Rpc,
    UnansweredError,
    UnsupportedError,
)
from quickcomm.kernel.messaging.rpc.wire import WireRpc, rpc_routes
from quickcomm.kernel.runtime.admin_socket import UnknownCommandError, admin_socket, ask


class Echoed(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    by: str = ""


class Echo(Request[Echoed], frozen=True, kw_only=True, tag="echo"):
    module: ClassVar = "core"
    callers: ClassVar = ("dashboard",)
    within_s: ClassVar = 0.3
    about: ClassVar = "what was said"

    text: str
    times: int = 1


class EchoOfOwner(Request[Echoed], frozen=True, kw_only=True, tag="echo.owner"):
    module: ClassVar = "core"
    to: ClassVar = "owner"
    callers: ClassVar = ("dashboard",)

    conversation: str


class Later(Request[Echoed], frozen=True, kw_only=True, tag="later"):
    """Known to nobody but the caller."""

    module: ClassVar = "core"
    callers: ClassVar = ("dashboard",)


class Inner(Request[Echoed], frozen=True, kw_only=True, tag="inner"):
    """For modules of the same process alone."""

    module: ClassVar = "core"


class LostError(NotFoundError):
    code = "echo.lost"


class Taken(ConflictError):  # noqa: N818 - short for a test
    code = "echo.taken"


ERRORS: dict[str, QuickCommError] = {
    "lost": LostError("It is lost; look elsewhere."),
    "taken": Taken("Somebody has it."),
    "bad": InvalidInputError("No."),
}


def answers(name: str = "core-1", owns: str = "") -> Sequence[Answer]:
    async def echo(request: Echo) -> Echoed:
        if request.text == "hang":
            await asyncio.Event().wait()
        if request.text in ERRORS:
            raise ERRORS[request.text]
        return Echoed(text=request.text * request.times, by=name)

    async def of_owner(request: EchoOfOwner) -> Echoed:
        if request.conversation != owns:
            raise NotOwnerError(f"{name} does not have it.")
        return Echoed(text=request.conversation, by=name)

    async def inner(_request: Inner) -> Echoed:
        return Echoed(text="inner")

    return [(Echo, echo), (EchoOfOwner, of_owner), (Inner, inner)]


def serving(found: Sequence[Answer]) -> LocalRpc:
    rpc = LocalRpc(SystemClock())
    rpc.serve(found)
    return rpc


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "instances", lease_s=3_600)


@asynccontextmanager
async def calling(registry: DirectoryRegistry, word: str = "friend") -> AsyncIterator[LocalRpc]:
    rpc = LocalRpc(SystemClock())
    wire = WireRpc(registry, Word(word), SystemClock(), name="dashboard")
    rpc.elsewhere = wire
    yield rpc
    await wire.aclose()


@pytest_asyncio.fixture(params=["local", "wired"])
async def rpc(request: pytest.FixtureRequest, registry: DirectoryRegistry, tmp_path: Path) -> AsyncIterator[Rpc]:
    """Asks a module that answers with `answers`, and has the conversation c-1."""
    found = answers(owns="c-1")
    if request.param == "local":
        yield serving(found)
        return
    async with served(rpc_routes(serving(found), Word()), registry, tmp_path), calling(registry) as made:
        yield made


# -- both -----------------------------------------------------------------------------------------------------------


async def test_the_reply_is_what_the_handler_returned(rpc: Rpc) -> None:
    assert await rpc.call(Echo(text="towels & \n\u2603")) == Echoed(text="towels & \n\u2603", by="core-1")
    assert (await rpc.call(Echo(text="ab", times=3))).text == "ababab"


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_keeps_its_code_its_words_and_its_kind(rpc: Rpc, name: str) -> None:
    raised = ERRORS[name]
    kind: type[QuickCommError] = InvalidInputError if name == "bad" else type(raised).__mro__[1]
    with pytest.raises(kind) as caught:
        await rpc.call(Echo(text=name))
    assert (caught.value.code, str(caught.value), caught.value.retryable) == (raised.code, str(raised), False)


async def test_a_handler_that_hangs_is_waited_for_until_the_deadline(rpc: Rpc) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(DeadlineError, match="only it knows what was said") as caught:
            await rpc.call(Echo(text="hang"))
    assert (caught.value.code, caught.value.retryable) == ("core.away", True)
    assert (await rpc.call(Echo(text="on"))).text == "on"


async def test_a_request_that_is_not_known_there_is_told(rpc: Rpc) -> None:
    with pytest.raises(UnsupportedError, match="another release") as caught:
        await rpc.call(Later())
    assert caught.value.code == "rpc.unsupported"


async def test_only_the_owner_answers(rpc: Rpc) -> None:
    assert (await rpc.call(EchoOfOwner(conversation="c-1"))).by == "core-1"
    with pytest.raises(UnansweredError):
        await rpc.call(EchoOfOwner(conversation="c-2"))


async def test_all_are_asked(rpc: Rpc) -> None:
    [reply] = (await rpc.call_all(Echo(text="x"))).values()
    assert reply == Echoed(text="x", by="core-1")
    [failed] = (await rpc.call_all(Echo(text="lost"))).values()
    assert isinstance(failed, NotFoundError)


async def test_many_at_once(rpc: Rpc) -> None:
    found = await asyncio.gather(*(rpc.call(Echo(text=str(number))) for number in range(100)))
    assert [each.text for each in found] == [str(number) for number in range(100)]


# -- between processes ----------------------------------------------------------------------------------------------


async def test_replicas_are_found_as_they_come_and_go(registry: DirectoryRegistry, tmp_path: Path) -> None:
    async with calling(registry) as rpc:
        with pytest.raises(UnansweredError, match="The core service is away"):
            await rpc.call(Echo(text="x"))
        for _ in range(3):
            async with served(rpc_routes(serving(answers()), Word()), registry, tmp_path):
                assert (await rpc.call(Echo(text="x"))).by == "core-1"
            with pytest.raises(UnansweredError):
                await rpc.call(Echo(text="x"))


async def test_another_replica_answers_for_one_that_is_dead_or_hangs(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    registry.put(Instance(module="core", name="core-0", pid=1, version="1", socket=str(tmp_path / "gone.sock")))
    async with (
        calling(registry) as rpc,
        served([web.post("/{path:.*}", _hanging)], registry, tmp_path, "core-1"),
        served(rpc_routes(serving(answers("core-2", owns="c-2")), Word()), registry, tmp_path, "core-2"),
        served(rpc_routes(serving(answers("core-3", owns="c-3")), Word()), registry, tmp_path, "core-3"),
    ):
        assert (await rpc.call(Echo(text="x"))).by == "core-2"
        assert (await rpc.call(EchoOfOwner(conversation="c-3"))).by == "core-3"
        found = await rpc.call_all(Echo(text="x"))
    assert {name: type(each) for name, each in found.items()} == {
        "core-0": UnansweredError,
        "core-1": DeadlineError,
        "core-2": Echoed,
        "core-3": Echoed,
    }


async def test_a_replica_that_dies_meanwhile(registry: DirectoryRegistry, tmp_path: Path) -> None:
    async with calling(registry) as rpc, served([web.post("/{path:.*}", _breaking)], registry, tmp_path):
        with pytest.raises(UnansweredError):
            await rpc.call(Echo(text="x"))


async def test_a_reply_that_makes_no_sense_is_of_another_release(registry: DirectoryRegistry, tmp_path: Path) -> None:
    async def strange(_request: web.Request) -> web.Response:
        return web.json_response({"words": "x"})

    async with calling(registry) as rpc, served([web.post("/{path:.*}", strange)], registry, tmp_path):
        with pytest.raises(UnsupportedError):
            await rpc.call(Echo(text="x"))


async def test_a_stranger_is_told_nothing(registry: DirectoryRegistry, tmp_path: Path) -> None:
    async with (
        served(rpc_routes(serving(answers()), Word()), registry, tmp_path),
        calling(registry, "foe") as rpc,
    ):
        with pytest.raises(UnansweredError):
            await rpc.call(Echo(text="x"))


async def test_what_is_for_the_process_alone_has_no_route(registry: DirectoryRegistry, tmp_path: Path) -> None:
    async with served(rpc_routes(serving(answers()), Word()), registry, tmp_path), calling(registry) as rpc:
        with pytest.raises(UnsupportedError):
            await rpc.call(Inner())


# -- with the release before, which asks with GET ---------------------------------------------------------------------


async def _prompts(_request: GetPrompts) -> PromptsView:
    return PromptsView(connected=True)


async def _usage(request: GetUsage) -> UsageReport:
    return UsageReport(today=DayUsage(day=f"{request.site}/{request.conversation}/{request.limit}"))


async def _narrate(request: Narrate) -> Narrated:
    return Narrated(text=request.facts)


INTELLIGENCE: list[Answer] = [(GetPrompts, _prompts), (GetUsage, _usage), (Narrate, _narrate)]


def of_the_release_before() -> list[web.RouteDef]:
    def reply(value: msgspec.Struct) -> web.Response:
        return web.Response(body=msgspec.json.encode(value), content_type="application/json")

    async def prompts(_request: web.Request) -> web.Response:
        return reply(PromptsView(connected=True))

    async def usage(request: web.Request) -> web.Response:
        query = request.query
        return reply(UsageReport(today=DayUsage(day=f"{query['site']}/{query.get('conversation')}/{query['limit']}")))

    return [web.get("/internal/v1/prompts", prompts), web.get("/internal/v1/usage", usage)]


@pytest.mark.parametrize("release", ["before", "this"])
async def test_a_dashboard_asks_intelligence_of_either_release(
    registry: DirectoryRegistry, tmp_path: Path, release: str
) -> None:
    routes = of_the_release_before() if release == "before" else rpc_routes(serving(INTELLIGENCE), Word())
    async with AsyncExitStack() as stack:
        socket = await stack.enter_async_context(served(routes, registry, tmp_path))
        registry.put(Instance(module="intelligence", name="i-1", pid=os.getpid(), version="1", socket=socket))
        rpc = await stack.enter_async_context(calling(registry))
        assert (await rpc.call(GetPrompts())).connected
        assert (await rpc.call(GetUsage(site="a & b", limit=5))).today.day == "a & b/None/5"
        assert (await rpc.call(GetUsage(site="main", conversation="c/1"))).today.day == "main/c/1/20"


async def test_a_dashboard_of_the_release_before_is_answered(registry: DirectoryRegistry, tmp_path: Path) -> None:
    async with (
        served(rpc_routes(serving(INTELLIGENCE), Word()), registry, tmp_path) as socket,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket), headers=Word().headers("core")) as client,
    ):
        async with client.get("http://x/internal/v1/usage", params={"site": "main", "limit": "7"}) as answer:
            assert (await answer.json())["today"]["day"] == "main/None/7"
        async with client.get("http://x/internal/v1/usage", params={"limit": "1000"}) as answer:
            assert answer.status == 400
        async with client.get("http://x/internal/v1/prompts") as answer:
            assert (await answer.json())["connected"]


# -- as people see it -------------------------------------------------------------------------------------------------


async def test_rest_says_that_it_is_away_and_when_to_come_again(registry: DirectoryRegistry, tmp_path: Path) -> None:
    wire = WireRpc(registry, Word(), SystemClock())

    def away(kind: type[Request[Any]]) -> Answer:
        handler: Callable[[Request[Any]], Awaitable[Any]] = wire.call
        return kind, handler

    (tmp_path / "site").mkdir()
    async with running(tmp_path / "site", answers=[away(GetPrompts), away(GetUsage), away(Narrate)]) as site:
        for path in ("/v1/prompts", "/v1/usage"):
            async with site.http.get(site.url + path, headers=site.headers()) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) >= 1
                problem = await answer.json(content_type=None)
            assert (problem["code"], problem["retryable"]) == ("intelligence.away", True)
            assert "intelligence service is away" in problem["detail"]
        report = await site.get("/v1/reports/shift")
        assert report["narrative"]["source"] == "local"
    await wire.aclose()


async def _hanging(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def _breaking(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


# -- from the command line --------------------------------------------------------------------------------------------


async def test_the_administration_socket_is_one_more_entry(tmp_path: Path) -> None:
    async def ledgers(request: GetLedgers) -> list[Echoed]:
        if request.conversation_id == "lost":
            raise NotFoundError("It is lost.")
        if request.conversation_id == "broken":
            raise RuntimeError("a secret")
        return [Echoed(text=str(request.conversation_id))]

    socket = tmp_path / "admin.sock"
    async with admin_socket(serving([(GetLedgers, ledgers)]), socket):
        assert await ask(socket, GetLedgers(conversation_id="c-1")) == [{"text": "c-1", "by": ""}]
        assert await ask(socket, GetLedgers()) == [{"text": "None", "by": ""}]
        with pytest.raises(QuickCommError, match="It is lost"):
            await ask(socket, GetLedgers(conversation_id="lost"))
        with pytest.raises(QuickCommError, match="failed to answer 'ledger'"):
            await ask(socket, GetLedgers(conversation_id="broken"))
        with pytest.raises(UnknownCommandError):
            await ask(socket, ListKeys())
        with pytest.raises(QuickCommError, match="Bad arguments"):
            await ask(socket, GetLedgers(conversation_id=7))  # type: ignore[arg-type]
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(socket, GetLedgers())


async def test_the_user_of_the_machine_reads_metrics_there_without_a_key(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    async with (
        admin_socket(serving([]), socket),
        aiohttp.ClientSession("http://up", connector=aiohttp.UnixConnector(str(socket))) as client,
        client.get("/metrics") as answer,
    ):
        assert answer.status == 200
        assert "python_info" in await answer.text()
    assert not socket.exists()


async def test_a_module_that_is_not_started_yet_is_asked_again(registry: DirectoryRegistry, tmp_path: Path) -> None:
    """It is of this release, and answers once it is there."""
    answering = LocalRpc(SystemClock())
    routes = rpc_routes(answering, Word(), asleep=("core",))
    async with served(routes, registry, tmp_path), calling(registry) as asking:
        for request in (Echo(text="a"), Later()):
            with pytest.raises(UnansweredError):
                await asking.call(request)
        answering.serve(answers())
        assert (await asking.call(Echo(text="a"))).text == "a"
        with pytest.raises(UnsupportedError):
            await asking.call(Inner())
