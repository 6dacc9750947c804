"""Health, lists, problem documents and keys, over plain HTTP."""

import re
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import quote

import pytest
from tests.support.server import EVENTUALLY_S, Answer, Json, Server, quickcomm
from tests.support.talk import shift_talk
from tests.support.wire import Wire, converse, new_id

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
CHANNEL = "house & keeping"


@pytest.fixture(scope="module")
def told() -> dict[str, Wire]:
    return {}


async def conversation(server: Server, told: dict[str, Wire]) -> Wire:
    """A shift on one channel that opens a task; its utterances have arrived in the lists."""
    if "wire" not in told:
        wire = await converse(
            server.url, server.key(), shift_talk().wire, conversation_id=new_id("shift"), channel=CHANNEL
        )
        path = f"/v1/utterances?channel={quote(CHANNEL)}"
        await server.until(path, lambda body: len(body["items"]) >= len(wire.of("utterance")))
        told["wire"] = wire
    return told["wire"]


def problem(answer: Answer, status: int) -> Json:
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert "Traceback" not in str(body)
    return body


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_key(server: Server, path: str) -> None:
    answer = server.get(path)
    assert answer.status == 200
    assert "aiohttp" not in answer.headers.get("server", "")  # no stranger is told which version of what answers


def test_metrics_are_for_prometheus(server: Server) -> None:
    answer = server.get("/metrics")
    if answer.status in {401, 403}:
        answer = server.get("/metrics", "read")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert re.search(rb"^quickcomm_\w+", answer.body, re.MULTILINE)


def test_the_page_is_there(server: Server) -> None:
    answer = server.get("/")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")


def test_openapi_describes_the_paths(server: Server) -> None:
    answer = server.get("/openapi.json")
    assert answer.status == 200
    described = answer.json()
    assert described["openapi"].startswith("3.")
    assert {
        "/v1/conversations",
        "/v1/utterances",
        "/v1/tasks",
        "/v1/channels",
    } <= set(described["paths"])


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/utterances", "/v1/tasks", "/v1/channels"])
def test_lists_need_a_key_that_reads(server: Server, path: str) -> None:
    problem(server.get(path), 401)
    problem(server.ask("GET", path, "nonsense"), 401)
    problem(server.get(path, "ingest"), 403)
    answer = server.get(path, "read")
    assert answer.status == 200
    assert isinstance(answer.json()["items"], list)
    assert server.get(path, "admin").status == 200


@pytest.mark.parametrize("path", ["/v1/conversations/nobody", "/v1/utterances/nobody:0:0", "/v1/nothing"])
def test_what_is_not_there_is_a_problem_document(server: Server, path: str) -> None:
    problem(server.get(path, "read"), 404)


@pytest.mark.parametrize("query", ["cursor=rubbish", "since=yesterday", "limit=0", "limit=x", "limit=-1", "cursor=%00"])
def test_questions_that_make_no_sense_are_problem_documents(server: Server, query: str) -> None:
    body = problem(server.get(f"/v1/utterances?{query}", "read"), 400)
    assert body.get("detail")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_other_methods_are_not_allowed(server: Server, method: str) -> None:
    problem(server.ask(method, "/v1/utterances", server.key("admin"), {}), 405)


async def test_a_conversation_and_its_utterances_can_be_read(server: Server, told: dict[str, Wire]) -> None:
    wire = await conversation(server, told)
    ended = wire.heard[-1]["ledger"]
    path = f"/v1/conversations/{wire.conversation_id}"
    read = await server.until(path, lambda body: body["state"] == "ended" and body["ledger"]["received"] > 0)
    assert read["channel"] == CHANNEL
    assert {name: read["ledger"][name] for name in ended} == ended
    assert RFC3339.fullmatch(read["started_at"])
    for event in wire.of("utterance"):
        card = await server.until(f"/v1/utterances/{quote(event['utterance_id'])}", lambda body: bool(body["insights"]))
        assert card["text"] == event["text"]
        assert (card["start_offset"], card["end_offset"]) == (event["start_offset"], event["end_offset"])
        assert RFC3339.fullmatch(card["spoken_at"])


async def test_lists_page_by_cursor(server: Server, told: dict[str, Wire]) -> None:
    await conversation(server, told)
    path = f"/v1/utterances?channel={quote(CHANNEL)}"
    whole = [item["utterance_id"] for item in server.get(path, "read").json()["items"]]
    while (paged := page_by_page(server, path, len(whole) + 1)) is None:
        pass  # another dashboard was asked for the rest: begin again
    assert len(whole) >= 2
    assert paged == whole


def page_by_page(server: Server, path: str, most: int) -> list[str] | None:
    """Return the ids of a list, asked for one at a time; None where another dashboard does not know the cursor."""
    ids: list[str] = []
    cursor = ""
    for _ in range(most):
        answer = server.get(f"{path}&limit=1{cursor}", "read")
        if answer.status == HTTPStatus.GONE:
            assert problem(answer, 410)["code"] == "cursor.reset"
            return None
        body = answer.json()
        ids += [item["utterance_id"] for item in body["items"]]
        if not (after := next((value for name, value in body.items() if "cursor" in name), None)):
            break
        cursor = f"&cursor={quote(str(after))}"
    return ids


async def test_utterances_are_found(server: Server, told: dict[str, Wire]) -> None:
    wire = await conversation(server, told)
    longest = max((word for event in wire.of("utterance") for word in event["text"].split()), key=len)
    word = longest.strip(".,!?")
    found = server.get(f"/v1/utterances?channel={quote(CHANNEL)}&query={quote(word)}", "read").json()["items"]
    assert found
    assert all(word.lower() in item["text"].lower() for item in found)
    assert server.get("/v1/utterances?query=xyzzyplugh", "read").json()["items"] == []
    assert server.get("/v1/utterances?channel=nowhere", "read").json()["items"] == []
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert server.get(f"/v1/utterances?since={quote(future)}", "read").json()["items"] == []
    past = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert server.get(f"/v1/utterances?since={past}", "read").json()["items"]


@pytest.mark.parametrize(
    "query", ['"', "a AND", "*", "NEAR(", "'; DROP TABLE utterances; --", "%", "ä€", "-", "a" * 2000]
)
def test_no_query_breaks_the_search(server: Server, query: str) -> None:
    assert server.get(f"/v1/utterances?query={quote(query)}", "read").status in {200, 400}


async def test_channels_are_listed(server: Server, told: dict[str, Wire]) -> None:
    await conversation(server, told)
    channels = {item["channel"]: item for item in server.get("/v1/channels", "read").json()["items"]}
    assert CHANNEL in channels


async def test_a_task_is_worked_on(server: Server, told: dict[str, Wire]) -> None:
    await conversation(server, told)
    tasks = [task for task in server.get("/v1/tasks", "read").json()["items"] if task["channel"] == CHANNEL]
    assert tasks, "Towels for 412 are something to do."
    path = f"/v1/tasks/{quote(tasks[0]['task_id'], safe='')}"
    admin = server.key("admin")
    problem(server.ask("POST", f"{path}/acknowledge"), 401)
    problem(server.ask("POST", f"{path}/acknowledge", server.key("ingest")), 403)
    seen = []
    for action, body in (
        ("acknowledge", None),
        ("assign", {"assignee": "Rosa"}),
        ("complete", None),
        ("reopen", None),
    ):
        answer = server.ask("POST", f"{path}/{action}", admin, body or {})
        assert answer.status == 200, answer
        seen.append(answer.json())
    assert seen[1]["assignee"] == "Rosa"
    assert seen[2]["completed_at"]
    assert not seen[3]["completed_at"]
    problem(server.ask("POST", "/v1/tasks/nobody:0:0:0/complete", admin, {}), 404)
    assert server.ask("POST", f"{path}/dance", admin, {}).status in {404, 405}


def test_a_revoked_key_opens_nothing(server: Server) -> None:
    made = server.new_key("read")
    assert made.role == "read"
    assert server.ask("GET", "/v1/channels", made.key).status == 200
    listed = quickcomm("keys", "list", "--json", "--data-dir", str(server.data_dir))
    assert made.id in listed
    assert made.key not in listed
    quickcomm("keys", "revoke", made.id, "--data-dir", str(server.data_dir))
    deadline = time.monotonic() + EVENTUALLY_S  # under `up` other processes take a second to hear of it
    while (answer := server.ask("GET", "/v1/channels", made.key)).status == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    problem(answer, 401)
