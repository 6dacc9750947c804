"""Operations asked for over REST, again and again until they rest; and the conversations that they are about."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

import aiohttp
import msgspec
from tests.support.server import Server
from tests.support.talk import RATE, SHIFT, decoded
from tests.support.wire import converse, new_id

Json = dict[str, Any]
Kind = Literal["close", "correct", "dispatch", "erase"]
KINDS: Final[tuple[Kind, ...]] = ("close", "correct", "dispatch", "erase")
ENDINGS: Final = ("close", "keep", "hand_over")
"""Of the open tasks of a conversation that is closed."""
TASKS: Final = frozenset({"request_item", "repair", "transport", "complaint", "food_order", "lost_found"})
PLANTED: Final = "zqplanted"
"""The beginning of each word that must be in no byte once it is erased."""
AT_ONCE: Final = 4
"""Conversations that are said at once. They say different things, so that none is a copy of another."""
SETTLE_S: Final = 5.0
"""After that everything is folded and remembered: the summaries wait for two seconds for more."""
WITHIN_S: Final = 900.0
AGAIN_S: Final = (0.1, 1.0)
LOOK_S: Final = 0.3
ANSWER_S: Final = 40.0
OVER: Final = frozenset({"done", "compensated"})


class Asked(msgspec.Struct, kw_only=True):
    """One thing that is asked for, and what became of it."""

    kind: Kind
    number: int
    conversation_id: str
    utterance_id: str
    task_ids: list[str]
    """Of the conversation, each open and unchanged before."""
    tasks: str = "keep"
    """For a closing: one of `ENDINGS`."""
    text: str = ""
    room: str = ""
    """A corrected text, and the only room in it."""
    person: str = ""
    """Assignee of a task."""
    summary: int = 0
    """The revision of the summary before."""
    versions: dict[str, int] = {}
    """Of the tasks before, where they were changed."""
    asked: int = 0
    resumed: int = 0
    status: str = ""
    operation_id: str = ""
    refused: str = ""
    """The answer, where it is no outcome."""

    @property
    def planted(self) -> str:
        return f"{PLANTED}{self.number:05d}"

    @property
    def path(self) -> str:
        match self.kind:
            case "close":
                return f"/v1/conversations/{self.conversation_id}/close"
            case "correct":
                return f"/v1/utterances/{self.utterance_id}/correct"
            case "dispatch":
                return f"/v1/tasks/{self.task_ids[0]}/dispatch?expected=0"
            case _:
                return "/v1/erasures"

    @property
    def body(self) -> Json:
        match self.kind:
            case "close":
                return {"tasks": {"assignee": self.person} if self.tasks == "hand_over" else self.tasks}
            case "correct":
                return {"text": self.text}
            case "dispatch":
                return {"assignee": self.person}
            case _:
                return {"conversation": self.conversation_id}


# -- what is said -----------------------------------------------------------------------------------------------------


def clips() -> list[bytes]:
    """Return the requests of the sample shift, each about other rooms."""
    found = []
    for channel in json.loads((SHIFT / "shift.json").read_text())["channels"]:
        pcm = decoded(SHIFT / channel["file"])
        for said in channel["utterances"]:
            if said["noisy"] or not any(each["rooms"] and each["intent"] in TASKS for each in said["insights"]):
                continue
            first, last = int((said["start_s"] - 0.4) * RATE), int((said["end_s"] + 1.0) * RATE)
            found.append(pcm[first:last].tobytes())
    return found


async def material(site: Server, each: int) -> list[Asked]:
    """Have so many conversations of one request said for each kind; return what is to be asked about them."""
    sounds = clips()
    for role in ("ingest", "read", "admin"):
        await asyncio.to_thread(site.key, role)
    said: list[Asked] = []
    numbers = iter(range(each * len(KINDS)))

    async def say() -> None:
        for number in numbers:
            one = await _said(site, KINDS[number % len(KINDS)], number, sounds)
            said.append(one)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(say())
    async with client(site) as session:
        for one in said:
            if one.kind == "erase":
                await _plant(site, session, one)
        await asyncio.sleep(SETTLE_S)
        for one in said:
            if one.kind == "close":
                kept = await site.until(f"/v1/conversations/{one.conversation_id}", lambda body: bool(body["summary"]))
                one.summary = kept["summary"]["revision"]
    return sorted(said, key=lambda one: one.number)


async def _said(site: Server, kind: Kind, number: int, sounds: list[bytes]) -> Asked:
    """Say one conversation that opens tasks, and is no copy; leave out of `sounds` what does not open any."""
    for attempt in range(len(KINDS) * len(sounds)):
        sound = sounds[(number + attempt) % len(sounds)]
        wire = await converse(
            site.url, site.key(), sound, conversation_id=new_id(kind), channel=f"{kind}-{number}-{attempt}"
        )
        ids = {said["utterance_id"] for said in wire.of("utterance")}

        def complete(body: Json, ids: set[str] = ids) -> bool:
            return {card["utterance_id"] for card in body["items"] if card["insights"]} >= ids

        found = await site.until(f"/v1/utterances?conversation={wire.conversation_id}", complete)
        cards: list[Json] = found["items"]
        if any(card["relates_to"] or card["copies"] for card in cards):
            continue
        if len(cards) != 1 or not cards[0]["tasks"]:
            sounds[:] = [each for each in sounds if each is not sound]
            continue
        return Asked(
            kind=kind,
            number=number,
            conversation_id=wire.conversation_id,
            utterance_id=cards[0]["utterance_id"],
            task_ids=[task["task_id"] for task in cards[0]["tasks"]],
            tasks=ENDINGS[number // len(KINDS) % len(ENDINGS)],
            room=str(2000 + number),
            text=f"Please bring four pillows to {2000 + number}.",
            person=f"Person {number}",
        )
    raise AssertionError("Nothing that was said has opened a task.")


async def _plant(site: Server, session: aiohttp.ClientSession, one: Asked) -> None:
    """Put a word into the text, the insights and a task of a conversation that is to be erased."""
    text = f"Please bring {one.planted} and four pillows to 733."
    await _done(session, f"/v1/utterances/{one.utterance_id}/correct", {"text": text})
    found = await site.until(
        f"/v1/utterances/{one.utterance_id}",
        lambda body: bool(body["text"] == text and body["insights"][0]["revision"] > 1 and body["tasks"]),
    )
    one.task_ids = [task["task_id"] for task in found["tasks"]]
    await _done(session, f"/v1/tasks/{one.task_ids[0]}/assign", {"assignee": f"{one.planted} Vandermolen"})


async def _done(session: aiohttp.ClientSession, path: str, body: Json) -> None:
    """Post until it is done: a service whose socket was just replaced is away for a moment, and says so."""
    async with asyncio.timeout(ANSWER_S):
        while True:
            async with session.post(path, json=body) as answer:
                if answer.status == HTTPStatus.OK:
                    return
                assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE, await answer.text()
            await asyncio.sleep(LOOK_S)


# -- asking -----------------------------------------------------------------------------------------------------------


def client(site: Server) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        site.url,
        headers={"Authorization": f"Bearer {site.key('admin')}"},
        timeout=aiohttp.ClientTimeout(total=ANSWER_S),
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
    )


class Asker:
    """Asks for operations until each rests, whatever fails. `mended`: from then on parked ones are resumed."""

    def __init__(self, session: aiohttp.ClientSession, seed: int) -> None:
        self._session = session
        self._chance = random.Random(f"asking {seed}")  # noqa: S311 - to be repeated, not to be secret
        self.mended = asyncio.Event()
        self.failed: Counter[str] = Counter()
        """Answers that were no outcome, by status and code."""

    async def all(self, wanted: Sequence[Asked], seconds: float) -> None:
        """Ask for all of them, spread over so many seconds in an order of chance."""
        begin = asyncio.get_running_loop().time()

        async def one(asked: Asked, at_s: float) -> None:
            await asyncio.sleep(max(0.0, begin + at_s - asyncio.get_running_loop().time()))
            async with asyncio.timeout(seconds + WITHIN_S):
                await self._until_rests(asked)

        async with asyncio.TaskGroup() as tasks:
            for asked in wanted:
                tasks.create_task(one(asked, self._chance.uniform(0, seconds)))

    async def call(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        """Return an answer; 0 where none came."""
        try:
            async with self._session.request(method, path, json=body) as answer:
                found = _parsed(await answer.read())
                if not answer.ok:
                    self.failed[f"{method} {answer.status} {found.get('code', '')}"] += 1
                return answer.status, found
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.failed[f"{method} {type(error).__name__}"] += 1
            return 0, {}

    async def _until_rests(self, asked: Asked) -> None:
        while True:
            asked.asked += 1
            status, body = await self.call("POST", asked.path, asked.body)
            if status == HTTPStatus.OK:
                if await self._followed(asked, body):
                    return
            elif status and status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS:
                asked.refused = f"{status} {body.get('code', '')} {body.get('detail', '')}"
                return
            await asyncio.sleep(self._chance.uniform(*AGAIN_S))

    async def _followed(self, asked: Asked, body: Json) -> bool:
        """Look until it rests; False where it has to be asked for again."""
        if asked.kind == "erase":
            return await self._erased(asked, body)
        asked.operation_id = body["operation_id"]
        while True:
            asked.status = body.get("status", asked.status)
            if await self._rests(asked):
                return True
            status, body = await self.call("GET", f"/v1/operations/{asked.operation_id}")
            if status == HTTPStatus.NOT_FOUND:
                return False
            body = body if status == HTTPStatus.OK else {}

    async def _erased(self, asked: Asked, body: Json) -> bool:
        """As `_followed`. An earlier request, whose answer was lost, may have erased it."""
        erasure_id = body["erasure_id"]
        while True:
            if erasure_id is None:
                if asked.asked == 1:
                    asked.refused = "nothing was found"
                asked.status = "done"
                return True
            asked.status, asked.operation_id = body.get("status", asked.status), body.get("operation_id", "")
            if await self._rests(asked):
                return True
            status, body = await self.call("GET", f"/v1/erasures/{erasure_id}")
            if status == HTTPStatus.NOT_FOUND:
                return False
            body = body if status == HTTPStatus.OK else {}

    async def _rests(self, asked: Asked) -> bool:
        """Return True if it rests; else wait a moment, and resume it where it is parked."""
        if asked.status in OVER:
            return True
        if asked.status == "parked":
            await self.mended.wait()
            status, _ = await self.call("POST", f"/v1/operations/{asked.operation_id}/resume")
            asked.resumed += status == HTTPStatus.OK
        await asyncio.sleep(LOOK_S)
        return False

    async def until_all_rest(self) -> None:
        """Return when no operation is under way; those that are parked are resumed."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                status, body = await self.call("GET", "/v1/operations?unfinished=true&limit=200")
                if status == HTTPStatus.OK and not body["items"]:
                    return
                for each in body.get("items", []):
                    if each["status"] == "parked":
                        await self.call("POST", f"/v1/operations/{each['operation_id']}/resume")
                await asyncio.sleep(LOOK_S)


def _parsed(body: bytes) -> Json:
    """Return the object in a body; an empty one where the edge has answered."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
