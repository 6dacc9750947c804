"""A pretend QuickComm server for work on the page: it serves the built page, invents a shift, and can misbehave.

A development aid, not part of the product and not used by tests.  `.venv/bin/python web/dev/fake_server.py --help`
"""

import argparse
import asyncio
import contextlib
import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

JsonObject = dict[str, Any]
STATIC = Path(__file__).resolve().parents[2] / "src/quickcomm/dashboard/static"
POLICY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
RATE = 16_000
BUDGET = {
    "endpoint": 600,
    "stt": 400,
    "publish": 20,
    "queue": 30,
    "classify": 250,
    "store": 30,
    "push": 20,
    "total": 1000,
}

# (channel, text, [(intent, department, urgency, rooms, items, summary, evidence of urgency)])
SHIFT: list[tuple[str, str, list[tuple[str, str, str, list[str], list[tuple[str, int]], str, list[str]]]]] = [
    (
        "housekeeping",
        "Housekeeping, 412 needs four bath towels and a robe please.",
        [
            (
                "request_item",
                "housekeeping",
                "normal",
                ["412"],
                [("bath towels", 4), ("robe", 1)],
                "Bring towels and a robe to 412",
                [],
            )
        ],
    ),
    (
        "engineering",
        "The ceiling in 807 is leaking, water is coming down on the bed, guest is standing in the hallway.",
        [
            (
                "repair",
                "engineering",
                "high",
                ["807"],
                [],
                "Stop the leak from the ceiling in 807",
                ["water is coming down"],
            )
        ],
    ),
    (
        "front-desk",
        "Can somebody check if 1115 is clean? Family is waiting in the lobby, and they want a crib in 1117.",
        [
            ("room_status", "housekeeping", "high", ["1115"], [], "Check whether 1115 is clean", ["Family is waiting"]),
            ("request_item", "housekeeping", "normal", ["1117"], [("crib", 1)], "Bring a crib to 1117", []),
        ],
    ),
    (
        "security",
        "Smoke in the corridor on nine, by 914, I can smell burning, we need to get people out.",
        [
            (
                "emergency",
                "security",
                "critical",
                ["914"],
                [],
                "Smoke on floor 9 by 914, get people out",
                ["Smoke", "get people out"],
            )
        ],
    ),
    ("housekeeping", "Copy that, on my way.", [("acknowledge", "none", "low", [], [], "On the way", [])]),
    (
        "food-beverage",
        "Room service for 233, two club sandwiches and a pot of coffee.",
        [
            (
                "food_order",
                "food_beverage",
                "normal",
                ["233"],
                [("club sandwich", 2), ("pot of coffee", 1)],
                "Two club sandwiches, coffee to 233",
                [],
            )
        ],
    ),
    ("housekeeping", "412 done.", [("task_done", "housekeeping", "low", ["412"], [], "412 is done", [])]),
    (
        "guest-services",
        "Taxi for the Johnsons in 1502 at six thirty, they have a flight, so don't be late.",
        [
            (
                "transport",
                "guest_services",
                "high",
                ["1502"],
                [("taxi", 1)],
                "Taxi for 1502 at 6:30",
                ["they have a flight"],
            )
        ],
    ),
    (
        "engineering",
        "Anybody seen the match last night? Unbelievable.",
        [("chatter", "none", "low", [], [], "Talk about a match", [])],
    ),
    (
        "front-desk",
        "The lady in 6018 is very unhappy about the noise from next door, third time she calls.",
        [
            (
                "complaint",
                "front_desk",
                "high",
                ["6018"],
                [],
                "Calm the guest in 6018 about noise",
                ["very unhappy", "third time"],
            )
        ],
    ),
    (
        "housekeeping",
        "Found a silver watch under the bed in 519.",
        [("lost_found", "housekeeping", "low", ["519"], [("silver watch", 1)], "Silver watch found in 519", [])],
    ),
    (
        "food-beverage",
        '<b>Markup</b> said aloud & "quoted" <img src=x onerror=alert(1)>',
        [("unclear", "none", "low", [], [], "<i>Not clear</i>", [])],
    ),
]
TASKLESS = {"task_done", "acknowledge", "chatter", "unclear", "room_status"}


def stamp(ns: int | None = None) -> str:
    at = time.time_ns() if ns is None else ns
    return datetime.fromtimestamp(at / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Pretence:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.change = 0
        self.cards: dict[str, JsonObject] = {}
        self.conversations: dict[str, JsonObject] = {}
        self.sockets: set[web.WebSocketResponse] = set()
        self.painted: list[JsonObject] = []
        self.degraded = options.degraded
        self.alarms: list[JsonObject] = []
        self.random = random.Random(7)  # noqa: S311 - a shift that repeats itself
        for channel in [line[0] for line in SHIFT]:
            self.conversation(channel)

    def conversation(self, channel: str) -> JsonObject:
        key = f"{channel}-2025-shift"
        return self.conversations.setdefault(
            key,
            {
                "conversation_id": key,
                "channel": channel,
                "state": "live",
                "sample_rate": RATE,
                "speakers": 1,
                "started_at": stamp(),
                "ended_at": None,
                "utterances": 0,
                "ledger": {"received": 0, "speech": 0, "silence": 0, "gap": 0},
            },
        )

    def bump(self) -> int:
        self.change += 1
        return self.change

    def card(self, line: int, ago_s: float = 0.0) -> JsonObject:
        channel, text, _ = SHIFT[line % len(SHIFT)]
        talk = self.conversation(channel)
        ledger = talk["ledger"]
        start = ledger["received"]
        spoken = int(len(text) / 14 * RATE)
        for part, samples in (("speech", spoken), ("silence", RATE * 4), ("gap", RATE if line % 9 == 4 else 0)):
            ledger[part] += samples
            ledger["received"] += samples
        talk["utterances"] += 1
        words = text.split()
        step = spoken // len(words)
        card: JsonObject = {
            "utterance_id": f"{talk['conversation_id']}:0:{start}",
            "conversation_id": talk["conversation_id"],
            "channel": channel,
            "speaker": 0,
            "start_offset": start,
            "end_offset": start + spoken,
            "sample_rate": RATE,
            "text": text,
            "confidence": 0.9,
            "unintelligible": False,
            "seq": talk["utterances"],
            "spoken_at": stamp(time.time_ns() - int(ago_s * 1e9)),
            "words": [
                {
                    "text": word,
                    "start_offset": start + at * step,
                    "end_offset": start + (at + 1) * step,
                    "confidence": 0.3 if self.random.random() < 0.05 else 0.95,
                }
                for at, word in enumerate(words)
            ],
            "insights": [],
            "tasks": [],
            "latency_ms": {"endpoint": 512.0, "stt": self.random.uniform(90, 260), "publish": 3.1},
            "change": self.bump(),
        }
        self.cards[card["utterance_id"]] = card
        return card

    def classify(self, card: JsonObject, line: int) -> None:
        insights, tasks = [], []
        for index, (intent, department, urgency, rooms, items, summary, urgent) in enumerate(
            SHIFT[line % len(SHIFT)][2]
        ):
            insights.append(
                {
                    "index": index, "revision": 1, "intent": intent, "department": department, "urgency": urgency,
                    "rooms": rooms, "unverified": [room for room in rooms if len(room) == 4 and room > "6"],
                    "items": [{"name": name, "quantity": quantity} for name, quantity in items], "summary": summary,
                    "confidence": round(self.random.uniform(0.5, 0.99), 2), "source": "local" if self.degraded else "llm",
                    "degraded": self.degraded, "prompt_version": None, "model": "built-in-1" if self.degraded else "llama-3",
                    "evidence": {"rooms": rooms, "items": [name for name, _ in items if name in card["text"]], "urgency": urgent},
                }
            )  # fmt: skip
            if intent not in TASKLESS or urgency == "high":
                tasks.append(
                    {
                        "task_id": f"t-{card['change']}-{index}", "utterance_id": card["utterance_id"],
                        "insight_index": index, "status": "open", "department": department, "urgency": urgency,
                        "rooms": rooms, "summary": summary, "assignee": None, "created_at": stamp(),
                        "acknowledged_at": None, "completed_at": None, "completed_by": None,
                        "completed_by_utterance": None,
                    }
                )  # fmt: skip
        latency = card["latency_ms"]
        latency |= {"queue": 1.9, "classify": self.random.uniform(15, 320), "store": 4.2, "push": 1.3}
        latency["total"] = sum(latency.values())
        card |= {"insights": insights, "tasks": tasks, "change": self.bump()}

    def health(self) -> JsonObject:
        return {
            "status": "degraded" if self.degraded or self.alarms else "ok",
            "sessions": len(self.conversations),
            "stt_backlog_s": 0.1,
            "alarms": self.alarms,
            "classifier": {"model": "llama-3", "source": "llm", "degraded": self.degraded},
            "budget": BUDGET,
        }

    async def tell(self, message: JsonObject) -> None:
        for socket in list(self.sockets):
            with contextlib.suppress(ConnectionError):
                await socket.send_json(message)

    async def say(self, line: int, *, slowly: bool) -> None:
        card = self.card(line)
        caption = {key: card[key] for key in ("conversation_id", "channel", "speaker", "start_offset")} | {
            "type": "caption"
        }
        words = card["text"].split()
        for so_far in range(1, len(words) + 1) if slowly else ():
            await self.tell(caption | {"text": " ".join(words[:so_far]), "final": False, "utterance_id": None})
            await asyncio.sleep(0.16)
        await self.tell(caption | {"text": card["text"], "final": True, "utterance_id": card["utterance_id"]})
        await self.tell({"type": "card", "card": card})
        await asyncio.sleep(0.3 if slowly else 0)
        if not self.options.no_classifier:
            self.classify(card, line)
            await self.tell({"type": "card", "card": card})
        await self.tell({"type": "conversation", "conversation": self.conversation(card["channel"])})

    async def play(self) -> None:
        line = self.options.history
        async with asyncio.TaskGroup() as group:
            while self.options.rate > 0:
                await asyncio.sleep(1 / self.options.rate)
                group.create_task(self.say(line, slowly=self.options.rate < 5))
                line += 1

    async def pulse(self) -> None:
        while True:
            await asyncio.sleep(2)
            await self.tell({"type": "health", "health": self.health()})


PRETENCE = web.AppKey("pretence", Pretence)


def problem(status: int, detail: str, code: str) -> web.Response:
    body = {"type": "about:blank", "title": detail, "status": status, "detail": detail, "code": code}
    return web.json_response(body, status=status, content_type="application/problem+json")


@web.middleware
async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
    path = request.path
    if path.startswith("/v1") and path not in {"/v1/session"} and request.cookies.get("s") not in {"admin", "read"}:
        return problem(401, "Sign in first.", "auth.missing")
    response: web.StreamResponse = await handler(request)
    if not path.startswith("/v1"):
        response.headers["Content-Security-Policy"] = POLICY
    return response


async def session(request: web.Request) -> web.Response:
    role = request.cookies.get("s")
    if request.method == "DELETE":
        response = web.Response(status=204)
        response.del_cookie("s")
        return response
    if request.method == "POST":
        role = (await request.json()).get("key")
    if role not in {"admin", "read"}:
        return problem(401, "This key is not known.", "auth.unknown")
    response = web.json_response({"role": role, "site": "main", "version": "0.1.0"})
    response.set_cookie("s", role, httponly=True, samesite="Strict")
    return response


async def utterances(request: web.Request) -> web.Response:
    pretence = request.app[PRETENCE]
    wanted = request.query
    found = [
        card for card in sorted(pretence.cards.values(), key=lambda card: card["spoken_at"], reverse=True)
        if wanted.get("query", "").lower() in card["text"].lower()
        and wanted.get("channel", card["channel"]) == card["channel"]
        and wanted.get("conversation", card["conversation_id"]) == card["conversation_id"]
        and ("department" not in wanted or any(i["department"] == wanted["department"] for i in card["insights"]))
    ]  # fmt: skip
    return page(request, found)


def page(request: web.Request, found: list[JsonObject]) -> web.Response:
    start, limit = int(request.query.get("cursor", 0)), int(request.query.get("limit", 50))
    after = start + limit
    return web.json_response({"items": found[start:after], "next_cursor": str(after) if after < len(found) else None})


async def utterance(request: web.Request) -> web.Response:
    card = request.app[PRETENCE].cards.get(request.match_info["id"])
    return web.json_response(card) if card else problem(404, "There is no such utterance.", "utterance.unknown")


async def conversations(request: web.Request) -> web.Response:
    return page(request, list(request.app[PRETENCE].conversations.values()))


async def conversation(request: web.Request) -> web.Response:
    found = request.app[PRETENCE].conversations.get(request.match_info["id"])
    return web.json_response(found) if found else problem(404, "There is no such conversation.", "conversation.unknown")


async def tasks(request: web.Request) -> web.Response:
    status = request.query.get("status")
    found = [
        task
        for card in request.app[PRETENCE].cards.values()
        for task in card["tasks"]
        if status in {None, task["status"]}
    ]
    return page(request, found)


async def act(request: web.Request) -> web.Response:
    pretence = request.app[PRETENCE]
    await asyncio.sleep(pretence.options.slow)
    if request.cookies.get("s") != "admin":
        return problem(403, "Your key may look, but not act.", "auth.role")
    if pretence.options.refuse:
        return problem(409, "Somebody else has just finished this task.", "task.conflict")
    action, wanted = request.match_info["action"], request.match_info["id"]
    for card in pretence.cards.values():
        for task in card["tasks"]:
            if task["task_id"] != wanted:
                continue
            now = stamp()
            task |= {
                "acknowledge": {"status": "acknowledged", "acknowledged_at": now},
                "complete": {"status": "done", "completed_at": now, "completed_by": "manager"},
                "reopen": {"status": "open", "acknowledged_at": None, "completed_at": None, "completed_by": None},
                "assign": {"assignee": (await request.json()).get("assignee")},
            }[action]
            card["change"] = pretence.bump()
            await pretence.tell({"type": "task", "task": task, "change": card["change"]})
            return web.json_response(task)
    return problem(404, "There is no such task.", "task.unknown")


async def live(request: web.Request) -> web.WebSocketResponse:
    pretence = request.app[PRETENCE]
    socket = web.WebSocketResponse(heartbeat=20)
    await socket.prepare(request)
    after = request.query.get("after")
    reset = after is None or int(after) > pretence.change
    since = 0 if reset else int(after or 0)
    cards = sorted(
        (card for card in pretence.cards.values() if card["change"] > since), key=lambda card: card["change"]
    )
    await socket.send_json(
        {
            "type": "hello", "version": "0.1.0", "site": "main", "role": request.cookies["s"], "change": pretence.change,
            "reset": reset, "classifier": pretence.health()["classifier"], "health": pretence.health(),
            "conversations": [each for each in pretence.conversations.values() if each["state"] == "live"],
        }
    )  # fmt: skip
    for card in cards[-500:]:
        await socket.send_json({"type": "card", "card": card})
    pretence.sockets.add(socket)
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT and '"painted"' in message.data:
                pretence.painted.append(json.loads(message.data))
    finally:
        pretence.sockets.discard(socket)
    return socket


async def control(request: web.Request) -> web.Response:
    """`/dev?degraded=1&alarm=text&drop=1`: misbehave while a page looks on; answers with what was painted."""
    pretence = request.app[PRETENCE]
    if "degraded" in request.query:
        pretence.degraded = request.query["degraded"] == "1"
    if "alarm" in request.query:
        pretence.alarms = [{"code": "stt.slow", "message": request.query["alarm"], "since": stamp()}]
    if "say" in request.query:
        await pretence.say(int(request.query["say"]), slowly=False)
    if "drop" in request.query:
        for socket in list(pretence.sockets):
            await socket.close(code=1012)
    await pretence.tell({"type": "health", "health": pretence.health()})
    return web.json_response({"painted": pretence.painted[-2000:], "cards": len(pretence.cards)})


async def index(_: web.Request) -> web.FileResponse:
    return web.FileResponse(STATIC / "index.html")


async def background(app: web.Application) -> Any:
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(app[PRETENCE].play()), group.create_task(app[PRETENCE].pulse())]
        yield
        for task in running:
            task.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8088)
    parser.add_argument("--rate", type=float, default=0.5, help="utterances a second; 0 for none")
    parser.add_argument("--history", type=int, default=24, help="utterances said before the start")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that an action takes")
    parser.add_argument("--refuse", action="store_true", help="refuse every action")
    parser.add_argument("--degraded", action="store_true", help="the language model is away")
    parser.add_argument("--no-classifier", action="store_true", help="nothing is classified")
    options = parser.parse_args()
    pretence = Pretence(options)
    for line in range(options.history):
        card = pretence.card(line, ago_s=20 + 37.0 * (options.history - line))
        pretence.classify(card, line)
    app = web.Application(middlewares=[guard])
    app[PRETENCE] = pretence
    app.router.add_route("*", "/v1/session", session)
    app.router.add_get("/v1/utterances", utterances)
    app.router.add_get("/v1/utterances/{id}", utterance)
    app.router.add_get("/v1/conversations", conversations)
    app.router.add_get("/v1/conversations/{id}", conversation)
    app.router.add_get("/v1/tasks", tasks)
    app.router.add_post("/v1/tasks/{id}/{action}", act)
    app.router.add_get("/v1/live", live)
    app.router.add_get("/dev", control)
    app.router.add_get("/", index)
    app.router.add_static("/", STATIC)
    app.cleanup_ctx.append(background)
    print(f"http://127.0.0.1:{options.port}/#key=admin", flush=True)  # noqa: T201 - a command line prints
    web.run_app(app, host="127.0.0.1", port=options.port, print=None)


if __name__ == "__main__":
    main()
