"""Those who may not: callers without a key, with a wrong one, or with one that is no good here or any more."""

import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

import aiohttp
import msgspec
from tests.support.server import Json, Server

from quickcomm.contracts.commands import CreateKey, RevokeKey
from quickcomm.operate.administration import administer

UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
PATIENCE: Final = aiohttp.ClientTimeout(total=30)
COOKIE: Final = "quickcomm_session"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of the document of a running server."""

    method: str
    path: str
    open: bool
    """Needs no key."""
    websocket: bool
    role: str

    @property
    def ingests(self) -> bool:
        return self.role == "ingest"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]
    body: str


def operations(server: Server) -> list[Operation]:
    """Asked from the server itself, so that a new one cannot be forgotten."""
    document = server.get("/openapi.json").json()
    return [
        Operation(
            method=method.upper(),
            path=path,
            open=described.get("security") == [],
            websocket="x-websocket" in described,
            role=_role(described),
        )
        for path, item in document["paths"].items()
        for method, described in item.items()
    ]


def _role(described: Json) -> str:
    words = str(described.get("description", "")).partition("Needs the role `")[2]
    return words.partition("`")[0] or "read"


async def site_key(server: Server, role: str, site: str) -> str:
    what = {"role": role, "name": "x", "site": site}
    [row] = await administer(server.data_dir, msgspec.convert(what, CreateKey), needs_server=True)
    return str(row["key"])


async def revoked_key(server: Server, role: str = "admin") -> str:
    [row] = await administer(server.data_dir, msgspec.convert({"role": role}, CreateKey), needs_server=True)
    await administer(server.data_dir, RevokeKey(id=row["id"]), needs_server=True)
    return str(row["key"])


async def page_session(server: Server, role: str = "admin") -> str:
    """The secret in the cookie of a page that has signed in."""
    body = {"key": server.key(role)}
    async with (
        aiohttp.ClientSession(timeout=PATIENCE) as http,
        http.post(f"{server.url}/v1/session", json=body) as answer,
    ):
        assert answer.status == 200
        return answer.cookies[COOKIE].value


async def expired_session(server: Server) -> str:
    """Opened just now, and twelve hours ago."""
    secret = await page_session(server)
    with closing(sqlite3.connect(server.data_dir / "quickcomm.sqlite", timeout=30)) as store, store:
        changed = store.execute(
            "UPDATE kernel_sessions SET expires_ns = 1 WHERE expires_ns = (SELECT max(expires_ns) FROM kernel_sessions)"
        )
        assert changed.rowcount == 1
    return secret


async def try_it(
    server: Server, operation: Operation, headers: Mapping[str, str], ids: Mapping[str, str], query: str = ""
) -> Reply:
    """Ask for an operation as it is meant to be asked: with an upgrade, a body, and ids of things that are there."""
    bodies: dict[str, dict[str, Any]] = {
        "assign": {"assignee": "Mallory"},
        "{action}": {"why": "Mallory"},
        "close": {"tasks": "close"},
        "correct": {"text": "Mallory"},
        "dispatch": {"assignee": "Mallory"},
        "erasures": {"name": "Mallory"},
        "weight": {"percent": 5},
        "override": {"kind": "site", "of": "Mallory", "side": "service"},
    }
    body = bodies.get(operation.path.rpartition("/")[2])
    path = operation.path.format(**ids, module="dashboard", action="pause")
    sent = {**headers, **(UPGRADE if operation.websocket else {})}
    async with (
        aiohttp.ClientSession(timeout=PATIENCE, cookie_jar=aiohttp.DummyCookieJar()) as http,
        http.request(operation.method, server.url + path + query, headers=sent, json=body) as answer,
    ):
        text = "" if answer.status == 101 else await answer.text()
        return Reply(status=answer.status, headers=dict(answer.headers), body=text)


def fresh_ids(ids: Mapping[str, str]) -> dict[str, str]:
    """The same, for a conversation that nobody has begun."""
    return {**ids, "conversation_id": f"mallory-{secrets.token_hex(4)}"}
