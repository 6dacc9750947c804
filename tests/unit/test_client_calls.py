"""Recorded calls in a folder: complete, described by their JSON, each once; and the level of a device."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.scripted import Line, scripted
from tests.support.sounds import tone, write

from quickcomm.client.calls import HEARD, Call, CallFolder, described
from quickcomm.client.errors import SourceError
from quickcomm.client.ingest import Ingest, IngestOptions, call_id
from quickcomm.client.level import FLOOR_DB, Metered, bar, level_db
from quickcomm.client.sources import PcmSource
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.errors import InvalidInputError

TRUNK_RECORDER = {
    "freq": 851_000_000,
    "start_time": 1_760_000_000,
    "stop_time": 1_760_000_005,
    "talkgroup": 1234,
    "talkgroup_tag": "Fire Dispatch",
    "srcList": [{"src": 4512, "time": 1_760_000_000, "pos": 0.0, "tag": ""}, {"src": 7, "pos": 3.1}],
}
RDIO_SCANNER = {
    "dateTime": "2025-10-09T08:53:20.000Z",
    "talkgroup": 1234,
    "talkgroupLabel": "Fire Dispatch",
    "source": 4512,
}


def call(folder: Path, name: str = "1234-1760000000", told: object = TRUNK_RECORDER, seconds: int = 1) -> Path:
    path = write(folder / f"{name}.wav", 8_000, tone(8_000, seconds))
    path.with_suffix(".json").write_text(told if isinstance(told, str) else json.dumps(told))
    return path


@pytest.mark.parametrize("told", [TRUNK_RECORDER, RDIO_SCANNER])
def test_both_programs_say_channel_radio_and_time(tmp_path: Path, told: dict[str, Any]) -> None:
    path = call(tmp_path, told=told)
    found = described(path, path.with_suffix(".json"))
    assert found == Call(path=path, channel="Fire Dispatch", unit="4512", started_at=1_760_000_000.0)


@pytest.mark.parametrize(
    ("told", "channel", "unit", "started_at"),
    [
        ({"talkgroup": 9, "srcList": []}, "9", None, None),
        ({"talkgroup_tag": "-", "talkgroup": 9}, "9", None, None),
        ({"talkgroup_tag": " a\n\tb\u0007 "}, "a b", None, None),
        ({"talkgroup_tag": "x" * 200}, "x" * 80, None, None),
        ({"source": -1, "srcList": [{"src": -1}]}, None, None, None),
        ({"start_time": 1_760_000_000_500}, None, None, 1_760_000_000.5),
        ({"start_time": float("inf"), "dateTime": "yesterday"}, None, None, None),
        ({"start_time": True, "dateTime": "2025-10-09T08:53:20"}, None, None, 1_760_000_000.0),
        ("no JSON", None, None, None),
        ([1], None, None, None),
        ("[" * 100_000, None, None, None),
    ],
)
def test_whatever_stands_in_the_json(
    tmp_path: Path, told: object, channel: str | None, unit: str | None, started_at: float | None
) -> None:
    path = call(tmp_path, told=told)
    found = described(path, path.with_suffix(".json"))
    assert (found.channel, found.unit, found.started_at) == (channel, unit, started_at)


def test_a_call_is_taken_once_it_stopped_growing_and_only_once(tmp_path: Path) -> None:
    folder = CallFolder(tmp_path)
    path = call(tmp_path)
    assert folder.look() == []
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert folder.look() == []
    [found] = folder.look()
    assert found.path == path
    assert folder.look() == []
    assert CallFolder(tmp_path).look() == []  # not noted yet: the next one begins again
    folder.done(found)
    again = CallFolder(tmp_path)
    assert [again.look() for _ in range(3)] == [[], [], []]


def test_the_earliest_call_is_first_and_one_without_json_waits_for_it(tmp_path: Path) -> None:
    call(tmp_path, "b", {"start_time": 1_760_000_001})
    call(tmp_path, "a", {"start_time": 1_760_000_002})
    write(tmp_path / "c.wav", 8_000, tone(8_000, 1))
    folder = CallFolder(tmp_path)
    looks = [[found.name for found in folder.look()] for _ in range(6)]
    assert looks == [[], ["b", "a"], [], [], ["c"], []]


def test_of_two_sound_files_of_a_call_one_is_sent(tmp_path: Path) -> None:
    call(tmp_path, "a").with_suffix(".m4a").write_bytes(b"x")
    folder = CallFolder(tmp_path)
    assert [found.path.suffix for found in [*folder.look(), *folder.look()]] == [".wav"]


def test_calls_of_one_name_in_two_subfolders_are_two(tmp_path: Path) -> None:
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        write(tmp_path / day / "1.wav", 8_000, tone(8_000, 1))
    folder = CallFolder(tmp_path)
    found = [call for _ in range(6) for call in folder.look()]
    assert [call.path.parent.name for call in found] == ["monday", "tuesday"]
    assert len({call_id(call) for call in found}) == 2
    folder.done(found[0])
    again = CallFolder(tmp_path)
    assert [call.path.parent.name for _ in range(6) for call in again.look()] == ["tuesday"]


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        CallFolder(tmp_path / "nosuch")


def test_a_call_has_the_same_id_each_time(tmp_path: Path) -> None:
    one = Call(path=tmp_path / "a b.wav", unit="45/12", started_at=1.0)
    assert call_id(one) == call_id(one)
    assert call_id(one).startswith("45-12-a-b-")
    assert call_id(one) != call_id(Call(path=tmp_path / "a b.wav", unit="45/12", started_at=2.0))


async def test_a_watched_folder_is_sent_with_the_times_of_its_calls(tmp_path: Path) -> None:
    queries: list[dict[str, str]] = []

    async def part(line: Line) -> None:
        queries.append(dict(line.request.query))
        await line.ready()
        samples = len(await line.until_end()) // 2
        await line.ended(received=samples, silence=samples)
        if len(queries) == 2:
            running.finish()

    call(tmp_path, "a", TRUNK_RECORDER)
    call(tmp_path, "b", {"start_time": 1_760_000_100, "talkgroup": 5})
    async with scripted(part, part) as server:
        options = IngestOptions(url=server.url, key="K", watch=str(tmp_path))
        running = Ingest(options, report=lambda _: None, progress=lambda _: None)
        await running.run()
    told = {query["channel"]: query["started_at"] for query in queries}
    assert told == {"Fire Dispatch": "2025-10-09T08:53:20+00:00", "5": "2025-10-09T08:55:00+00:00"}
    assert sorted((tmp_path / HEARD).read_text().split()) == ["a", "b"]


async def test_a_folder_goes_with_no_files(tmp_path: Path) -> None:
    options = IngestOptions(url="http://127.0.0.1:9", key="K", watch=str(tmp_path), files=("a.wav",))
    with pytest.raises(InvalidInputError):
        await Ingest(options, report=lambda _: None, progress=lambda _: None).run()


@pytest.mark.parametrize(("amplitude", "level"), [(0, FLOOR_DB), (32_767, -3.0), (3_277, -23.0)])
def test_the_level_of_a_tone(amplitude: int, level: float) -> None:
    sine = np.sin(np.arange(16_000) * 0.1) * amplitude
    assert level_db(sine.astype("<i2").tobytes()) == pytest.approx(level, abs=0.1)


async def test_each_second_of_a_source_shows_its_level_and_all_of_it_passes() -> None:
    async def chunks() -> Any:
        for _ in range(25):
            yield bytes(3_200)

    shown: list[float] = []
    source = Metered(PcmSource(AudioFormat(), chunks(), live=True), shown.append)
    passed = [chunk async for chunk in source.chunks()]
    assert b"".join(part for part in passed if isinstance(part, bytes)) == bytes(80_000)
    assert shown == [FLOOR_DB, FLOOR_DB]
    assert source.live
    assert "nothing comes" in bar(FLOOR_DB)
    assert "nothing comes" not in bar(-20.0)
