"""Backup and restore are the whole site: in every deployment, and from each into the other."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.contract.test_moving import CutOffError, There, handled, looked_at
from tests.contract.test_session_store import progress, utterance
from tests.support.drill import Secrets, Seen, fill, opened, quiet, seen, talk, to_services
from tests.support.guarded import Guarded
from tests.support.hearing import TOKEN, request
from tests.support.valkey import Valkey

from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.routes import ModuleRoute
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.dashboard.adapters.changed import now_of
from quickcomm.dashboard.adapters.tables import utterances
from quickcomm.dashboard.declaration import DECIDERS, GROUP
from quickcomm.intelligence.adapters.sql_prompts import SqlPrompts
from quickcomm.intelligence.ports import PromptRecord, StoredPrompt
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.copier.sql import marks_table, note_stale
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.keys.redis import RedisKeys
from quickcomm.kernel.keys.sql import SqlKeys
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.export import MessageExport
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.messaging.bus.sql_tables import MIGRATIONS as BUS_MIGRATIONS
from quickcomm.kernel.messaging.bus.sql_tables import groups, messages
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.storage import Database, migrate
from quickcomm.operate import backup as backing_up
from quickcomm.operate.backup import Taken, Whereabouts, back_up
from quickcomm.operate.moving import check_here, check_shape, settle
from quickcomm.operate.restore import restore
from quickcomm.traffic.adapters.journal import SqlJournal
from quickcomm.traffic.model.state import Entry, ModuleState, SiteState

CARDS = 200
LAG_S = 0.2


class Drill:
    """Copies of one site: each a directory, and a place of its own in the store."""

    def __init__(self, folder: Path, valkey: Valkey) -> None:
        self.folder = folder
        self.url = valkey.url
        self.secrets: Secrets
        self.before: Seen

    def prefix(self, name: str) -> str:
        return f"{self.folder.name}-{name}"

    def directory(self, name: str) -> DataDirectory:
        return DataDirectory(self.folder / name)

    async def serve(self, name: str, cards: int = CARDS, conversations: int = 4) -> Whereabouts:
        site = Whereabouts(directory=self.directory(name))
        self.secrets = await fill(site.directory, cards, conversations)
        self.before = await seen(site, "")
        return site

    async def save(self, site: Whereabouts, name: str, which: str = "") -> Taken:
        return await back_up(site, self.folder / f"{name}{which}.backup", quiet, prefix=self.prefix(name))

    def put(self, taken: Taken, name: str) -> Whereabouts:
        restore(Path(taken.file), self.directory(name), quiet)
        return Whereabouts(directory=self.directory(name))

    async def services(self, name: str) -> Whereabouts:
        return await to_services(self.directory(name), self.url, self.prefix(name))

    async def differences(self, site: Whereabouts, name: str) -> list[str]:
        """Return the names of lists that are not byte for byte as they were before."""
        found = await seen(site, self.prefix(name))
        return [what for what, items in self.before.items() if items != found[what]]


@pytest.fixture
def drill(tmp_path: Path, valkey: Valkey) -> Drill:
    return Drill(tmp_path, valkey)


async def test_from_each_deployment_into_each(drill: Drill) -> None:
    """The drill: what REST lists, keys, ledgers and event logs are byte for byte the same after every step."""
    taken = await drill.save(await drill.serve("first"), "first")
    assert all(drill.before.values())
    assert taken.manifest.deployment == "serve"
    assert await drill.differences(drill.put(taken, "serve-to-serve"), "") == []
    drill.put(taken, "services")
    services = await drill.services("services")
    assert await drill.differences(services, "services") == []
    taken = await drill.save(services, "services")
    assert taken.manifest.deployment == "services"
    back = drill.put(taken, "services-to-serve")
    check_here(back.directory)
    check_shape(back.directory, "monolith")
    assert await drill.differences(back, "") == []
    async with opened(back.directory.database) as database:
        keys = SqlKeys(database, SystemClock())
        assert await keys.verify(drill.secrets.good) is not None
        assert await keys.verify(drill.secrets.revoked) is None
        assert await keys.verify_session(drill.secrets.session) is not None
        prompts = await database.read(
            lambda connection: connection.exec_driver_sql("SELECT id FROM intelligence_prompts").all()
        )
        assert [row.id for row in prompts] == ["p1"]
    drill.put(taken, "again")
    assert await drill.differences(await drill.services("again"), "again") == []


async def test_who_polled_the_former_site_begins_again(drill: Drill) -> None:
    """Its changes may be counted as far as the former ones, and be others."""
    site = await drill.serve("site", cards=10, conversations=1)
    taken = await drill.save(site, "site")
    sides = []
    for directory in (site.directory, drill.put(taken, "one").directory, drill.put(taken, "two").directory):
        async with opened(directory.database) as database:
            sides.append(await database.read(lambda connection: now_of(connection, "main").side))
    assert len(set(sides)) == 3


async def test_restored_in_place_under_services(drill: Drill) -> None:
    """The store still has the state before: it is replaced, without `--new-store`, and keys stay valid (H2)."""
    await drill.serve("site")
    site = await drill.services("site")
    taken = await drill.save(site, "site")
    prefix = drill.prefix("site")
    async with looked_at(drill.url, prefix) as there:
        await talk(there.sessions, "after-the-backup", ends=True)
        late = await there.keys.create("read", "made after the backup")
    (site.directory.path / "valkey").mkdir()
    (site.directory.path / "keys.json").write_text("{}")
    kept = restore(Path(taken.file), site.directory, quiet).kept
    assert kept is not None
    assert {path.name for path in kept.iterdir()} >= {"quickcomm.sqlite", "dashboard", "valkey", "keys.json"}
    assert not site.directory.dashboard.path.exists()
    assert await drill.differences(await drill.services("site"), "site") == []
    keys = RedisKeys(drill.url, SystemClock(), prefix=prefix)
    try:
        assert await keys.verify(drill.secrets.good) is not None
        assert await keys.verify_session(drill.secrets.session) is not None
        assert await keys.verify(late.key) is None
    finally:
        await keys.aclose()
    restore(Path(taken.file), drill.directory("other"), quiet)
    with pytest.raises(ConfigurationError, match="another site"):
        await settle(drill.directory("other"), drill.url, prefix=prefix)


async def test_a_restored_state_replaces_the_former_one_wherever_that_is_cut_off(
    drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every call to the store in turn."""
    await drill.serve("site", cards=10, conversations=1)
    site = await drill.services("site")
    restore(Path((await drill.save(site, "site")).file), site.directory, quiet)
    call, left = Link.call, 0

    async def cut(link: Link, command: str, *arguments: Any) -> Any:
        nonlocal left
        answered = await call(link, command, *arguments)
        left -= 1
        if left == 0:
            raise CutOffError
        return answered

    monkeypatch.setattr(Link, "call", cut)
    for number in range(1, 1_000):
        left = number
        try:
            await settle(site.directory, drill.url, prefix=drill.prefix("site"))
        except CutOffError:
            continue
        break
    assert number > 15
    monkeypatch.undo()
    assert await drill.differences(await drill.services("site"), "site") == []


async def test_a_monolith_with_a_store(drill: Drill) -> None:
    """Cards in the database, conversations in the store; messages wait for groups that stand where they stood."""
    site = await drill.serve("first")
    async with opened(site.directory.database) as database:
        await handled(SqlBus(database, SystemClock()), TRANSCRIPTS, "quick")
    await settle(site.directory, drill.url, prefix=drill.prefix("first"))
    site = Whereabouts(directory=site.directory, store=drill.url)
    async with looked_at(drill.url, drill.prefix("first")) as there:
        stored = await there.sessions.open(request("talk-1", token=TOKEN), TOKEN)
        await there.sessions.publish(progress(stored, 90_000), utterance(stored, 80_000, "unhandled"))
    async with opened(site.directory.database) as database:  # and one that is still in the outbox
        await SqlBus(database, SystemClock()).publish(TRANSCRIPTS, "talk-1", b"unsent")
    taken = await drill.save(site, "first")
    assert taken.manifest.deployment == "monolith"
    back = drill.put(taken, "back")
    async with opened(back.directory.database) as database:
        waiting = await _waiting(SqlBus(database, SystemClock()), "quick", 2)
        assert b'"text":"unhandled"' in waiting[0]
        assert waiting[1:] == [b"unsent"]
    moved = drill.put(taken, "moved")
    await settle(moved.directory, drill.url, prefix=drill.prefix("moved"))
    async with looked_at(drill.url, drill.prefix("moved")) as there:
        assert await there.got(TRANSCRIPTS, "quick", 2) == waiting


async def test_in_the_middle_of_a_migration(drill: Drill) -> None:
    """Both sides have all: the monolith's is taken, however far the services beside it are."""
    await drill.serve("site", cards=20)
    site = await drill.services("site")
    site.directory.dashboard.note_moving()
    async with opened(site.directory.dashboard.database) as page:
        await page.write(lambda connection: connection.execute(utterances.delete()))
    site.directory.intelligence.create()
    async with opened(site.directory.intelligence.database) as mind:
        await SqlBus(mind, SystemClock()).publish(INSIGHTS, "talk-1", b"not sent")
    async with looked_at(drill.url, drill.prefix("site")) as there:  # one that the service has not handled
        stored = await there.sessions.open(request("talk-9", token=TOKEN), TOKEN)
        await there.sessions.publish(progress(stored, 90_000), utterance(stored, 80_000, "unhandled"))
        for group in ("intelligence", "intelligence@service"):
            await there.bus.register(TRANSCRIPTS, group)
        await there.got(TRANSCRIPTS, "intelligence", 1)
    taken = await drill.save(site, "site")
    assert taken.manifest.deployment == "monolith"
    back = drill.put(taken, "back").directory
    found = await seen(Whereabouts(directory=back), "")
    assert (found["utterances"], found["tasks"]) == (drill.before["utterances"], drill.before["tasks"])
    async with opened(back.database) as database:
        assert await database.read(_waits_for_intelligence) == [True]
        assert await database.read(lambda connection: _messages_of(connection, INSIGHTS)) == [b"not sent"]


async def test_after_modules_have_moved_and_the_monolith_has_stopped_them(drill: Drill) -> None:
    """Cards and prompts are those of the services; the migration begins anew, and its audit goes on."""
    await drill.serve("site", cards=20)
    site = await drill.services("site")
    directory = site.directory
    directory.dashboard.note_moving()
    directory.intelligence.create()
    directory.traffic.create()
    shutil.copy(directory.database, directory.intelligence.database)
    async with opened(directory.intelligence.database) as mind:
        prompt = StoredPrompt(id="p2", name="later", note="", source="Be shorter.", added_ns=2, added_by="Bob")
        record = PromptRecord(at_ns=2, by="Bob", action="added", prompt_id="p2")
        await SqlPrompts(mind).add(prompt, record)
    async with opened(directory.database) as own:
        await own.write(lambda connection: note_stale(connection, marks_table("dashboard_backfill")))
        await own.write(lambda connection: note_stale(connection, marks_table("intelligence_copied")))
        await own.write(lambda connection: connection.execute(utterances.delete()))
    moved = ModuleState(route=ModuleRoute(mode="retired", weight=10_000, decides="service"), monolith="stopped")
    async with _journal(directory) as journal:
        await journal.begin()
        entry = Entry(who="ann", name="dashboard", action="start", before="off", after="shadow")
        await journal.store(SiteState(version=9, changes=4, modules={"dashboard": moved}), [entry])
    taken = await drill.save(site, "site")
    assert taken.manifest.rows["traffic_audit"] == 1
    kept = restore(Path(taken.file), directory, quiet).kept
    assert kept is not None
    assert {path.name for path in kept.iterdir()} >= {"dashboard", "intelligence", "traffic"}
    assert not directory.intelligence.path.exists()
    assert await drill.differences(Whereabouts(directory=directory), "") == []
    async with opened(directory.database) as database:
        assert {each.id for each in await SqlPrompts(database).prompts()} == {"p1", "p2"}
        assert not await database.read(lambda connection: sa.inspect(connection).has_table("traffic_state"))
    async with _journal(directory) as journal:
        state, epoch = await journal.begin()
        assert (state, epoch) == (SiteState(version=9, changes=4), 2)
        assert [(each.who, each.action) for each in await journal.audit(9)] == [
            ("restore", "restored"),
            ("ann", "start"),
        ]
    assert await drill.differences(await drill.services("site"), "site") == []


@contextlib.asynccontextmanager
async def _journal(directory: DataDirectory) -> AsyncIterator[SqlJournal]:
    database = Database(directory.traffic.database)
    database.open()
    journal = SqlJournal(database, SystemClock())
    journal.migrate()
    try:
        yield journal
    finally:
        await database.aclose()


def _waits_for_intelligence(connection: sa.Connection) -> list[bool]:
    """Return whether the group is before that message, which one side has handled and the other has not."""
    its_own = sa.and_(groups.c.stream == messages.c.stream, groups.c.part == messages.c.part)
    query = sa.select(groups.c.acked_id < messages.c.id).select_from(messages.join(groups, its_own))
    query = query.where(
        groups.c.group_name.startswith("intelligence"), sa.func.instr(messages.c.payload, b"unhandled") > 0
    )
    return [bool(waits) for waits in connection.execute(query).scalars()]


def _messages_of(connection: sa.Connection, stream: str) -> list[bytes]:
    query = sa.select(messages.c.payload).where(messages.c.stream == stream).order_by(messages.c.id)
    return list(connection.execute(query).scalars())


async def _waiting(bus: SqlBus, group: str, count: int) -> list[bytes]:
    """Take what a group is given, until it is so many messages."""
    found: list[bytes] = []
    enough = asyncio.Event()

    async def take(batch: Sequence[Delivery]) -> None:
        found.extend(delivery.payload for delivery in batch)
        if len(found) >= count:
            enough.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bus.subscribe(TRANSCRIPTS, group, take))
        async with asyncio.timeout(20):
            await enough.wait()
        task.cancel()
    return found


async def test_what_is_handled_while_it_is_taken_is_not_missed(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer acknowledges after its database was copied, and the bus forgets: the restored one gets it again."""
    await drill.serve("site", cards=10)
    site = await drill.services("site")
    copy, loop = backing_up._join, asyncio.get_running_loop()
    async with looked_at(drill.url, drill.prefix("site")) as there:
        await there.got(TRANSCRIPTS, "dashboard", 12)
        stored = await there.sessions.open(request("talk-1", token=TOKEN), TOKEN)
        await there.sessions.publish(progress(stored, 90_000), utterance(stored, 80_000, "meanwhile"))

        async def handle() -> None:
            await there.got(TRANSCRIPTS, "dashboard", 1)
            assert await there.bus.trim() > 0

        def copied(*arguments: Any) -> Any:
            rows = copy(*arguments)
            asyncio.run_coroutine_threadsafe(handle(), loop).result(20)
            return rows

        monkeypatch.setattr(backing_up, "_join", copied)
        back = drill.put(await drill.save(site, "site"), "back")
    async with opened(back.directory.database) as database:
        [waiting] = await _waiting(SqlBus(database, SystemClock()), "dashboard", 1)
    assert b"meanwhile" in waiting


async def test_taken_at_any_moment_each_utterance_has_a_card_or_waits_for_one(drill: Drill) -> None:
    """People talk, the dashboard handles, the bus forgets at once, and all the while backups are taken."""
    await drill.serve("site", cards=10)
    site = await drill.services("site")
    page = Database(site.directory.dashboard.database)
    page.open()
    await page.write(lambda connection: connection.exec_driver_sql("CREATE TABLE dashboard_seen (id TEXT)"))
    try:
        async with looked_at(drill.url, drill.prefix("site")) as there, asyncio.TaskGroup() as tasks:
            working = [
                *(tasks.create_task(_talk_on(there, name)) for name in ("talk-1", "talk-3")),
                tasks.create_task(there.bus.subscribe(TRANSCRIPTS, "dashboard", partial(_see, page))),
                tasks.create_task(_forget(there)),
            ]
            taken = [await drill.save(site, "site", str(number)) for number in range(3)]
            for task in working:
                task.cancel()
    finally:
        await page.aclose()
    for number, each in enumerate(taken):
        back = drill.put(each, f"back-{number}")
        assert _without_a_card(back.directory.database) == set()
    assert taken[-1].manifest.rows["dashboard_seen"] > 0


async def _talk_on(there: There, name: str) -> None:
    stored = await there.sessions.open(request(name, token=TOKEN), TOKEN)
    for number in count(10):
        start = number * 16_000
        await there.sessions.publish(progress(stored, start), utterance(stored, start))


async def _see(page: Database, batch: Sequence[Delivery]) -> None:
    """Handle what was said a while ago."""
    await asyncio.sleep(LAG_S)
    rows = [(msgspec.json.decode(each.payload)["utterance_id"],) for each in batch]
    statement = "INSERT INTO dashboard_seen VALUES (?)"
    await page.write(lambda connection: [connection.exec_driver_sql(statement, row) for row in rows])


async def _forget(there: There) -> None:
    while True:
        await there.bus.trim()


def _without_a_card(database: Path) -> set[str]:
    """Return utterances of event logs that the dashboard neither has seen nor will be given."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        said = {row[0] for row in connection.execute("SELECT utterance_id FROM audio_events WHERE kind = 'utterance'")}
        seen_before = {row[0] for row in connection.execute("SELECT id FROM dashboard_seen")}
        waiting = {
            msgspec.json.decode(row[0])["utterance_id"]
            for row in connection.execute(
                "SELECT payload FROM bus_messages JOIN bus_groups USING (stream, part) "
                "WHERE stream = ? AND group_name = 'dashboard' AND id > acked_id",
                (TRANSCRIPTS,),
            )
        }
    return said - seen_before - waiting


async def test_a_store_that_lost_its_data_makes_no_backup(drill: Drill) -> None:
    """Else the backup would lack conversations and keys, and say nothing."""
    await drill.serve("site", cards=10)
    site = await drill.services("site")
    with pytest.raises(ConfigurationError, match="emptied"):
        await back_up(site, drill.folder / "b", quiet, prefix=drill.prefix("another"))
    assert list(drill.folder.glob("b*")) == []


async def test_not_before_the_dashboard_has_all_cards(drill: Drill) -> None:
    await drill.serve("site", cards=10)
    site = await drill.services("site")
    with sqlite3.connect(site.directory.dashboard.database) as connection:
        connection.execute("UPDATE dashboard_backfill SET state = 'running' WHERE table_name = 'all'")
    connection.close()
    with pytest.raises(ConfigurationError, match="still taking over"):
        await drill.save(site, "site")


async def test_the_user_of_up_may_read_all_of_it(tmp_path: Path) -> None:
    server = Guarded(tmp_path / "guarded")
    server.valkey.start()
    try:
        directory = DataDirectory(tmp_path / "site")
        await fill(directory, 10)
        await settle(directory, server.url("up"))
        site = Whereabouts(directory=directory, store=server.url("up"))
        assert (await back_up(site, tmp_path / "b", quiet)).manifest.rows["audio_conversations"] == 4
        other = Whereabouts(directory=directory, store=server.url("audio"))
        with pytest.raises(ConfigurationError, match="quickcomm trust acl"):
            await back_up(other, tmp_path / "c", quiet)
    finally:
        server.valkey.stop()


async def test_what_was_folded_and_not_decided_is_delivered_again_where_one_database_does_both(
    valkey: Valkey, tmp_path: Path
) -> None:
    bus = RedisBus(valkey.url, SystemClock(), prefix=tmp_path.name)
    for group in (GROUP, DECIDERS):
        await bus.register(TRANSCRIPTS, group)
    for number in range(3):
        await bus.publish(TRANSCRIPTS, f"c{number}", b"{}")
    folded = asyncio.Event()

    async def fold(_batch: Sequence[Delivery]) -> None:
        folded.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bus.subscribe(TRANSCRIPTS, GROUP, fold))
        await folded.wait()
        while (await bus.backlog())[f"{TRANSCRIPTS}/{GROUP}"]:  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0)
        task.cancel()
    link = Link(valkey.url)
    export = MessageExport(link, tmp_path.name, {DECIDERS: GROUP})
    await export.look()
    async with opened(tmp_path / "backup.sqlite") as database:
        migrate(database.engine, "bus", BUS_MIGRATIONS)
        rows = await database.write(export.write)
        positions = await database.read(lambda connection: connection.execute(sa.select(groups)).all())
    assert rows["bus_messages"] == 3
    assert {(row.group_name, row.acked_id) for row in positions} == {(GROUP, 0)}
    await bus.aclose()
    await link.aclose()
