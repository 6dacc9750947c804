"""What benchmarks stand on: the long history is a real one, and nothing of a stream is left undecoded."""

from pathlib import Path

import numpy as np
import sqlalchemy as sa
from benchmarks.history import CHANNELS, COMMON, fill, history
from benchmarks.pieces import LONGEST, pieces, speech_seconds, stream_seconds
from benchmarks.simulated import most
from benchmarks.talkers import RATE, Talk

from quickcomm.dashboard.adapters.queries import SqlQueries
from quickcomm.dashboard.ports import Page, UtteranceFilter
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.storage import Database


async def test_history_is_as_if_it_had_been_heard(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    await fill(directory, 720)
    database = Database(directory.database)
    database.open()
    try:
        queries = SqlQueries(database)
        found = await queries.utterances("main", UtteranceFilter(query=COMMON), Page(limit=500))
        channels = await queries.channels("main")
        count = sa.text("SELECT count(*) FROM dashboard_tasks")
        tasks = await database.read(lambda connection: connection.execute(count).scalar_one())
    finally:
        await database.aclose()
    assert len(found.items) == 240
    assert sorted(channel.channel for channel in channels) == sorted(CHANNELS)
    assert sum(channel.utterances for channel in channels) == 720
    wanted = sum(len(talk.insights.opens_tasks) for talk in history(720, seed=7))
    assert tasks == wanted > 0


def test_a_recording_too_long_is_decoded_in_parts_that_leave_nothing_out() -> None:
    sound = np.random.default_rng(1).integers(-9_000, 9_000, 80 * RATE).astype(np.int16)
    quiet = slice(20 * RATE, 20 * RATE + RATE // 5)
    sound[quiet] = 0
    talk = Talk(sound, ((0, 70 * RATE, "long"), (71 * RATE, 75 * RATE, "short")))
    parts = pieces([talk])
    assert all(len(part.samples) <= LONGEST for part in parts)
    assert quiet.start < len(parts[0].samples) < quiet.stop
    long = [part.samples for part in parts if part.recording == 0]
    assert np.array_equal(np.concatenate(long), sound[: 70 * RATE])
    assert np.array_equal(parts[-1].samples, sound[71 * RATE : 75 * RATE])
    assert speech_seconds([talk]) == 74
    assert stream_seconds([talk]) == 75


def test_the_most_talkers_in_time_are_where_the_line_crosses_two_seconds() -> None:
    assert most([(48, 1.5), (32, 1.0), (56, 2.5)]) == 52
    assert most([(32, 1.0), (48, 1.5)]) is None
