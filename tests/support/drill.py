"""A site for drills of backup and restore: seeded, moved as `up` moves it, and what people and programs see of it."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Connection
from tests.contract.test_session_store import change, insights, progress, utterance
from tests.support.dashboard_site import found, heard, insight, running
from tests.support.hearing import TOKEN, request
from tests.support.seed import Seed, seed

from quickcomm.audio.adapters.redis_sessions import RedisSessions
from quickcomm.audio.adapters.sql_sessions import SqlSessions
from quickcomm.audio.module import Audio
from quickcomm.audio.ports import SessionStore
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.backfill import backfill, prepare_source, source
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.intelligence.adapters.sql_prompts import SqlPrompts
from quickcomm.intelligence.module import Intelligence
from quickcomm.intelligence.ports import PromptRecord, StoredPrompt
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.keys import KeyStore
from quickcomm.kernel.keys.redis import RedisKeys
from quickcomm.kernel.keys.sql import SqlKeys
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.storage import Database
from quickcomm.operate.backup import Whereabouts
from quickcomm.operate.moving import settle

STEP = 16_000
LISTS = ("utterances", "tasks", "conversations")
Seen = dict[str, list[bytes]]


def quiet(_what: str, _done: int, _of: int) -> None:
    """Report no progress."""


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """Keys and a page session of a seeded site: two are good, one is revoked."""

    good: str
    revoked: str
    session: str


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    """A site's database with all its tables."""
    database, clock = Database(path), SystemClock()
    database.open()
    try:
        for part in (SqlBus(database, clock), SqlKeys(database, clock)):
            part.migrate()
        Audio.migrate_tables(database)
        Intelligence.migrate_tables(database)
        prepare_source(database)
        yield database
    finally:
        await database.aclose()


async def fill(directory: DataDirectory, cards: int, conversations: int = 4) -> Secrets:
    """Make a site as `serve` has one: a tenth of the cards is done, some conversations are open."""
    directory.create()
    async with opened(directory.database) as database:
        done = cards // 10
        await seed(database, Seed(open=cards - 2 * done, done=done, information=done))
        await database.write(_twins)
        sessions = SqlSessions(database, SystemClock())
        await asyncio.gather(
            *(talk(sessions, f"talk-{number}", ends=number % 2 == 0) for number in range(conversations))
        )
        prompt = StoredPrompt(id="p1", name="short", note="", source="Be short.", added_ns=1, added_by="Ada")
        record = PromptRecord(at_ns=1, by="Ada", action="added", prompt_id="p1")
        await SqlPrompts(database).add(prompt, record)
        return await make_keys(SqlKeys(database, SystemClock()))


async def make_keys(keys: KeyStore) -> Secrets:
    good, revoked = await keys.create("admin", "the good one"), await keys.create("ingest", "the other one")
    await keys.revoke(revoked.id)
    principal = await keys.verify(good.key)
    assert principal is not None
    return Secrets(good=good.key, revoked=revoked.key, session=await keys.open_session(principal))


async def talk(sessions: SessionStore, name: str, *, ends: bool, utterances: int = 3) -> None:
    """Have a conversation of so many utterances; the last one has no insights yet."""
    stored = await sessions.open(request(name), TOKEN)
    for number in range(utterances):
        start = number * STEP + 512
        await sessions.publish(progress(stored, start + 512), utterance(stored, start, f"words {number}"))
        for revision in (1, 2) if number < utterances - 1 else ():
            made = insights(stored, start, revision=revision)
            await sessions.add_insights(made)
    if ends:
        await sessions.change_state(progress(stored, utterances * STEP), change(stored, "ended"))


def _twins(connection: Connection) -> None:
    """Two tasks of one moment: nothing but their order tells which is the first."""
    projector = Projector(SqlState(connection))
    for number in range(3):
        transcript = heard(number * STEP, "towels to 901 and a robe to 902", conversation="twins")
        projector.transcript(transcript)
        both = insight("request_item", "901"), insight("request_item", "902", index=1)
        projector.insights(found(transcript, *both))
    Decider(projector, SqlState(connection), time.time_ns()).settle()
    projector.finish()


async def to_services(directory: DataDirectory, url: str, prefix: str) -> Whereabouts:
    """Do what `up --deployment services` does with a directory: store, then the dashboard's own database."""
    await settle(directory, url, prefix=prefix)
    directory.dashboard.create()
    async with opened(directory.database) as site:
        page = Database(directory.dashboard.database)
        page.open()
        try:
            prepare_source(page)
            await backfill(page, source(site))
        finally:
            await page.aclose()
    return Whereabouts(directory=directory, store=url)


async def seen(site: Whereabouts, prefix: str) -> Seen:
    """Return what REST lists, the list of keys, and each conversation's ledger and event log."""
    clock = SystemClock()
    page = site.directory.dashboard if site.directory.dashboard.path.is_dir() else site.directory
    found = await _rest(page.database)
    if site.store is None:
        async with opened(site.directory.database) as database:
            return found | await _core(SqlSessions(database, clock), SqlKeys(database, clock))
    sessions, keys = RedisSessions(site.store, clock, prefix=prefix), RedisKeys(site.store, clock, prefix=prefix)
    try:
        return found | await _core(sessions, keys)
    finally:
        await sessions.aclose()
        await keys.aclose()


async def _rest(database: Path) -> Seen:
    """Walk each list by its cursor; return its items as they came over the wire."""
    lists: Seen = {name: [] for name in LISTS}
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), store=database) as page:
            for name, items in lists.items():
                query = {"limit": "200"}
                while True:
                    address = f"{page.url}/v1/{name}"
                    async with page.http.get(address, params=query, headers=page.headers()) as answer:
                        assert answer.status == 200, await answer.text()
                        body = msgspec.json.decode(await answer.read(), type=dict[str, msgspec.Raw])
                    items += [bytes(item) for item in msgspec.json.decode(body["items"], type=list[msgspec.Raw])]
                    cursor = msgspec.json.decode(body.get("next_cursor", b"null"), type=str | None)
                    if cursor is None:
                        break
                    query["cursor"] = cursor
    return lists


async def _core(sessions: SessionStore, keys: KeyStore) -> Seen:
    changes = sorted(await sessions.ledgers(None), key=lambda change: change.conversation_id)
    logs = []
    for each in changes:
        after = 0
        while events := await sessions.events(each.site, each.conversation_id, after):
            logs += [msgspec.json.encode(event) for event in events]
            after = events[-1].seq
    return {
        "ledgers": [msgspec.json.encode(each) for each in changes],
        "events": logs,
        "keys": [msgspec.json.encode(key) for key in await keys.list()],
    }
