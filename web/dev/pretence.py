"""What the pretend server says and knows: an invented shift, its cards, tasks and conversations."""
# ruff: noqa: INP001, PLR2004, E501 - a script beside the page, with numbers made up on the spot and a table of a shift

import argparse
import asyncio
import contextlib
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

JsonObject = dict[str, Any]
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
        self.edits: dict[str, JsonObject] = {}
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
                        "insight_index": index, "version": 0, "status": "open", "department": department, "urgency": urgency,
                        "rooms": rooms, "summary": summary, "assignee": None, "created_at": stamp(),
                        "acknowledged_at": None, "completed_at": None, "completed_by": None,
                        "completed_by_utterance": None,
                    }
                )  # fmt: skip
        latency = card["latency_ms"]
        latency |= {"queue": 1.9, "classify": self.random.uniform(15, 320), "store": 4.2, "push": 1.3}
        latency["total"] = sum(latency.values())
        card |= {"insights": insights, "tasks": tasks, "change": self.bump()}

    def edit(self, task: JsonObject, action: str, *, by: str, assignee: str | None = None) -> None:
        """Do what a manager does, and remember who it was."""
        now = stamp()
        changes = {
            "acknowledge": {"status": "acknowledged", "acknowledged_at": now},
            "complete": {"status": "done", "completed_at": now, "completed_by": by},
            "reopen": {"status": "open", "acknowledged_at": None, "completed_at": None, "completed_by": None},
            "assign": {"assignee": assignee},
        }
        task.update(changes[action], version=task["version"] + 1)
        self.edits[task["task_id"]] = {"changed_by": by, "changed_at": now}

    def health(self) -> JsonObject:
        return {
            "status": "degraded" if self.degraded or self.alarms else "ok",
            "sessions": len(self.conversations),
            "stt_backlog_s": 0.1,
            "alarms": self.alarms,
            "classifier": {
                "model": "llama-3",
                "source": "llm",
                "degraded": self.degraded,
                "state": "degraded" if self.degraded else "up",
                "message": "",
            },
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
