"""Who may do what: every route of the application, with every kind of key and none."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web
from tests.support.dashboard_site import Site, events, heard, insight, running

from quickcomm.apps import MODULES
from quickcomm.dashboard.adapters.rest import OPERATIONS
from quickcomm.dashboard.module import DashboardSettings
from quickcomm.kernel.clock import SystemClock

OPEN: Final = {
    ("GET", "/"),
    ("GET", "/assets/{name}"),
    ("GET", "/{name}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/asyncapi.json"),
    ("POST", "/v1/session"),
    ("DELETE", "/v1/session"),
}
READ: Final = {
    ("GET", "/metrics"),
    ("GET", "/v1/channels"),
    ("GET", "/v1/prompts"),
    ("GET", "/v1/reports/shift"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/conversations"),
    ("GET", "/v1/conversations/{conversation_id}"),
    ("GET", "/v1/live"),
    ("GET", "/v1/migration"),
    ("GET", "/v1/operations"),
    ("GET", "/v1/operations/{operation_id}"),
    ("GET", "/v1/session"),
    ("GET", "/v1/tasks"),
    ("GET", "/v1/utterances"),
    ("GET", "/v1/utterances/{utterance_id}"),
}
ADMIN: Final = {
    ("GET", "/v1/erasures"),
    ("GET", "/v1/erasures/{erasure_id}"),
    ("POST", "/v1/conversations/{conversation_id}/close"),
    ("POST", "/v1/utterances/{utterance_id}/correct"),
    ("POST", "/v1/erasures"),
    ("POST", "/v1/tasks/{task_id}/dispatch"),
    ("POST", "/v1/migration/{module}/override"),
    ("POST", "/v1/migration/{module}/weight"),
    ("POST", "/v1/migration/{module}/{action}"),
    ("POST", "/v1/operations/{operation_id}/compensate"),
    ("POST", "/v1/operations/{operation_id}/resume"),
    ("POST", "/v1/tasks/{task_id}/acknowledge"),
    ("POST", "/v1/tasks/{task_id}/assign"),
    ("POST", "/v1/tasks/{task_id}/complete"),
    ("POST", "/v1/tasks/{task_id}/reopen"),
}
ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def site(tmp_path: Path, store: Path | str) -> AsyncIterator[Site]:
    async with running(tmp_path, store=store) as site:
        yield site


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    found = set()
    for route in app.router.routes():
        resource = route.resource
        assert resource is not None
        path = resource.canonical
        found.add(("GET" if route.method == "HEAD" else route.method, path))
    return found


def concrete(path: str) -> str:
    for name, value in {
        "{conversation_id}": "c",
        "{utterance_id}": "c:0:0",
        "{task_id}": "c:0:0:0",
        "{operation_id}": "o",
        "{erasure_id}": "e",
        "{name}": "favicon.svg",
        "{module}": "dashboard",
        "{action}": "pause",
    }.items():
        path = path.replace(name, value)
    return path


async def test_every_route_refuses_whoever_may_not(site: Site) -> None:
    found = routes_of(site.app)
    assert found == OPEN | READ | ADMIN, "a new route must be put into one of the three sets"
    expected = {None: 401, "ingest": 403, "read": 403}
    for method, path in sorted(found - OPEN):
        for role, refusal in expected.items():
            if role == "read" and (method, path) in READ:
                refusal = 200  # noqa: PLW2901 - stands for: not refused
            headers = site.headers(role) if role else {}
            async with site.http.request(method, site.url + concrete(path), headers=headers) as answer:
                if refusal == 200:
                    assert answer.status not in (401, 403), (method, path, role)
                    continue
                assert answer.status == refusal, (method, path, role)
                assert answer.content_type == "application/problem+json"
                assert ("WWW-Authenticate" in answer.headers) == (refusal == 401)
        async with site.http.request(method, site.url + concrete(path), headers=site.headers("admin")) as answer:
            assert answer.status not in (401, 403), (method, path)


async def test_documented_and_real_routes_are_the_same(site: Site) -> None:
    document = await site.get("/openapi.json")
    assert document["openapi"] == "3.1.0"
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    files = {("GET", "/"), ("GET", "/assets/{name}"), ("GET", "/{name}")}
    audio = ("GET", "/v1/conversations/{conversation_id}/audio")
    assert documented - {audio} == routes_of(site.app) - files


async def test_every_websocket_of_a_module_is_in_the_document_of_messages(site: Site) -> None:
    document = await site.get("/asyncapi.json")
    addresses = {channel["address"] for channel in document["channels"].values()}
    for route in (route for module in MODULES for route in module.routes if route.websocket):
        pattern = re.sub(r"{\w+}", "[^/]+", route.path) + (".*" if route.path.endswith("/") else "")
        assert any(re.fullmatch(pattern, address) for address in addresses), route.path
    assert set(document["operations"]) == {"sendAudio", "receiveAudio", "sendLive", "receiveLive"}
    for found in re.findall(r"#/([\w/]+)", str(document)):
        place = document
        for part in found.split("/"):
            place = place[part]


async def test_the_document_is_complete(site: Site) -> None:
    document = await site.get("/openapi.json")
    schemas = document["components"]["schemas"]
    for operation in OPERATIONS:
        described = document["paths"][operation.path][operation.method.lower()]
        answer = described["responses"][str(operation.sends.status)]
        assert operation.sends.status == 204 or all("example" in media for media in answer["content"].values())
        assert all("example" in parameter for parameter in described.get("parameters", ()))
        if operation.role is not None:
            assert {"401", "403", "429"} <= set(described["responses"])
    text = str(document)
    for name in {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas


async def test_a_page_session(site: Site) -> None:
    session = site.url + "/v1/session"
    async with site.http.get(session) as answer:
        assert answer.status == 401
    async with site.http.post(session, json={"key": site.tokens["ingest"]}) as answer:
        assert answer.status == 403
    async with site.http.post(session, json={"key": "qc_read_wrong"}) as answer:
        assert answer.status == 401
    async with site.http.post(session, json={"key": site.tokens["admin"]}, headers=ORIGIN) as answer:
        assert answer.status == 200
        assert (await answer.json())["role"] == "admin"
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
    async with site.http.get(session) as answer:
        assert answer.status == 200
    async with site.http.delete(session, headers=ORIGIN) as answer:
        assert answer.status == 204
    async with site.http.get(session) as answer:
        assert answer.status == 401


async def test_a_cookie_alone_changes_nothing_from_another_site(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    task = site.url + "/v1/tasks/shift-1:0:0:0/complete"
    async with site.http.post(site.url + "/v1/session", json={"key": site.tokens["admin"]}) as answer:
        assert answer.status == 200
    for headers, status in (
        ({}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[broken"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": site.url}, 403),
        ({"Origin": site.url}, 200),
        (ORIGIN, 200),
    ):
        async with site.http.post(task, headers=headers) as answer:
            assert answer.status == status, headers
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await site.http.ws_connect(site.url + "/v1/live", headers={"Origin": "https://elsewhere.example"})
    async with site.http.ws_connect(site.url + "/v1/live", headers={"Origin": site.url}) as socket:
        assert (await events(socket, "hello"))["role"] == "admin"


async def test_a_key_in_the_query_is_for_websockets_only(site: Site) -> None:
    async with site.http.get(f"{site.url}/v1/tasks?key={site.tokens['read']}") as answer:
        assert answer.status == 401
    async with site.http.ws_connect(f"{site.url}/v1/live?key={site.tokens['read']}") as socket:
        assert (await events(socket, "hello"))["role"] == "read"


async def test_revoking_a_key_ends_its_live_connections(tmp_path: Path) -> None:
    async with running(tmp_path, DashboardSettings(health_every_s=0.05)) as site:
        key = next(key for key in await site.keys.list() if key.role == "read")
        async with site.live() as socket:
            await events(socket, "hello")
            await site.keys.revoke(key.id)
            while (await socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert socket.close_code == 1008
        await site.get("/v1/tasks", expect=401)


async def test_too_many_pages_are_told_to_come_back(tmp_path: Path) -> None:
    async with running(tmp_path, DashboardSettings(live_clients=1)) as site, site.live() as socket:
        await events(socket, "hello")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await site.http.ws_connect(site.url + "/v1/live", headers=site.headers())
        assert refused.value.status == 503
        assert refused.value.headers is not None
        assert "Retry-After" in refused.value.headers


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"key":'
        await never.wait()

    headers = {"Content-Type": "application/json"}
    async with (
        running(tmp_path, clock=SystemClock(limits=0.001)) as site,
        site.http.post(site.url + "/v1/session", data=body(), headers=headers) as answer,
    ):
        assert answer.status == 408
        assert answer.content_type == "application/problem+json"


async def test_open_routes_and_their_headers(site: Site) -> None:
    async with site.http.get(site.url + "/") as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-cache"
    for path in ("/healthz", "/readyz"):
        async with site.http.get(site.url + path) as answer:
            assert answer.status == 200
    for path in ("/nothing", "/assets/..%2f..%2fmodule.py", "/module.py", "/v1/nothing"):
        async with site.http.get(site.url + path) as answer:
            assert answer.status == 404, path
            assert answer.content_type == "application/problem+json"
    async with site.http.put(site.url + "/v1/tasks") as answer:
        assert answer.status == 405
        assert answer.content_type == "application/problem+json"
    async with site.http.post(site.url + "/v1/session", data="{" * 70_000) as answer:
        assert answer.status == 413
