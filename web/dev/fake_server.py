"""A pretend QuickComm server for work on the page: it serves the built page, invents a shift, and can misbehave.

A development aid, not part of the product and not used by tests.  `.venv/bin/python web/dev/fake_server.py --help`
"""
# ruff: noqa: INP001 - a script beside the page, with numbers made up on the spot

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web
from pretence import JsonObject, Pretence, stamp

STATIC = Path(__file__).resolve().parents[2] / "src/quickcomm/dashboard/static"
POLICY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

SIDE = "pretence"
PRETENCE = web.AppKey("pretence", Pretence)


def problem(status: int, detail: str, code: str, **more: Any) -> web.Response:
    body = {"type": "about:blank", "title": detail, "status": status, "detail": detail, "code": code, **more}
    return web.json_response(body, status=status, content_type="application/problem+json")


@web.middleware
async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
    path = request.path
    if path.startswith("/v1") and path != "/v1/session" and request.cookies.get("s") not in {"admin", "read"}:
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


async def channels(request: web.Request) -> web.Response:
    talks = request.app[PRETENCE].conversations.values()
    return page(
        request,
        [
            {"channel": talk["channel"], "live": 1, "utterances": talk["utterances"], "last_utterance_at": stamp()}
            for talk in talks
        ],
    )


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
            if request.headers.get("If-Match") not in {None, f'"{task["version"]}"'}:
                who = pretence.edits[wanted]
                return problem(409, f"{who['changed_by']} changed it.", "dashboard.task_changed", task=task, **who)
            pretence.edit(task, action, by="manager", assignee=(await request.json()).get("assignee"))
            card["change"] = pretence.bump()
            await pretence.tell({"type": "task", "task": task, "change": card["change"]})
            return web.json_response(task)
    return problem(404, "There is no such task.", "task.unknown")


async def live(request: web.Request) -> web.WebSocketResponse:
    pretence = request.app[PRETENCE]
    socket = web.WebSocketResponse(heartbeat=20)
    await socket.prepare(request)
    side, _, change = request.query.get("after", "").rpartition(":")
    reset = not change or side not in {"", SIDE} or int(change) > pretence.change
    since = 0 if reset else int(change)
    cards = sorted(
        (card for card in pretence.cards.values() if card["change"] > since), key=lambda card: card["change"]
    )
    await socket.send_json(
        {
            "type": "hello", "version": "0.1.0", "site": "main", "role": request.cookies["s"],
            "side": SIDE, "change": pretence.change, "reset": reset, "classifier": pretence.health()["classifier"],
            "health": pretence.health(),
            "conversations": [each for each in pretence.conversations.values() if each["state"] == "live"],
        }
    )  # fmt: skip
    for card in cards[-500:]:
        await socket.send_json({"type": "card", "card": card})
    await socket.send_json(
        {"type": "replayed", "change": pretence.change, "left_out": {"older": False} if reset else None}
    )
    pretence.sockets.add(socket)
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT and '"painted"' in message.data:
                pretence.painted.append(json.loads(message.data))
    finally:
        pretence.sockets.discard(socket)
    return socket


async def control(request: web.Request) -> web.Response:
    """`/dev?degraded=1&alarm=text&code=a,b&first=Ann&drop=1`: misbehave before a page; tells what was painted."""
    pretence = request.app[PRETENCE]
    if "degraded" in request.query:
        pretence.degraded = request.query["degraded"] == "1"
    if "alarm" in request.query:
        codes = request.query.get("code", "stt.slow").split(",") if request.query["alarm"] else []
        pretence.alarms = [{"code": code, "message": request.query["alarm"], "since": stamp()} for code in codes]
    if "say" in request.query:
        await pretence.say(int(request.query["say"]), slowly=False)
    if "first" in request.query:  # somebody of this name completes every open task; the page does not hear of it
        for card in pretence.cards.values():
            for task in card["tasks"]:
                if task["status"] == "open":
                    pretence.edit(task, "complete", by=request.query["first"])
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
    app.router.add_get("/v1/channels", channels)
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
