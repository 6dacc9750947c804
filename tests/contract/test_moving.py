"""From `serve` to `up`: conversations and messages move to Valkey once, as they are, wherever the move is cut off."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.contract.test_session_store import answer, change, insights, log, progress, utterance
from tests.contract.test_session_store import open_sql as open_sql_site
from tests.support.hearing import TOKEN, request
from tests.support.valkey import Valkey

from quickcomm.audio.adapters.redis_sessions import REPLAY_S, RedisSessions
from quickcomm.audio.adapters.tables import conversations, events
from quickcomm.audio.ports import OpenRequest
from quickcomm.contracts.audio_socket import DurableEvent, Utterance
from quickcomm.contracts.backfill import BackfillPage
from quickcomm.contracts.commands import CreateKey, GetLedgers, ListDeadLetters, ListKeys
from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.clock import FakeClock, SystemClock
from quickcomm.kernel.copier.sql import SqlSource
from quickcomm.kernel.errors import ForbiddenError
from quickcomm.kernel.keys import KeyStore
from quickcomm.kernel.keys.port import digest
from quickcomm.kernel.keys.redis import RedisKeys
from quickcomm.kernel.keys.sql import SqlKeys, keys_table, sessions_table
from quickcomm.kernel.messaging.bus import Delivery, RejectedError
from quickcomm.kernel.messaging.bus import sql_tables as sql_bus
from quickcomm.kernel.messaging.bus.home import Home, HomeInStore, home_in
from quickcomm.kernel.messaging.bus.moving import mark
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.storage import Database
from quickcomm.operate.administration import administer
from quickcomm.operate.moving import ElsewhereError, _Settling, check_here, settle

DAY_NS = 86_400 * 10**9


def wanted(conversation: str) -> OpenRequest:
    return request(conversation)


async def handled(bus: SqlBus, stream: str, group: str, *, reject: bool = False) -> None:
    """Let a group take all that is there."""

    async def take(_batch: Sequence[Delivery]) -> None:
        if reject:
            raise RejectedError("Nobody understands it.")

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bus.subscribe(stream, group, take))
        async with asyncio.timeout(20):
            while (await bus.backlog()).get(f"{stream}/{group}", 1):  # noqa: ASYNC110 - only the table knows
                await asyncio.sleep(0)
        task.cancel()


async def served(path: Path, *, now_ns: int) -> None:
    """What a `serve` that was killed leaves: one live, one just ended, one of last week, messages half handled."""
    clock = FakeClock()
    clock.advance((now_ns - 7 * DAY_NS - clock.now_ns()) / 1e9)
    async with open_sql_site(path, clock) as site:
        bus = SqlBus(site.database, clock)  # type: ignore[attr-defined]
        for name in ("c-week", "c-ended", "c-live"):
            if name == "c-ended":
                clock.advance(7 * 86_400 - 60)
            stored = await site.store.open(wanted(name), TOKEN)
            await site.store.publish(progress(stored, 5_120), utterance(stored, 512, "one"))
            await answer(site, stored, 512)
            await answer(site, stored, 512, revision=2)
            if name != "c-live":
                await site.store.change_state(progress(stored, 6_144), change(stored, "ended"))
        await handled(bus, TRANSCRIPTS, "quick")
        await handled(bus, TRANSCRIPTS, "slow", reject=True)
        await site.store.publish(progress(stored, 10_240), utterance(stored, 6_144, "two"))
        await handled(bus, TRANSCRIPTS, "quick")
        await make_keys(site.database)  # type: ignore[attr-defined]


async def make_keys(database: Database) -> None:
    """One that is good, with two sessions of which one is over, and one that was revoked; by well-known secrets."""
    now = SystemClock().now_ns()

    def run(connection: sa.Connection) -> None:
        for name, revoked in (("good", None), ("revoked", now)):
            row = {"id": f"key_{name}", "site": "main", "role": "admin", "name": name, "digest": digest(f"qc_{name}")}
            connection.execute(keys_table.insert().values(**row, created_ns=now, revoked_ns=revoked))
        for name, ends in (("open", now + 3_600 * 10**9), ("over", now - 1)):
            session = {"digest": digest(name), "key_id": "key_good"}
            connection.execute(sessions_table.insert().values(**session, expires_ns=ends))

    keys = SqlKeys(database, SystemClock())
    keys.migrate()
    await database.write(run)


async def assert_keys(keys: KeyStore) -> None:
    assert {key.id: key.revoked_ns is None for key in await keys.list()} == {"key_good": True, "key_revoked": False}
    found = await keys.verify("qc_good")
    assert found is not None
    assert (found.key_id, found.role, found.name, found.site) == ("key_good", "admin", "good", "main")
    assert await keys.verify("qc_revoked") is None
    session = await keys.verify_session("open")
    assert session is not None
    assert session.key_id == "key_good"
    assert await keys.verify_session("over") is None


class There:
    """What is in Valkey, by the stores that are used there."""

    def __init__(self, url: str, prefix: str) -> None:
        self.clock = FakeClock()
        self.sessions = RedisSessions(url, self.clock, prefix=prefix)
        self.bus = RedisBus(url, SystemClock(), prefix=prefix)
        self.link = Link(url)
        self.keys = RedisKeys(url, SystemClock(), prefix=prefix)
        self.prefix = prefix

    async def everything(self) -> dict[str, list[DurableEvent]]:
        return {name: await self.sessions.events("main", name, 0) for name in ("c-week", "c-ended", "c-live")}

    async def got(self, stream: str, group: str, count: int) -> list[bytes]:
        """The next so many messages of a group."""
        found: list[bytes] = []
        enough = asyncio.Event()

        async def take(batch: Sequence[Delivery]) -> None:
            found.extend(delivery.payload for delivery in batch)
            if len(found) >= count:
                enough.set()

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.bus.subscribe(stream, group, take))
            async with asyncio.timeout(20):
                await enough.wait()
                while (await self.bus.backlog())[f"{stream}/{group}"]:  # noqa: ASYNC110 - only the server knows
                    await asyncio.sleep(0)
            task.cancel()
        return found


@asynccontextmanager
async def looked_at(url: str, prefix: str) -> AsyncIterator[There]:
    async with AsyncExitStack() as stack:
        there = There(url, prefix)
        for each in (there.sessions, there.bus, there.link, there.keys):
            stack.push_async_callback(each.aclose)
        yield there


@pytest.fixture
async def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.create()
    await served(made.database, now_ns=SystemClock().now_ns())
    return made


async def rows(path: Path, table: sa.Table) -> int:
    database = Database(path)
    database.open()
    try:
        query = sa.select(sa.func.count()).select_from(table)
        return await database.read(lambda connection: int(connection.execute(query).scalar_one()))
    finally:
        await database.aclose()


async def assert_moved(directory: DataDirectory, url: str, prefix: str) -> None:
    async with looked_at(url, prefix) as there:
        logs = await there.everything()
        assert logs["c-week"] == []  # too long ago to be replayed
        assert [event.seq for event in logs["c-ended"]] == [1, 2, 3]
        assert [event.seq for event in logs["c-live"]] == [1, 2, 3, 4]
        assert (isinstance(logs["c-live"][0], Utterance), logs["c-live"][0].seq) == (True, 1)
        assert 0 < await there.link.call("TTL", f"{prefix}:audio:log:main:c-ended") < REPLAY_S
        assert await there.link.call("TTL", f"{prefix}:audio:log:main:c-live") == -1
        states = {each.conversation_id: each.state for each in await there.sessions.ledgers(None)}
        assert states == {"c-week": "ended", "c-ended": "ended", "c-live": "live"}
        assert await there.bus.backlog() == {f"{TRANSCRIPTS}/quick": 0, f"{TRANSCRIPTS}/slow": 1}
        assert len(await there.bus.dead_letters()) == 3
        [two] = await there.got(TRANSCRIPTS, "slow", 1)
        assert b'"text":"two"' in two
        # What nobody has ever subscribed to is kept for whoever comes.
        assert len(await there.got(CONVERSATIONS, "new", 5)) == 5
        for letter in await there.bus.dead_letters():
            await there.bus.replay(letter.id)
        assert len(await there.got(TRANSCRIPTS, "quick", 3)) == 3
        assert await there.sessions.adopt() == 1
        with pytest.raises(ForbiddenError):
            await there.sessions.open(request("c-week", token="x" * 32), "x" * 32)
        stored = await there.sessions.open(wanted("c-live"), "another")
        assert stored.checkpoints == progress(stored, 10_240).checkpoints
        assert (stored.created, stored.last_seq) == (False, 4)
        assert stored.unanswered == (utterance(stored, 6_144).utterance_id,)
        known = await there.sessions.publish(progress(stored, 12_800), utterance(stored, 512))
        assert known is None
        again = insights(stored, 512, revision=2)
        assert await there.sessions.add_insights(again) is None
        event = await there.sessions.publish(progress(stored, 12_800), utterance(stored, 10_752))
        assert event is not None
        assert event.seq == 5
        [session] = await there.link.call("KEYS", f"{prefix}:page-sessions:*")
        assert 3_000 < await there.link.call("TTL", session) <= 3_600
        await assert_keys(there.keys)
    for table in (conversations, events, sql_bus.messages, sql_bus.groups, sql_bus.dead, keys_table, sessions_table):
        assert await rows(directory.database, table) == 0


async def test_everything_moves_as_it_is(directory: DataDirectory, valkey: Valkey, tmp_path: Path) -> None:
    await settle(directory, valkey.url, prefix=tmp_path.name)
    await assert_moved(directory, valkey.url, tmp_path.name)


class CutOffError(BaseException):
    """The process is no more."""


async def test_cut_off_anywhere_it_goes_on_and_nothing_is_lost_or_doubled(
    directory: DataDirectory, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call to Valkey and every transaction in turn: before it, and after it. Pages have four rows."""
    call, write, page = Link._call, Database.write, SqlSource.page
    left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise CutOffError

    async def cut_call(link: Link, command: str, *arguments: Any) -> Any:
        step()
        answered = await call(link, command, *arguments)
        step()
        return answered

    async def cut_write(database: Database, function: Any) -> Any:
        step()
        answered = await write(database, function)
        step()
        return answered

    async def small(source: SqlSource, table: str, after: str, _limit: int) -> BackfillPage:
        return await page(source, table, after, 4)

    monkeypatch.setattr(Link, "_call", cut_call)
    monkeypatch.setattr(Database, "write", cut_write)
    monkeypatch.setattr(SqlSource, "page", small)
    wanted: dict[bytes, bytes] = {}
    for cut in range(1_000):  # the first one is not cut off
        whole = DataDirectory(tmp_path / f"cut-{cut}")
        shutil.copytree(directory.path, whole.path)
        prefix = f"{tmp_path.name}-{cut}"
        left, cut_off = cut, False
        try:
            await settle(whole, valkey.url, prefix=prefix)
        except CutOffError:
            cut_off = True
            assert cut < 9 or home_in(whole.database) is not None, "`serve` must not go on with it"
            await settle(whole, valkey.url, prefix=prefix)
        left = 0
        found = await contents(valkey.url, prefix)
        wanted = wanted or found
        assert found == wanted, f"cut off at {cut}"
        if cut and not cut_off:
            break
    assert cut > 60
    monkeypatch.undo()
    await assert_moved(whole, valkey.url, prefix)


async def test_what_the_last_release_has_begun_to_move_is_begun_anew(
    directory: DataDirectory, valkey: Valkey, tmp_path: Path
) -> None:
    """It had the marks of both sides, a part of the keys, and no place to go on from."""
    begun = Home(id="begun", whole=False)
    database = Database(directory.database)
    database.open()
    await database.write(lambda connection: mark(connection, begun))
    await database.aclose()
    async with looked_at(valkey.url, tmp_path.name) as there:
        await HomeInStore(there.link, tmp_path.name).write(begun)
        await there.link.call("RPUSH", f"{tmp_path.name}:audio:log:main:c-live", "an event")
        await there.link.call("XADD", f"{tmp_path.name}:{TRANSCRIPTS}:0", "1-99", "k", "c-live", "p", "a message")
    await settle(directory, valkey.url, prefix=tmp_path.name)
    await assert_moved(directory, valkey.url, tmp_path.name)


async def contents(url: str, prefix: str) -> dict[bytes, bytes]:
    """All keys and what they have, but the id of the site's mark."""
    link = Link(url)
    try:
        found = {key: await link.call("DUMP", key) async for key in link.scan(f"{prefix}:*")}
    finally:
        await link.aclose()
    return {key.removeprefix(prefix.encode()): value for key, value in found.items() if not key.endswith(b":home")}


async def test_it_moves_once(directory: DataDirectory, valkey: Valkey, tmp_path: Path) -> None:
    await settle(directory, valkey.url, prefix=tmp_path.name)
    async with looked_at(valkey.url, tmp_path.name) as there:
        stored = await there.sessions.open(wanted("c-live"), "another")
        await there.sessions.publish(progress(stored, 12_800), utterance(stored, 10_752))
    await settle(directory, valkey.url, prefix=tmp_path.name)
    async with looked_at(valkey.url, tmp_path.name) as there:
        assert len(await there.sessions.events("main", "c-live", 0)) == 5


async def test_a_store_with_other_data_is_refused_and_nothing_is_touched(
    directory: DataDirectory, valkey: Valkey, tmp_path: Path
) -> None:
    other = DataDirectory(tmp_path / "other")
    other.create()
    await settle(other, valkey.url, prefix=tmp_path.name)
    with pytest.raises(ElsewhereError, match=r"another site.*--redis-url.*--new-store"):
        await settle(directory, valkey.url, prefix=tmp_path.name)
    check_here(directory)
    assert await rows(directory.database, conversations) == 3
    await settle(other, valkey.url, prefix=tmp_path.name)
    await settle(directory, valkey.url, anew=True, prefix=tmp_path.name)
    await assert_moved(directory, valkey.url, tmp_path.name)
    with pytest.raises(ElsewhereError, match="another site"):
        await settle(other, valkey.url, prefix=tmp_path.name)


async def test_of_two_sites_that_begin_at_the_same_time_one_gets_the_store(
    directory: DataDirectory, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found it empty before either has begun."""
    other = DataDirectory(tmp_path / "other")
    other.create()
    both, check = asyncio.Barrier(2), _Settling._check

    async def checked(settling: _Settling, here: Home | None, there: Home | None) -> None:
        await check(settling, here, there)
        await both.wait()

    with monkeypatch.context() as at_once:
        at_once.setattr(_Settling, "_check", checked)
        begun = (settle(each, valkey.url, prefix=tmp_path.name) for each in (directory, other))
        results = await asyncio.gather(*begun, return_exceptions=True)
    refused = [result for result in results if result is not None]
    assert [type(result) for result in refused] == [ElsewhereError]
    loser, winner = (directory, other) if results[0] is not None else (other, directory)
    check_here(loser)
    await settle(winner, valkey.url, prefix=tmp_path.name)
    await settle(loser, valkey.url, prefix=f"{tmp_path.name}-own")


async def test_a_store_without_what_was_moved_is_refused(
    directory: DataDirectory, valkey: Valkey, tmp_path: Path
) -> None:
    await settle(directory, valkey.url, prefix=tmp_path.name)
    with pytest.raises(ElsewhereError, match="another store: this one is empty"):
        await settle(directory, valkey.url, prefix=f"{tmp_path.name}-empty")
    await settle(directory, valkey.url, anew=True, prefix=f"{tmp_path.name}-empty")
    async with looked_at(valkey.url, f"{tmp_path.name}-empty") as there:
        assert await there.sessions.ledgers(None) == []


async def test_a_server_that_is_away_is_waited_for(directory: DataDirectory, tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(settle(directory, server.url))
        await asyncio.to_thread(server.start)
    try:
        await assert_moved(directory, server.url, "quickcomm")
    finally:
        server.stop()


async def test_serve_and_commands_on_the_directory_say_where_it_is(
    directory: DataDirectory, valkey: Valkey, tmp_path: Path
) -> None:
    assert len(await administer(directory.path, GetLedgers())) == 3
    await settle(directory, valkey.url, prefix=tmp_path.name)
    with pytest.raises(ElsewhereError, match="quickcomm up"):
        check_here(directory)
    for asked in (GetLedgers(), ListDeadLetters(), ListKeys(), CreateKey(role="read")):
        with pytest.raises(ElsewhereError, match="quickcomm up"):
            await administer(directory.path, asked)


async def test_keys_that_a_former_version_left_behind_come_after(
    directory: DataDirectory, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off anywhere; what was revoked in the store meanwhile stays revoked."""
    await settle(directory, valkey.url, prefix=tmp_path.name)
    database = Database(directory.database)
    database.open()
    async with looked_at(valkey.url, tmp_path.name) as there:
        await there.link.call("DEL", f"{tmp_path.name}:keys:by-digest", f"{tmp_path.name}:keys:by-id")
        try:
            await make_keys(database)
            call, left = Link._call, 0

            async def cut(link: Link, command: str, *arguments: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise CutOffError
                return await call(link, command, *arguments)

            monkeypatch.setattr(Link, "_call", cut)
            for number in range(1, 50):
                left = number
                try:
                    await settle(directory, valkey.url, prefix=tmp_path.name)
                except CutOffError:
                    continue
                break
            monkeypatch.undo()
            assert number > 5
            await assert_keys(there.keys)
            await there.keys.revoke("key_good")
            await database.write(lambda connection: connection.execute(sessions_table.delete()))
            await database.write(lambda connection: connection.execute(keys_table.delete()))
            await make_keys(database)
            await settle(directory, valkey.url, prefix=tmp_path.name)
            assert await there.keys.verify("qc_good") is None
            assert await rows(directory.database, keys_table) == 0
        finally:
            await database.aclose()


async def test_logs_are_asked_for_as_before(directory: DataDirectory, valkey: Valkey, tmp_path: Path) -> None:
    """Event by event the same as in the database."""
    clock = FakeClock()
    async with open_sql_site(directory.database, clock) as site:
        stored = await site.store.open(wanted("c-live"), TOKEN)
        before = await site.store.events("main", "c-live", 0)
        assert await log(site, stored) == [event.seq for event in before]
    await settle(directory, valkey.url, prefix=tmp_path.name)
    async with looked_at(valkey.url, tmp_path.name) as there:
        assert await there.sessions.events("main", "c-live", 0) == before
