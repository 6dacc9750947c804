"""The whole of an erasure on the data of a site: every database that is there, cut off and resumed, and once more."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from tests.support.dashboard_site import found, heard, insight
from tests.support.drill import opened

from quickcomm.contracts.erasing import Scope, Wanted
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.ports import State
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError, NotFoundError, UnavailableError
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.erasing import Erasing, HangsError, tombstones
from quickcomm.operate.erasures import Receipt
from quickcomm.operate.up.layout import Layout

SECRET = "zanzibarquartz"
SAID = [heard(number * 16_000, f"{SECRET if number < 2 else 'soap'} {number}") for number in range(4)]
NAMED = {message.utterance_id for message in SAID[:2]}


def talk(state: State) -> None:
    projector = Projector(state)
    for message in SAID:
        projector.transcript(message)
        projector.insights(found(message, insight("request_item", "412", summary=f"Bring {message.text}")))
    projector.finish()


@pytest.fixture
async def site(tmp_path: Path) -> DataDirectory:
    """One whose dashboard has a database on each side, and none of them runs."""
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    async with opened(directory.database) as database:
        await SqlStore(database).transact(talk)
    directory.dashboard.create()
    shutil.copy(directory.database, directory.dashboard.database)
    return directory


def cards(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM dashboard_utterances").fetchone()[0])


def words(directory: DataDirectory) -> list[str]:
    return [path.name for path in directory.path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


async def test_a_side_that_does_not_run_is_erased_as_well(site: DataDirectory) -> None:
    assert set(words(site)) == {"quickcomm.sqlite", "dashboard.sqlite"}
    erasing, wanted = Erasing(site.path), Wanted(name=SECRET)
    scope = await erasing.find(wanted)
    assert set(scope.utterances) == NAMED
    receipt = await erasing.finish(erasing.begin(wanted, scope, "ada"))
    assert words(site) == []
    assert (cards(site.database), cards(site.dashboard.database)) == (2, 2)
    counts = {(line.store, line.count) for line in receipt.erased if line.what == "cards"}
    assert counts == {(f"dashboard, {path}", 2) for path in (site.database, site.dashboard.database)}
    assert SECRET not in msgspec.json.encode(receipt).decode(), "the name is kept nowhere"
    assert erasing.erasures.of(receipt.id) == receipt
    assert (await erasing.find(wanted)).utterances == ()
    assert {name for each, _ in tombstones([site.dashboard.database]) for name in each.utterances} == NAMED


async def test_what_was_cut_off_is_finished(site: DataDirectory) -> None:
    erasing = Erasing(site.path)
    begun = Receipt(id="e1", kind="name", asked_ns=1, by="ada", scope=Scope(utterances=tuple(sorted(NAMED))))
    erasing.erasures.save(begun)
    [left] = [each for each in Erasing(site.path).erasures.list() if each.state == "running"]
    done = await erasing.finish(left)
    assert (done.state, words(site)) == ("done", [])
    assert [each.state for each in erasing.erasures.list()] == ["done"]


async def test_a_process_that_hangs_is_said_and_the_rest_is_done_later(site: DataDirectory) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    receipt = Receipt(id="e1", kind="name", asked_ns=1, by="ada", scope=Scope(utterances=tuple(sorted(NAMED))))
    async with await asyncio.start_unix_server(hang, site.socket):
        erasing = Erasing(site.path, answers_within_s=0.1)
        erasing.erasures.save(receipt)
        with pytest.raises(HangsError, match="quickcomm erase resume"):
            await erasing.finish(receipt)
        assert [each.state for each in erasing.erasures.list()] == ["running"]
    site.socket.unlink(missing_ok=True)
    assert (await Erasing(site.path).finish(receipt)).state == "done"
    assert words(site) == []


async def test_a_copy_from_before_is_erased_by_the_tombstones_of_another_directory(
    site: DataDirectory, tmp_path: Path
) -> None:
    """As after a restore into another directory."""
    other = DataDirectory(tmp_path / "other")
    shutil.copytree(site.path, other.path)
    erasing = Erasing(site.path)
    scope = Scope(utterances=tuple(sorted(NAMED)))
    await erasing.finish(erasing.begin(Wanted(name="x"), scope, "ada"))
    assert words(other)
    here = Erasing(other.path)
    begun = here.begin_again("ada", site.path)
    assert len(begun) > 0
    for receipt in begun:
        await here.finish(receipt)
    assert words(other) == []
    assert cards(other.database) == 2


async def test_what_cannot_be_erased_is_said(site: DataDirectory, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no site"):
        Erasing(tmp_path / "nothing")
    with pytest.raises(InvalidInputError, match="one of the three"):
        await Erasing(site.path).find(Wanted(conversation="c", name="n"))
    with pytest.raises(NotFoundError, match="quickcomm erase list"):
        Erasing(site.path).erasures.of("none")


async def test_audio_that_is_just_started_again_is_waited_for(site: DataDirectory) -> None:
    """What it has is in the store: in no database that could be worked on without it."""
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("INSERT INTO bus_home (id, whole) VALUES ('here', 1)")
    receipt = Receipt(id="e1", kind="name", asked_ns=1, by="ada", scope=Scope(utterances=tuple(sorted(NAMED))))
    with Layout(site).own():
        for part in ("audio", "messages", "again"):
            with pytest.raises(UnavailableError, match="No process of"):
                await Erasing(site.path, sleep=_at_once).part(receipt, part)
        assert await Erasing(site.path).part(receipt, "dashboard")


async def _at_once(_seconds: float) -> None:
    """Wait for nothing."""
