"""`kill -9` at random moments over all parts of a running topology, while people talk; and what became of it."""

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec
from tests.support.cursor import Cursor
from tests.support.resuming import Heard, complete, stream
from tests.support.server import EVENTUALLY_S
from tests.support.site import Site

from quickcomm.contracts.audio_socket import Insights, Utterance
from quickcomm.operate.up.client import topology_status

Json = dict[str, Any]
SPARED: Final = frozenset({"up", "supervisor"})
"""Who starts the others again. When these die, everything goes on, but nobody looks after it."""
AGAIN_S: Final = 0.1
PAUSES_S: Final = (1.5, 33.0, 4.0)
"""One longer than after which a server flushes what an absent client left open."""


class Toll(msgspec.Struct, kw_only=True):
    """`lost`, `doubled`: utterances against what the sound gives undisturbed. `unlisted`, `unpainted`: not on REST's
    list, or not on a page that was open all the time, each with its insights."""

    seed: int
    kills: dict[str, int]
    """By process."""
    seconds: float = 0.0
    conversations: int = 0
    utterances: int = 0
    lost: int = 0
    doubled: int = 0
    moved: int = 0
    unanswered: int = 0
    answered_twice: int = 0
    out_of_order: int = 0
    unbalanced: int = 0
    unlisted: int = 0
    unpainted: int = 0
    whole_again_s: list[float] = []
    """After each kill, until all processes were healthy."""

    @property
    def faults(self) -> dict[str, int]:
        names = (
            "lost",
            "doubled",
            "moved",
            "unanswered",
            "answered_twice",
            "out_of_order",
            "unbalanced",
            "unlisted",
            "unpainted",
        )
        return {name: count for name in names if (count := getattr(self, name))}


def parts(site: Site) -> dict[str, int]:
    """All processes that may die, by name, with their ids; 0 while there is none."""
    rows = topology_status(site.data_dir) or []
    here = (row for row in rows if row["module"] not in SPARED and row["state"] != "elsewhere")
    return {row["process"]: row["pid"] or 0 for row in here}


class Killer:
    """Kills one process after the other at random moments.

    `patient`: each of them once in an order of chance, then again, and the next only when all are well. Otherwise
    whoever is there at the moment, however ill the others are.
    """

    def __init__(
        self, site: Site, seed: int, *, patient: bool = True, others: Mapping[str, Callable[[], object]] | None = None
    ) -> None:
        """`others`: processes beside those of the site, with what kills each; for one that is not patient."""
        self._site = site
        self._others = others or {}
        self._seed = seed
        self._patient = patient
        self._chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.killed: Counter[str] = Counter()
        self.whole_again_s: list[float] = []

    async def run(self, kills: int, seconds: float) -> None:
        """Spread over so many seconds, or as fast as it comes back."""
        begin = time.monotonic()
        for number in range(kills):
            due = begin + seconds * (number + self._chance.random()) / kills
            await asyncio.sleep(max(self._chance.random() if self._patient else 0.0, due - time.monotonic()))
            await asyncio.to_thread(self._one if self._patient else self._any, number)

    def _one(self, number: int) -> None:
        there = parts(self._site)
        while not all(there.values()):  # a part that lost its database is being started again
            time.sleep(AGAIN_S)
            there = parts(self._site)
        round_, place = divmod(number, len(there))
        order = sorted(there)
        random.Random(f"{self._seed}:{round_}").shuffle(order)  # noqa: S311
        name = order[place]
        self._kill(name, there[name])
        began = time.monotonic()
        while parts(self._site).get(name) in {None, 0, there[name]}:
            time.sleep(AGAIN_S)
        self._site.wait_ready()
        self.whole_again_s.append(round(time.monotonic() - began, 2))

    def _any(self, number: int) -> None:
        del number
        while not (there := {name: pid for name, pid in parts(self._site).items() if pid}):
            time.sleep(AGAIN_S)
        name = self._chance.choice(sorted([*there, *self._others]))
        if name in self._others:
            self._others[name]()
            self.killed[name] += 1
        else:
            self._kill(name, there[name])

    def _kill(self, name: str, pid: int) -> None:
        if not pid:  # it died by itself, and 0 would be this process and all of its group
            return
        with contextlib.suppress(ProcessLookupError):  # it was dead already, and nobody had noticed
            os.kill(pid, signal.SIGKILL)
        self.killed[name] += 1


async def killed_over(
    site: Site, sounds: Sequence[bytes | Sequence[bytes]], killer: tuple[int, float, int], *, patient: bool = True
) -> Toll:
    """`killer`: so many kills, over so many seconds, by this seed. All talk at once, in real time, until it is over.

    Of several sounds in place of one a push-to-talk gateway makes transmissions, with the pauses `PAUSES_S`.
    """
    kills, seconds, seed = killer
    key = await asyncio.to_thread(site.key)
    undisturbed = await asyncio.gather(*(stream(site.url, key, sound) for sound in sounds))
    killing = Killer(site, seed, patient=patient)
    began = time.monotonic()
    heard: list[tuple[Heard, Heard]] = []
    async with watching(site) as cards, asyncio.TaskGroup() as tasks:
        murder = tasks.create_task(killing.run(kills, seconds))
        while not heard or not murder.done():
            talking = [
                tasks.create_task(stream(site.url, key, sound, paced=True, pauses_s=PAUSES_S)) for sound in sounds
            ]
            heard += zip(await asyncio.gather(*talking), undisturbed, strict=True)
        await asyncio.to_thread(site.wait_ready)
        toll = Toll(seed=seed, kills=dict(killing.killed), seconds=round(time.monotonic() - began, 1))
        toll.whole_again_s = killing.whole_again_s
        for now, before in heard:
            count(toll, now, before)
        await seen_everywhere(site, toll, [now for now, _ in heard], cards)
    return toll


def count(toll: Toll, now: Heard, before: Heard) -> None:
    """One conversation."""
    wanted, got = Counter(before.ids), Counter(now.ids)
    toll.conversations += 1
    toll.utterances += len(now.utterances)
    toll.lost += (wanted - got).total()
    toll.doubled += (got - wanted).total()
    toll.moved += len(set(before.places) ^ set(now.places))
    answered = Counter(event.utterance_id for event in now.insights)
    said = Counter(event.utterance_id for event in now.utterances)
    toll.unanswered += (said - answered).total()
    toll.answered_twice += (answered - said).total()
    durable = [event.seq for event in now.events if isinstance(event, Utterance | Insights)]
    toll.out_of_order += durable != list(range(1, len(durable) + 1))
    ledger = now.ended.ledger
    toll.unbalanced += not ledger.balanced or ledger != before.ended.ledger


async def seen_everywhere(site: Site, toll: Toll, heard: Sequence[Heard], cards: dict[str, Json]) -> None:
    """Count what is not on REST's list once, or not on the page that was open."""
    said = {each.utterance_id for one in heard for each in one.utterances}
    await listed_once(site, toll, heard)
    deadline = time.monotonic() + EVENTUALLY_S
    while said - cards.keys() and time.monotonic() < deadline:  # noqa: ASYNC110 - the page tells nobody
        await asyncio.sleep(AGAIN_S)
    toll.unpainted = len(said - cards.keys())


async def listed_once(site: Site, toll: Toll, heard: Sequence[Heard]) -> None:
    """Wait until REST lists each utterance with its insights; count what is missing, or there twice."""
    for one in heard:
        wanted = [each.utterance_id for each in one.utterances]
        path = f"/v1/utterances?conversation={one.conversation_id}&limit=200"
        listed = await site.until(path, lambda answer, wanted=wanted: complete(answer, wanted))  # type: ignore[misc]
        found = Counter(card["utterance_id"] for card in listed["items"])
        toll.unlisted += (Counter(wanted) - found).total()
        toll.doubled += (found - Counter(wanted)).total()


@asynccontextmanager
async def watching(site: Site) -> AsyncGenerator[dict[str, Json]]:
    """A page that comes back whenever it is cut off: complete cards by utterance id."""
    cards: dict[str, Json] = {}
    key = await asyncio.to_thread(site.key, "read")

    async def watch() -> None:
        cursor = Cursor()
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
            while True:
                try:
                    async with session.ws_connect(f"{site.url}/v1/live", params=cursor.query, max_msg_size=0) as live:
                        async for message in live:
                            event = json.loads(message.data)
                            cursor.take(event)
                            if event["type"] == "card":
                                card = event["card"]
                                if card["insights"]:
                                    cards[card["utterance_id"]] = card
                except (aiohttp.ClientError, OSError):
                    pass
                await asyncio.sleep(AGAIN_S)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watch())
        yield cards
        task.cancel()
