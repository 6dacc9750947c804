"""Export and import: what people said goes from any database into any other, and nothing else goes with it."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.support.drill import fill, opened, quiet, seen, talk, to_services
from tests.support.examples import examples
from tests.support.hearing import TOKEN
from tests.support.postgres import PostgresServer
from tests.support.server import quickcomm
from tests.support.valkey import Valkey

from quickcomm.audio.adapters.sql_sessions import SqlSessions
from quickcomm.audio.adapters.tables import conversations, events
from quickcomm.contracts.erasing import Scope
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.adapters import sql_prompts, sql_results, sql_talks, sql_usage
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.copier.transfer import MARKS, ModuleTables
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError
from quickcomm.kernel.messaging.bus.sql_tables import append, groups, partition
from quickcomm.kernel.runtime.data_directory import IMPORTING, DataDirectory, DataDirectoryBusyError
from quickcomm.kernel.storage import Database
from quickcomm.operate.backup import Whereabouts, back_up, whereabouts
from quickcomm.operate.erasing import bury_in, tombstones
from quickcomm.operate.erasures import copies
from quickcomm.operate.exporting import Exported, ExportOptions, export_site
from quickcomm.operate.importing import Imported, import_site
from quickcomm.operate.restore import restore
from quickcomm.operate.transfer import exported
from quickcomm.operate.transfer_file import RECORDINGS, TransferManifest, check, names, totals

ERASED = Scope(conversations=("said-in-confidence",), utterances=("seeded:0:16000",))
SHOWN = ("utterances", "tasks", "conversations")
OWED = b'{"found":{},"heard":{"before":[]}}'
USAGE = {"calls": 3, "prompt_tokens": 40, "completion_tokens": 5, "cost_nano": 7}


async def understand(database: Database, day: str = "2026-05-01", conversation: str = "talk-0") -> None:
    """Put in what intelligence keeps, a row of each kind."""

    def run(connection: sa.Connection) -> None:
        what = {"site": "main", "utterance_id": f"{conversation}:0:512"}
        for statement in (
            sql_results.results.insert().values(**what, revision=2, at_ns=1, owner_epoch=0),
            sql_results.debts.insert().values(**what, at_ns=1, payload=OWED, claimed_ns=0),
            sql_usage.days.insert().values(site="main", day=day, side="", **USAGE),
            sql_usage.conversations.insert().values(
                site="main", conversation_id=conversation, side="", last_ns=1, **USAGE
            ),
            sql_talks.talks.insert().values(
                site="main", conversation_id=conversation, talk=b"{}", ended=True, due_ns=2**62, at_ns=1, claimed_ns=0
            ),
            sql_prompts.deployments.insert().values(revision=1, live_id="p1", canary_id=None, weight=0, back_to=None),
        ):
            connection.execute(statement)

    await database.write(run)


async def served(folder: Path, *, cards: int = 30) -> Whereabouts:
    """Make a site as `serve` has one, with conversations that have ended, and something that was erased."""
    directory = DataDirectory(folder)
    await fill(directory, cards, 0)
    async with opened(directory.database) as database:
        sessions = SqlSessions(database, SystemClock())
        for number in range(2):
            await talk(sessions, f"talk-{number}", ends=True)
        await understand(database)
    await bury_in(directory.database, [(ERASED, 5)])
    return Whereabouts(directory=directory)


async def export(place: Whereabouts, file: Path, **options: Any) -> TransferManifest:
    return (await export_site(place, file, quiet, ExportOptions(**options))).manifest


async def put(file: Path, folder: Path, site: str | None = None) -> Imported:
    return await import_site(file, DataDirectory(folder), quiet, site)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def without_changes(items: list[bytes]) -> list[dict[str, Any]]:
    return [{key: value for key, value in json.loads(item).items() if key != "change"} for item in items]


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def use(folder: Path, url: str) -> None:
    """Have services keep their tables on a server."""
    DataDirectory(folder).create()
    lines = [line for name in ("dashboard", "intelligence") for line in (f"[{name}]", f"database_url = '{url}'")]
    (folder / "quickcomm.toml").write_text("\n".join(lines))


@pytest.fixture
def server_urls(postgres: PostgresServer) -> Iterator[list[str]]:
    """The addresses of two new databases."""
    created = [postgres.create(), postgres.create()]
    yield [postgres.url(name) for name in created]
    for name in created:
        postgres.drop(name)


@pytest.fixture
async def site(tmp_path: Path) -> Whereabouts:
    return await served(tmp_path / "first")


async def test_from_each_database_into_each(site: Whereabouts, tmp_path: Path, server_urls: list[str]) -> None:
    """File to file, to a server, to another server, and back: the digests of all tables stay the same."""
    before = await seen(site, "")
    first = await export(site, tmp_path / "0.export")
    assert {name for name, total in first.tables.items() if not total.rows} == {"dashboard_closings", RECORDINGS}
    assert stat.S_IMODE((tmp_path / "0.export").stat().st_mode) == 0o600
    use(tmp_path / "server-1", server_urls[0])
    use(tmp_path / "server-2", server_urls[1])
    for number, name in enumerate(("file-1", "server-1", "server-2", "file-2")):
        imported = await put(tmp_path / f"{number}.export", tmp_path / name)
        assert imported.rows == {table: total.rows for table, total in first.tables.items()}
        there = whereabouts(tmp_path / name)
        assert len(there.elsewhere) == (2 if name.startswith("server") else 0)
        again = await export(there, tmp_path / f"{number + 1}.export")
        assert again.tables == first.tables, name
        assert again.id != first.id
    back = await seen(Whereabouts(directory=DataDirectory(tmp_path / "file-2")), "")
    assert [what for what in (*SHOWN, "ledgers", "events") if back[what] != before[what]] == []
    assert all(before[what] for what in SHOWN)


async def test_services_and_a_store_are_exported_and_take_what_was_imported(
    tmp_path: Path, site: Whereabouts, valkey: Valkey
) -> None:
    """Conversations from the store, cards from the dashboard's database; imported, it moves as any site does."""
    before = await seen(site, "")
    first = await export(site, tmp_path / "first.export")
    prefix = tmp_path.name
    services = await to_services(site.directory, valkey.url, prefix)
    taken = await export_site(services, tmp_path / "services.export", quiet, ExportOptions(), prefix=prefix)
    assert taken.manifest.deployment == "services"
    differs = {name for name, total in first.tables.items() if taken.manifest.tables[name] != total}
    assert differs <= {"audio_conversations", "audio_events", "audio_erased", "dashboard_erased"}, (
        "numbers of the store"
    )
    await put(tmp_path / "services.export", tmp_path / "second")
    moved = await to_services(DataDirectory(tmp_path / "second"), valkey.url, f"{prefix}-second")
    after = await seen(moved, f"{prefix}-second")
    assert [what for what in ("utterances", "tasks", "ledgers", "events") if after[what] != before[what]] == []
    assert without_changes(after["conversations"]) == without_changes(before["conversations"])  # erased once more
    buried = rows(DataDirectory(tmp_path / "second").database, "SELECT utterance_id FROM dashboard_erased ORDER BY 1")
    assert buried == [("",), ("seeded:0:16000",)], "also where a service had not taken them over"
    with pytest.raises(ConfigurationError, match="quickcomm backup FILE"):
        await put(tmp_path / "first.export", tmp_path / "second")


async def test_neither_keys_nor_resume_tokens_go_with_it(site: Whereabouts, tmp_path: Path) -> None:
    await export(site, tmp_path / "site.export")
    content = (tmp_path / "site.export").read_bytes()
    [(secret,), *_] = rows(site.directory.database, "SELECT digest FROM kernel_keys")
    [(token,), *_] = rows(site.directory.database, "SELECT token_hash FROM audio_conversations")
    assert secret not in content if isinstance(secret, bytes) else secret.encode() not in content
    assert token not in content
    assert TOKEN.encode() not in content
    assert b"kernel_keys" not in content
    assert b"bus_messages" not in content


async def test_what_is_under_way_is_named_and_left_out(site: Whereabouts, tmp_path: Path) -> None:
    """Live conversations, those with messages that wait, and copies of what they have; their tombstones stay."""
    async with opened(site.directory.database) as database:
        sessions = SqlSessions(database, SystemClock())
        await talk(sessions, "goes-on", ends=False)
        await talk(sessions, "waits", ends=True)

        def wait(connection: sa.Connection) -> None:
            connection.execute(sa.text("DELETE FROM bus_messages"))
            place = {"stream": TRANSCRIPTS, "part": partition("waits"), "group_name": "intelligence"}
            connection.execute(groups.insert().values(**place, acked_id=0))
            append(connection, TRANSCRIPTS, "waits", b'{"site":"main","conversation_id":"waits"}')
            connection.execute(
                sa.text("UPDATE dashboard_utterances SET copy_of = 'waits:0:512' WHERE conversation_id = 'twins'")
            )

        await database.write(wait)
    await bury_in(site.directory.database, [(Scope(utterances=("goes-on:0:512",)), 9)])
    with pytest.raises(InvalidInputError, match="3 conversations are under way: goes-on, twins, waits"):
        await export(site, tmp_path / "site.export")
    assert listed(tmp_path) == ["first"], "no half file is left"
    manifest = await export(site, tmp_path / "site.export", live_left_out=True)
    assert [each.conversation_id for each in manifest.left_out] == ["goes-on", "twins", "waits"]
    content = (tmp_path / "site.export").read_bytes()
    assert b"towels to 901" not in content
    await put(tmp_path / "site.export", tmp_path / "second")
    second = DataDirectory(tmp_path / "second").database
    assert rows(second, "SELECT DISTINCT conversation_id FROM audio_conversations") == [("talk-0",), ("talk-1",)]
    assert rows(second, "SELECT DISTINCT conversation_id FROM dashboard_utterances") == [("seeded",)]
    assert ("goes-on:0:512",) in rows(second, "SELECT utterance_id FROM dashboard_erased")
    assert str(tmp_path / "site.export") in {each.where for each in copies(site.directory)}


async def test_what_was_erased_on_either_side_stays_erased(
    site: Whereabouts, tmp_path: Path, server_urls: list[str]
) -> None:
    await export(site, tmp_path / "site.export")
    for name, url in (("file", None), ("server", server_urls[0])):
        target = tmp_path / name
        if url is not None:
            use(target, url)
        await put(tmp_path / "site.export", target)
        here = Scope(conversations=("talk-1",), utterances=("seeded:0:32000",))
        stores: list[Path | str] = [DataDirectory(target).database, *([url] if url else [])]
        for where in stores:
            await bury_in(where, [(here, 7)])
        # the same conversations once more, as if they had been purged here meanwhile
        for where in stores:
            async with _database(where) as database:
                has = set(await database.read(lambda connection: sa.inspect(connection).get_table_names()))
                tables = [name for name in names(exported()) if name in has and not name.endswith("_erased")]
                for table in (*tables, *({MARKS.name, "dashboard_rooms", "dashboard_fts"} & has)):
                    await database.write(
                        lambda connection, table=table: connection.execute(sa.table(table).delete())  # type: ignore[misc]
                    )
        await put(tmp_path / "site.export", target)
        there = url or DataDirectory(target).database
        async with _database(there) as database:
            said = await database.read(
                lambda connection: set(
                    connection.exec_driver_sql("SELECT utterance_id FROM dashboard_utterances").scalars()
                )
            )
        assert "seeded:0:48000" in said
        assert said & {"seeded:0:16000", "seeded:0:32000"} == set()
        found = {scope for scope, _ in tombstones([there])}
        assert {ERASED, here} <= found
        own = DataDirectory(target).database
        assert ("talk-1",) in rows(own, "SELECT conversation_id FROM audio_conversations")
        log = {text for (text,) in rows(own, "SELECT payload FROM audio_events WHERE conversation_id = 'talk-1'")}
        assert not any("words 0" in text for text in log)
        assert any("words 0" in text for (text,) in rows(own, "SELECT payload FROM audio_events"))


@contextlib.asynccontextmanager
async def _database(where: Path | str) -> AsyncIterator[Database]:
    database = Database(where)
    database.open()
    try:
        yield database
    finally:
        await database.aclose()


async def test_what_is_there_already_is_refused_and_the_same_import_is_known(site: Whereabouts, tmp_path: Path) -> None:
    await export(site, tmp_path / "one.export")
    await export(site, tmp_path / "two.export")
    assert not (await put(tmp_path / "one.export", tmp_path / "second")).again
    before = dump(tmp_path / "second")
    with pytest.raises(InvalidInputError, match=r"4 conversations .*: seeded \(main\), talk-0 \(main\)"):
        await put(tmp_path / "two.export", tmp_path / "second")
    assert (await put(tmp_path / "one.export", tmp_path / "second")).again
    assert dump(tmp_path / "second") == before
    assert not (tmp_path / "second" / IMPORTING).exists()


def dump(folder: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(DataDirectory(folder).database)) as connection:
        return list(connection.iterdump())


async def test_it_is_added_to_a_site_that_has_others(site: Whereabouts, tmp_path: Path) -> None:
    """Costs of a day are one sum, the site's own deployment of prompts stays, its cards stay the newest."""
    other = Whereabouts(directory=DataDirectory(tmp_path / "other"))
    other.directory.create()
    async with opened(other.directory.database) as database:
        await talk(SqlSessions(database, SystemClock()), "own", ends=True)
        await understand(database, conversation="own")
    await export(site, tmp_path / "site.export")
    await put(tmp_path / "site.export", other.directory.path)
    own = other.directory.database
    named = rows(own, "SELECT conversation_id FROM audio_conversations ORDER BY 1")
    assert named == [("own",), ("talk-0",), ("talk-1",)]
    assert rows(own, "SELECT calls, cost_nano FROM intelligence_usage_days") == [(6, 14)]
    assert rows(own, "SELECT count(*) FROM intelligence_prompt_deployments") == [(1,)]
    assert rows(own, "SELECT count(*) FROM intelligence_prompts") == [(1,)]
    assert rows(own, "SELECT count(*) FROM intelligence_prompt_audit") == [(0,)]
    assert rows(own, "SELECT max(id) < 0 FROM dashboard_utterances") == [(1,)]
    third = await served(tmp_path / "third")
    async with opened(third.directory.database) as changed:
        for table in ("dashboard_utterances", "dashboard_conversations", "audio_conversations", "audio_events"):
            await changed.write(
                lambda connection, table=table: connection.execute(  # type: ignore[misc]
                    sa.text(f"UPDATE {table} SET site = 'third'")  # noqa: S608
                )
            )
    await export(third, tmp_path / "third.export", site="third")
    await put(tmp_path / "third.export", other.directory.path)
    assert rows(own, "SELECT site, count(*) FROM dashboard_utterances GROUP BY 1 ORDER BY 1") == [
        ("main", 32),
        ("third", 32),
    ]


async def test_only_one_site_of_several(site: Whereabouts, tmp_path: Path) -> None:
    async with opened(site.directory.database) as database:
        await database.write(
            lambda connection: connection.execute(
                conversations.update().where(conversations.c.conversation_id == "talk-1").values(site="annex")
            )
        )
        await database.write(
            lambda connection: connection.execute(
                events.update().where(events.c.conversation_id == "talk-1").values(site="annex")
            )
        )
    await export(site, tmp_path / "both.export")
    await put(tmp_path / "both.export", tmp_path / "annex", "annex")
    found = DataDirectory(tmp_path / "annex").database
    assert rows(found, "SELECT conversation_id FROM audio_conversations") == [("talk-1",)]
    assert rows(found, "SELECT count(*) FROM dashboard_utterances") == [(0,)]
    await put(tmp_path / "both.export", tmp_path / "annex", "main")
    assert rows(found, "SELECT count(*) FROM audio_conversations") == [(2,)]
    await export(site, tmp_path / "annex.export", site="annex")
    assert b"Bring towels" not in (tmp_path / "annex.export").read_bytes()


async def test_recordings_go_along_if_wanted(site: Whereabouts, tmp_path: Path) -> None:
    sound = site.directory.recordings
    for name in ("main/c-talk-0/0-512.flac", "main/c-talk-1/0-512.flac", "main/c-talk-0/1-512.flac.part"):
        (sound / name).parent.mkdir(parents=True, exist_ok=True)
        (sound / name).write_bytes(name.encode())
    assert (await export(site, tmp_path / "without.export")).tables[RECORDINGS].rows == 0
    assert (await export(site, tmp_path / "with.export", recordings=True)).tables[RECORDINGS].rows == 2
    second = DataDirectory(tmp_path / "second")
    second.create()
    async with opened(second.database):
        pass
    await bury_in(second.database, [(Scope(utterances=("talk-1:0:512",)), 7)])
    await put(tmp_path / "with.export", second.path)
    found = {path.relative_to(second.recordings).as_posix(): path for path in second.recordings.rglob("*.flac")}
    assert list(found) == ["main/c-talk-0/0-512.flac"]
    assert found["main/c-talk-0/0-512.flac"].read_bytes() == b"main/c-talk-0/0-512.flac"
    with contextlib.closing(sqlite3.connect(tmp_path / "with.export")) as connection:
        connection.execute(f"UPDATE {RECORDINGS} SET name = 'main/../../../secret.flac' WHERE rowid = 1")  # noqa: S608
        connection.commit()
    with pytest.raises(InvalidInputError, match="damaged"):
        await put(tmp_path / "with.export", tmp_path / "third")
    elsewhere = msgspec.structs.replace(site, recordings="s3://bucket/sound")
    with pytest.raises(InvalidInputError, match="tools of the bucket"):
        await export(elsewhere, tmp_path / "bucket.export", recordings=True)


class CutOffError(Exception):
    """As if the process had died there."""


@pytest.mark.parametrize("place", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
async def test_an_import_that_is_cut_off_anywhere_goes_on(
    site: Whereabouts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, request: pytest.FixtureRequest
) -> None:
    """Before each page in turn. No server starts meanwhile, and no other export is imported."""
    first = await export(site, tmp_path / "site.export")
    await export(site, tmp_path / "other.export")
    target = DataDirectory(tmp_path / "second")
    if place == "postgresql":
        use(target.path, request.getfixturevalue("server_urls")[0])
    left, write = 0, ModuleTables.__getattribute__

    def cut(tables: ModuleTables, name: str) -> Any:
        nonlocal left
        if name == "write":
            left -= 1
            if left == 0:
                raise CutOffError
        return write(tables, name)

    monkeypatch.setattr(ModuleTables, "__getattribute__", cut)
    for attempt in range(1, 100):
        left = min(attempt, 2)  # a page more each time
        try:
            await put(tmp_path / "site.export", target.path)
        except CutOffError:
            if (target.path / IMPORTING).exists():
                with pytest.raises(ConfigurationError, match="quickcomm import FILE"), target.own():
                    pass
                left = 0
                with pytest.raises(InvalidInputError, match=r"Finish it first: quickcomm import .*site\.export"):
                    await put(tmp_path / "other.export", target.path)
            continue
        break
    monkeypatch.undo()
    assert attempt > 12
    again = await export(whereabouts(target.path), tmp_path / "again.export")
    assert again.tables == first.tables
    with target.own():
        assert [name for name in listed(target.path) if "part" in name] == []


async def test_a_restore_takes_the_place_of_an_import_that_was_cut_off(site: Whereabouts, tmp_path: Path) -> None:
    await back_up(site, tmp_path / "site.backup", quiet)
    await export(site, tmp_path / "site.export")
    target = DataDirectory(tmp_path / "second")
    target.create()
    (target.path / IMPORTING).write_text(json.dumps({"id": "x", "file": "lost.export"}))
    with pytest.raises(InvalidInputError, match=r"lost\.export was cut off"):
        await put(tmp_path / "site.export", target.path)
    restore(tmp_path / "site.backup", target, quiet)
    with target.own():
        assert rows(target.database, "SELECT count(*) FROM audio_conversations") == [(2,)]
    with pytest.raises(InvalidInputError, match="is a backup"):
        await put(tmp_path / "site.backup", tmp_path / "third")
    with pytest.raises(InvalidInputError, match="no sound backup"):
        restore(tmp_path / "site.export", DataDirectory(tmp_path / "third"), quiet)


async def test_what_cannot_be_done_is_refused_before_anything_is_written(site: Whereabouts, tmp_path: Path) -> None:
    file = tmp_path / "site.export"
    await export(site, file)
    with pytest.raises(InvalidInputError, match="--force"):
        await export(site, file)
    await export(site, file, force=True)
    target = DataDirectory(tmp_path / "second")
    with target.own(), pytest.raises(DataDirectoryBusyError):
        await put(file, target.path)
    newer = tmp_path / "newer.export"
    shutil.copy(file, newer)
    with contextlib.closing(sqlite3.connect(newer)) as connection:
        connection.execute("UPDATE intelligence_schema_version SET version_num = 'intelligence_9999'")
        connection.commit()
    with pytest.raises(InvalidInputError, match="tables of intelligence are newer"):
        await put(newer, tmp_path / "third")
    more = tmp_path / "more.export"
    shutil.copy(file, more)
    with contextlib.closing(sqlite3.connect(more)) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON audio_events BEGIN SELECT 1; END")
        connection.commit()
    with pytest.raises(InvalidInputError, match="triggers"):
        await put(more, tmp_path / "third")
    with pytest.raises(InvalidInputError, match="There is no file"):
        await put(tmp_path / "none.export", tmp_path / "third")
    assert not (tmp_path / "third").exists()


async def test_an_export_of_an_earlier_version_is_brought_to_this_one(site: Whereabouts, tmp_path: Path) -> None:
    """From before tombstones, closed conversations and corrections."""
    file = tmp_path / "site.export"
    manifest = await export(site, file)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("DROP TABLE dashboard_erased")
        for column in ("archived_ns", "archived_by"):
            connection.execute(f"ALTER TABLE dashboard_conversations DROP COLUMN {column}")
        connection.execute("ALTER TABLE dashboard_utterances DROP COLUMN corrected")
        connection.execute("UPDATE dashboard_schema_version SET version_num = 'dashboard_0009'")
        earlier = totals(connection, [name for name in names(exported()) if name != "dashboard_erased"])
        text = msgspec.json.encode(msgspec.structs.replace(manifest, tables=earlier)).decode()
        connection.execute("UPDATE backup_manifest SET json = ?", (text,))
    await put(file, tmp_path / "second")
    again = await export(Whereabouts(directory=DataDirectory(tmp_path / "second")), tmp_path / "again.export")
    differs = {name for name, total in again.tables.items() if manifest.tables[name] != total}
    # Its tombstones are those of the other modules, by which summaries from before are forgotten.
    assert differs == {"dashboard_conversations", "dashboard_changes"}


async def test_the_command_line(tmp_path: Path) -> None:
    """An export that leaves something out says so; standard output has results alone."""
    site = await served(tmp_path / "first", cards=5)
    async with opened(site.directory.database) as database:
        await talk(SqlSessions(database, SystemClock()), "goes-on", ends=False)
    file, first, second = (str(tmp_path / name) for name in ("site.export", "first", "second"))

    async def run(*words: str, **how: Any) -> str:
        return await asyncio.to_thread(quickcomm, *words, **how)

    refused = await run("export", file, "--data-dir", first, statuses=(1,), errors=True)
    assert "goes-on" in refused
    assert "--live-left-out" in refused
    assert "Traceback" not in refused
    said = await run("export", file, "--data-dir", first, "--live-left-out", errors=True)
    assert said.endswith("NOT in it, under way: conversation goes-on of main\n")
    found = json.loads(await run("import", file, "--data-dir", second, "--json"))
    assert (found["rows"]["dashboard_utterances"], found["again"]) == (7, False)
    assert [each["conversation_id"] for each in found["manifest"]["left_out"]] == ["goes-on"]
    assert "nothing to do" in await run("import", file, "--data-dir", second)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TransferManifest]:
    async def make() -> Exported:
        folder = tmp_path_factory.mktemp("sealed")
        site = await served(folder / "site", cards=5)
        return await export_site(site, folder / "site.export", quiet, ExportOptions())

    made = asyncio.run(make())
    return Path(made.file), made.manifest


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_file_is_found_or_has_the_same_content(
    sealed: tuple[Path, TransferManifest], tmp_path: Path, place: float, flip: int, *, cut: bool
) -> None:
    """One byte is another one, or the end is missing."""
    file, manifest = sealed
    content = bytearray(file.read_bytes())
    at = int(place * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= flip
    damaged = tmp_path / "damaged.export"
    damaged.write_bytes(content)
    try:
        found = check(damaged, exported())
    except InvalidInputError:
        return
    assert found.tables == manifest.tables
    assert not cut


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40)
numbers = st.integers(-(2**63), 2**63 - 1)


@examples(5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    found=st.lists(
        st.tuples(texts, texts, numbers, st.binary(max_size=40), st.booleans()), unique_by=lambda row: row[0]
    )
)
async def test_whatever_rows_have_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, str, int, bytes, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    site = Whereabouts(directory=DataDirectory(folder / "first"))
    site.directory.create()
    prompts = [
        {"id": key, "name": text, "note": text, "source": text, "added_ns": number, "added_by": key}
        for key, text, number, _, _ in found
    ]
    talks = [
        {"site": text, "conversation_id": key, "talk": blob, "ended": flag, "due_ns": number, "at_ns": number}
        | {"claimed_ns": number}
        for key, text, number, blob, flag in found
    ]

    def insert(connection: sa.Connection) -> None:
        if found:
            connection.execute(sql_prompts.prompts.insert(), prompts)
            connection.execute(sql_talks.talks.insert(), talks)

    async with opened(site.directory.database) as database:
        await database.write(insert)
    first = await export(site, folder / "site.export")
    await put(folder / "site.export", folder / "second")
    for table in ("intelligence_prompts", "intelligence_talks"):
        query = f"SELECT * FROM {table} ORDER BY 1, 2"  # noqa: S608
        there = rows(DataDirectory(folder / "second").database, query)
        assert there == rows(site.directory.database, query)
        assert first.tables[table].rows == len(found)
