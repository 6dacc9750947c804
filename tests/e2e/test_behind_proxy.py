"""Behind the real nginx with the configuration of `deploy/nginx`: page, radios, and whose address a caller has."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.deployment import DEPLOYMENT
from tests.support.nginx import HOST_LINE, NGINX, nginx
from tests.support.server import Server
from tests.support.talk import RATE
from tests.support.wire import new_id

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="needs nginx, which is not installed"),
    pytest.mark.skipif(DEPLOYMENT != "serve", reason="the edge before a site has tests of its own"),
]
WITHIN_S = 20
FORWARDED_HOST = "proxy_set_header X-Forwarded-Host $http_host;"
NO_PORT = "proxy_set_header Host $host;"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"QUICKCOMM_KEYS_TRUSTED_HOPS": "1", "QUICKCOMM_AUDIO_PING_EVERY_S": "0.3"}
    server = Server(tmp_path_factory.mktemp("behind") / "data", **settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def changes() -> dict[str, str]:
    """Lines of the deployed configuration that a test has replaced."""
    return {}


class Proxied:
    """The address behind nginx, and a client that knows its certificate."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self.url = url
        self.client = client

    async def sign_in(self, key: str, origin: str | None = None) -> tuple[int, dict[str, Any], str]:
        headers = {"Origin": origin or self.url}
        async with self.client.post(f"{self.url}/v1/session", json={"key": key}, headers=headers) as answer:
            return answer.status, await answer.json(), answer.headers.get("Set-Cookie", "")

    async def live(self, origin: str) -> str:
        async with self.client.ws_connect(f"{self.url}/v1/live", headers={"Origin": origin}) as socket:
            return str(json.loads((await socket.receive(WITHIN_S)).data)["type"])


@pytest.fixture
async def proxied(served: Server, tmp_path: Path, changes: dict[str, str]) -> AsyncIterator[Proxied]:
    with nginx(tmp_path / "nginx", served.port, changes) as (url, authority):
        trusted = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority))
        async with aiohttp.ClientSession(connector=trusted, cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            yield Proxied(url, client)


async def test_a_page_signs_in_and_is_live(served: Server, proxied: Proxied) -> None:
    status, _, cookie = await proxied.sign_in(served.key("read"))
    assert status == 200
    assert "; Secure" in cookie
    assert await proxied.live(proxied.url) == "hello"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await proxied.live("https://evil.example")
    assert refused.value.status == 403


async def test_without_tls_the_cookie_is_not_secure(served: Server) -> None:
    async with aiohttp.ClientSession() as client:
        status, _, cookie = await Proxied(served.url, client).sign_in(served.key("read"))
    assert status == 200
    assert "Secure" not in cookie


@pytest.mark.parametrize("changes", [{HOST_LINE: ""}, {HOST_LINE: NO_PORT}], ids=["no Host", "Host without its port"])
async def test_a_header_that_is_missing_is_named(served: Server, proxied: Proxied) -> None:
    status, body, _ = await proxied.sign_in(served.key("read"))
    assert status == 403
    assert "proxy_set_header Host $http_host" in body["detail"]
    assert "keys.trusted_hops" in body["detail"]


@pytest.mark.parametrize("changes", [{HOST_LINE: FORWARDED_HOST}])
async def test_the_host_may_come_in_a_header_of_its_own(served: Server, proxied: Proxied) -> None:
    status, _, _ = await proxied.sign_in(served.key("read"))
    assert status == 200
    assert await proxied.live(proxied.url) == "hello"


async def test_callers_are_told_apart(proxied: Proxied) -> None:
    """One that guesses keys is slowed down, whatever address it claims; its neighbour is not."""
    connector = aiohttp.TCPConnector(ssl=False, local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=connector) as guesser:
        statuses = []
        for number in range(25):
            headers = {"Authorization": "Bearer wrong", "X-Forwarded-For": f"10.0.0.{number}"}
            async with guesser.get(f"{proxied.url}/v1/tasks", headers=headers) as answer:
                statuses.append(answer.status)
    assert statuses[0] == 401
    assert statuses[-1] == 429
    async with proxied.client.get(f"{proxied.url}/v1/tasks", headers={"Authorization": "Bearer wrong"}) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("changes", [{"proxy_read_timeout 60s;": "proxy_read_timeout 1s;"}])
async def test_a_silent_radio_is_not_cut(served: Server, proxied: Proxied) -> None:
    """Three times as long as the proxy bears a connection over which nothing goes."""
    url = f"{proxied.url}/v1/conversations/{new_id()}/audio?key={served.key()}"
    async with proxied.client.ws_connect(url) as socket:
        assert (await socket.receive_json(timeout=WITHIN_S))["type"] == "ready"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await socket.receive()
        await socket.send_bytes(bytes(2 * RATE))
        await socket.send_json({"type": "end"})
        async with asyncio.timeout(WITHIN_S):
            while (event := await socket.receive_json())["type"] != "ended":
                pass
    assert event["ledger"]["received"] == RATE
