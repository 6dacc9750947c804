"""HTTP by hand: requests that no client library would send are answered below 500, and none of them is in the log."""

import asyncio
import contextlib

import pytest
from tests.support.server import Server

PATIENCE_S = 20.0
DEEP = b"[" * 30_000


async def ask(server: Server, request: bytes) -> bytes:
    """What comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def get(path: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers, b"", b""])


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return get(path, length, *headers).replace(b"GET ", b"POST ", 1) + body


JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
KEY = b"Authorization: Bearer {key}"
ODD: dict[str, tuple[bytes, set[int]]] = {
    "no UTF-8 in a query": (get(b"/v1/utterances?channel=\xff", KEY), {400}),
    "no UTF-8, encoded": (get(b"/v1/utterances?channel=%ff", KEY), {200, 400}),
    "half a surrogate pair": (get(b"/v1/utterances?channel=%ed%a0%80", KEY), {200, 400}),
    "a zero byte": (get(b"/v1/utterances?channel=%00", KEY), {400}),
    "a zero byte in an id": (get(b"/v1/utterances/%00", KEY), {404}),
    "no UTF-8 in an id": (get(b"/v1/conversations/%ff", KEY), {404}),
    "digits of elsewhere": (get(b"/v1/utterances?limit=%D9%A3", KEY), {400}),
    "before all time": (get(b"/v1/utterances?department=x&since=0001-01-01T00:00:00Z", KEY), {200}),
    "after all time": (get(b"/v1/utterances?department=x&since=9999-12-31T23:59:59Z", KEY), {200}),
    "a page long ago": (get(b"/v1/live?after=99999999999999999999", KEY), {400}),
    "the live feed without an upgrade": (get(b"/v1/live", KEY), {400, 426}),
    "the audio socket without an upgrade": (get(b"/v1/conversations/c/audio", KEY), {426}),
    "an upgrade without a nonce": (get(b"/v1/live", KEY, b"Upgrade: websocket", b"Connection: Upgrade"), {400}),
    "a long query": (get(b"/v1/utterances?" + b"a=1&" * 5_000, KEY), {400, 414}),
    "a long value": (get(b"/v1/utterances?department=" + b"x" * 20_000, KEY), {400}),
    "a path without end": (get(b"/" + b"x" * 100_000), {400, 414}),
    "a long path": (get(b"/" + b"x" * 10_000), {404}),
    "a file up there": (get(b"/assets/..%2f..%2f..%2fetc%2fpasswd"), {404}),
    "a file up there, unencoded": (get(b"/assets/../../../../etc/passwd"), {400, 404}),
    "a file up there, backwards": (get(b"/assets/..%5c..%5cmodule.py"), {404}),
    "a file with a zero byte": (get(b"/assets/%00.js"), {404}),
    "a name too long for a file": (get(b"/assets/" + b"x" * 3_000), {404}),
    "a key that is no text": (get(b"/v1/tasks", b"Authorization: Bearer \xff\xfe"), {401}),
    "an endless key": (get(b"/v1/tasks", b"Authorization: Bearer qc_" + b"secret" * 2_000), {400}),
    "a key of another scheme": (get(b"/v1/tasks", b"Authorization: Basic c2VjcmV0OnNlY3JldA=="), {401}),
    "a cookie that is no text": (get(b"/v1/tasks", b"Cookie: quickcomm_session=\xff"), {401}),
    "a cookie in quotes": (get(b"/v1/tasks", b'Cookie: quickcomm_session="\\377"'), {401}),
    "too deep": (post(b"/v1/session", b'{"key":"secret","y":' + DEEP, JSON), {400}),
    "too deep, and well formed": (post(b"/v1/session", DEEP + b"]" * 30_000, JSON), {400}),
    "a body that is no UTF-8": (post(b"/v1/session", b'{"key":"\xff"}', JSON), {400}),
    "half a pair in a body": (post(b"/v1/session", b'{"key":"\\ud800"}', JSON), {400}),
    "a number without end": (post(b"/v1/session", b'{"key":' + b"9" * 60_000 + b"}", JSON), {400}),
    "a body too big": (post(b"/v1/session", b'{"key":"' + b"x" * 70_000 + b'"}', JSON), {413}),
    "a body that only claims to be packed": (post(b"/v1/session", b"{}", JSON, b"Content-Encoding: gzip"), {400}),
    "an unknown code": (post(b"/v1/session", b"{}", b"Content-Type: application/json; charset=nonsense"), {400}),
    "a form": (post(b"/v1/session", b"key=secret", b"Content-Type: application/x-www-form-urlencoded"), {400}),
    "a broken chunk": (get(b"/v1/session", JSON, CHUNKED).replace(b"GET", b"POST") + b"2\r\n{}\r\nzz\r\n", {400}),
    "a negative length": (get(b"/?key=secret", b"Content-Length: -1"), {400}),
    "two lengths": (get(b"/?key=secret", b"Content-Length: 1", b"Content-Length: 2"), {400}),
    "a length and chunks": (get(b"/?key=secret", b"Content-Length: 5", CHUNKED) + b"0\r\n\r\n", {400}),
    "another HTTP": (b"GET /v1/live?key=secret HTTP/9.9\r\n\r\n", {400}),
    "no HTTP": (b"secret\r\n\r\n", {400}),
    "a header in the middle of a header": (get(b"/v1/live?key=secret", b"X-Secret: a\x00b"), {400}),
}


@pytest.mark.parametrize("name", ODD)
async def test_no_request_is_an_internal_error(patient_server: Server, name: str) -> None:
    request, statuses = ODD[name]
    answer = await ask(patient_server, request.replace(b"{key}", patient_server.key("admin").encode()))
    assert answer.startswith(b"HTTP/1."), answer
    assert int(answer.split(b" ", 2)[1]) in statuses, answer
    assert b"Traceback" not in answer


async def test_what_is_no_http_is_not_written_into_the_log(patient_server: Server) -> None:
    server = patient_server
    for request, _ in ODD.values():
        await ask(server, request.replace(b"{key}", server.key("read").encode()))
    assert "secret" not in server.log
    assert server.key("read") not in server.log
    assert "Traceback" not in server.log
    assert "http.failed" not in server.log
