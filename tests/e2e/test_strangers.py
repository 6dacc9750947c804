"""Every operation that the running server knows of, tried by everybody who may not."""

import json
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import pytest
from tests.e2e.conftest import THEIRS
from tests.support.server import Server
from tests.support.strangers import (
    COOKIE,
    UPGRADE,
    Operation,
    expired_session,
    operations,
    page_session,
    revoked_key,
    site_key,
    try_it,
)
from tests.support.talk import shift_talk
from tests.support.wire import connected, converse, new_id

Headers = dict[str, str]


def bearer(key: str) -> Headers:
    return {"Authorization": f"Bearer {key}"}


def cookie(secret: str) -> Headers:
    return {"Cookie": f"{COOKIE}={secret}", "Sec-Fetch-Site": "same-origin"}


async def nobody(_server: Server) -> Headers:
    return {}


async def guessing(_server: Server) -> Headers:
    return bearer("qc_admin_" + "A" * 43)


async def basic(server: Server) -> Headers:
    return {"Authorization": f"Basic {server.key('admin')}"}


async def revoked(server: Server) -> Headers:
    return bearer(await revoked_key(server))


async def expired(server: Server) -> Headers:
    return cookie(await expired_session(server))


async def signed_out(server: Server) -> Headers:
    secret = await page_session(server)
    async with (
        aiohttp.ClientSession() as http,
        http.delete(server.url + "/v1/session", headers=cookie(secret)) as answer,
    ):
        assert answer.status == 204
    return cookie(secret)


async def forged(_server: Server) -> Headers:
    return cookie("B" * 43)


async def bad_key_and_good_cookie(server: Server) -> Headers:
    """A key that is wrong is not made good by anything else."""
    return bearer("qc_admin_wrong") | cookie(await page_session(server))


UNKNOWN: tuple[Callable[[Server], Awaitable[Headers]], ...] = (
    nobody, guessing, basic, revoked, expired, signed_out, forged, bad_key_and_good_cookie,
)  # fmt: skip
ALLOWED = {"ingest": {"ingest", "admin"}, "read": {"read", "admin"}, "admin": {"admin"}}


def guarded(server: Server) -> list[Operation]:
    found = [operation for operation in operations(server) if not operation.open]
    assert len(found) >= 14
    assert sum(operation.websocket for operation in found) == 2
    return found


@pytest.mark.parametrize("who", UNKNOWN, ids=lambda who: who.__name__)
async def test_who_is_not_known_gets_nothing(
    patient_server: Server, things: dict[str, str], who: Callable[[Server], Awaitable[Headers]]
) -> None:
    headers = await who(patient_server)
    before = patient_server.get(f"/v1/utterances/{things['utterance_id']}", "read").body
    for operation in guarded(patient_server):
        reply = await try_it(patient_server, operation, headers, things)
        assert reply.status == 401, (operation, reply)
        assert reply.headers["Content-Type"].startswith("application/problem+json")
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
        assert THEIRS not in reply.body
    assert patient_server.get(f"/v1/utterances/{things['utterance_id']}", "read").body == before


@pytest.mark.parametrize("role", ["ingest", "read"])
async def test_a_role_may_only_what_is_its_own(patient_server: Server, things: dict[str, str], role: str) -> None:
    refused = 0
    for operation in guarded(patient_server):
        reply = await try_it(patient_server, operation, bearer(patient_server.key(role)), things)
        if role in ALLOWED[operation.role]:
            assert reply.status not in {401, 403}, (operation, reply)
            continue
        refused += 1
        assert reply.status == 403, (operation, reply)
        assert reply.headers["Content-Type"].startswith("application/problem+json")
    assert refused >= 5


async def test_another_site_sees_and_changes_nothing(patient_server: Server, things: dict[str, str]) -> None:
    headers = bearer(await site_key(patient_server, "admin", new_id("elsewhere")))
    before = patient_server.get(f"/v1/utterances/{things['utterance_id']}", "read").body
    for operation in guarded(patient_server):
        if operation.websocket or operation.path == "/metrics":
            continue
        reply = await try_it(patient_server, operation, headers, things)
        if "{" in operation.path:  # modules are moved for all sites, by the operators' keys alone
            no_webhook = operation.path.endswith("/dispatch")  # nothing is looked for where none is set
            refused = 403 if "/migration/" in operation.path else 404
            assert reply.status == (409 if no_webhook else refused), (operation, reply)
        else:
            assert reply.status == 200, (operation, reply)
            assert json.loads(reply.body).get("items", []) == [], operation
        assert THEIRS not in reply.body
    assert patient_server.get(f"/v1/utterances/{things['utterance_id']}", "read").body == before


async def test_a_cursor_of_another_site_is_only_a_place(patient_server: Server, things: dict[str, str]) -> None:
    assert things
    cursor = patient_server.get("/v1/utterances?limit=1", "read").json()["next_cursor"]
    assert cursor
    key = await site_key(patient_server, "read", new_id("elsewhere"))
    for path in ("utterances", "utterances?query=room&", "tasks", "conversations"):
        sign = "" if path.endswith("&") else "?"
        answer = patient_server.ask("GET", f"/v1/{path}{sign}cursor={cursor}", key)
        assert answer.json()["items"] == []


async def test_another_site_s_metrics_name_nobody(patient_server: Server, things: dict[str, str]) -> None:
    key = await site_key(patient_server, "read", new_id("elsewhere"))
    metrics = patient_server.ask("GET", "/metrics", key).body.decode()
    assert "quickcomm_" in metrics
    assert THEIRS not in metrics
    assert things["conversation_id"] not in metrics


async def test_another_site_s_conversation_of_the_same_name_is_another(
    patient_server: Server, things: dict[str, str]
) -> None:
    key = await site_key(patient_server, "ingest", new_id("elsewhere"))
    query = {"resume_token": "t" * 32, "after_seq": 0}
    async with connected(patient_server.url, key, things["conversation_id"], **query) as wire:
        assert (await wire.until("ready"))["next_offset"] == 0
        ended = await wire.end()
    assert ended["ledger"]["received"] == 0
    assert wire.of("utterance") == []


async def test_a_page_of_another_site_hears_nothing(patient_server: Server, things: dict[str, str]) -> None:
    key = await site_key(patient_server, "read", new_id("elsewhere"))
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{patient_server.url}/v1/live?after=0", headers=bearer(key)) as live,
    ):
        hello = await live.receive_json(timeout=20)
        assert hello["type"] == "hello"
        assert hello["conversations"] == []
        await converse(patient_server.url, patient_server.key(), shift_talk().wire, channel=THEIRS)
        await live.send_json(
            {"type": "painted", "utterance_id": things["utterance_id"], "revision": 1, "painted_ms": 1}
        )
        await live.send_json({"type": "dance"})
        while (event := await live.receive_json(timeout=20))["type"] != "error":
            assert event["type"] in {"replayed", "health"}, event


@pytest.mark.parametrize(
    "origin",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {},
    ],
    ids=str,
)
async def test_a_cookie_does_nothing_for_another_origin(
    patient_server: Server, things: dict[str, str], origin: Headers
) -> None:
    """Nothing that changes anything, and no socket: neither of the two."""
    headers = {"Cookie": f"{COOKIE}={await page_session(patient_server)}", **origin}
    tried = 0
    for operation in guarded(patient_server):
        if operation.method == "GET" and not operation.websocket:
            continue
        tried += 1
        reply = await try_it(patient_server, operation, headers, things)
        assert reply.status == 403, (operation, reply)
    assert tried >= 6
    async with aiohttp.ClientSession() as http:
        async with http.delete(f"{patient_server.url}/v1/session", headers=headers) as answer:
            assert answer.status == 403
        async with http.get(f"{patient_server.url}/v1/session", headers=headers) as answer:
            assert answer.status == 200
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_nobody_is_signed_in_by_another_page(patient_server: Server) -> None:
    body = {"key": patient_server.key("admin")}
    async with aiohttp.ClientSession() as http:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            async with http.post(f"{patient_server.url}/v1/session", json=body, headers=headers) as answer:
                assert answer.status == 403
                assert "Set-Cookie" not in answer.headers
        form = {"Content-Type": "text/plain"}  # what a form of another page could send without asking
        async with http.post(f"{patient_server.url}/v1/session", data=json.dumps(body), headers=form) as answer:
            assert answer.status == 400
        async with http.options(
            f"{patient_server.url}/v1/session", headers={"Origin": "https://evil.example"}
        ) as answer:
            assert answer.status == 405
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_key_in_the_address_opens_sockets_only(patient_server: Server, things: dict[str, str]) -> None:
    for operation in guarded(patient_server):
        query = f"?key={patient_server.key('admin')}"
        reply = await try_it(patient_server, operation, {}, things, query)
        assert (reply.status == 401) == (not operation.websocket), (operation, reply)
        if operation.websocket:
            reply = await try_it(patient_server, operation, {}, things, "?key=qc_admin_wrong")
            assert reply.status == 401


async def test_safe_headers_are_on_every_answer(patient_server: Server, things: dict[str, str]) -> None:
    for operation in operations(patient_server):
        if operation.websocket:
            continue
        for headers in (bearer(patient_server.key("admin")), {}):
            reply = await try_it(patient_server, operation, headers, things)
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert reply.headers["X-Frame-Options"] == "DENY"
            assert reply.headers["Referrer-Policy"] == "no-referrer"
            assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
            assert "unsafe" not in reply.headers["Content-Security-Policy"]
            assert reply.headers["Cache-Control"] == "no-store"


STRICT = {
    "QUICKCOMM_KEYS_FAILURES_BURST": "3",
    "QUICKCOMM_KEYS_FAILURES_PER_MINUTE": "0.001",
    "QUICKCOMM_KEYS_REQUESTS_BURST": "10",
    "QUICKCOMM_KEYS_REQUESTS_PER_SECOND": "0.001",
    "QUICKCOMM_AUDIO_MAX_SESSIONS_PER_KEY": "1",
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its limits are so low that what is over them does not depend on how fast we are."""
    server = Server(tmp_path_factory.mktemp("strict") / "data", **STRICT)
    try:
        server.start()
        yield server
    finally:
        server.stop()


async def test_wrong_keys_are_slowed_down_and_right_ones_are_not(strict: Server) -> None:
    statuses = [strict.ask("GET", "/v1/tasks", f"qc_read_{turn}").status for turn in range(3)]
    assert statuses == [401] * 3
    for path in ("/v1/tasks", "/metrics", "/v1/live", "/v1/conversations/c/audio"):
        slowed = strict.ask("GET", path, "qc_read_another")
        assert slowed.status == 429
        assert int(slowed.headers["retry-after"]) >= 1
        assert slowed.json()["code"] == "too_many_requests"
    assert strict.ask("POST", "/v1/session", body={"key": "qc_read_another"}).status == 429
    assert strict.get("/v1/tasks", "admin").status == 200
    assert strict.get("/healthz").status == 200


async def test_a_key_may_ask_only_so_often(strict: Server) -> None:
    statuses = [strict.get("/v1/tasks", "read").status for _ in range(10)]
    assert statuses == [200] * 10
    slowed = strict.get("/v1/tasks", "read")
    assert slowed.status == 429
    assert int(slowed.headers["retry-after"]) >= 1
    assert strict.get("/v1/tasks", "admin").status == 200


async def test_a_key_may_have_only_so_many_conversations(strict: Server) -> None:
    async with connected(strict.url, strict.key(), new_id()) as wire:
        await wire.until("ready")
        async with aiohttp.ClientSession() as http:
            url = f"{strict.url}/v1/conversations/{new_id()}/audio"
            async with http.get(url, headers={**bearer(strict.key()), **UPGRADE}) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.content_type == "application/problem+json"
        async with connected(strict.url, strict.key("admin"), new_id()) as other:
            await other.until("ready")
