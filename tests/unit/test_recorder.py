"""Recordings: a FLAC an utterance, the same however often and by whomever it is written, gone when it is old."""

import asyncio
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import soundfile

from quickcomm.audio.adapters import recorder as module
from quickcomm.audio.adapters.places import Places, shelf_of
from quickcomm.audio.adapters.recorder import PART, FlacRecorder, Folder, encoded, file_name
from quickcomm.audio.ports import RecordingError
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import ConfigurationError

SOUND = (np.sin(np.arange(16_000) / 9) * 9_000).astype(np.int16)


async def test_what_was_said_is_kept_to_the_sample(tmp_path: Path) -> None:
    recorder = FlacRecorder(Folder(tmp_path))
    for _ in range(2):
        await recorder.record("main", "..:0:512", SOUND)
    file = tmp_path / file_name("main", "..:0:512")
    assert ".." not in file.parts
    samples, rate = soundfile.read(file, dtype="int16")
    assert rate == 16_000
    assert (samples == SOUND).all()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


async def test_recordings_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        await FlacRecorder(Folder(tmp_path / "recordings")).record("main", "c:0:0", SOUND)
    finally:
        os.umask(before)
    root = tmp_path / "recordings"
    folders = [root, root / "main", root / "main/c-c"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


async def test_several_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    """Two processes share the directory, and a conversation went from one to the other."""
    recorders = [FlacRecorder(Folder(tmp_path)) for _ in range(8)]
    await asyncio.gather(*(recorder.record("main", "c:0:0", SOUND) for recorder in recorders))
    samples, _ = soundfile.read(tmp_path / file_name("main", "c:0:0"), dtype="int16")
    assert (samples == SOUND).all()
    assert [path.name for path in (tmp_path / "main/c-c").iterdir()] == ["0-0.flac"]


async def test_a_crash_in_the_middle_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there under its name is whole; what was begun is found by its name, and deleted after a while."""
    folder = Folder(tmp_path)
    killed = KeyboardInterrupt("as if it were the end of the process")

    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise killed

    with monkeypatch.context() as dying:
        dying.setattr(Path, "write_bytes", half)
        dying.setattr(Path, "unlink", lambda *_args, **_more: None)
        with pytest.raises(KeyboardInterrupt):
            folder._put(tmp_path / file_name("main", "c:0:0"), encoded(SOUND))
    [left] = (tmp_path / "main/c-c").iterdir()
    assert left.name.endswith(PART)
    await folder.purge(0)
    assert left.exists(), "somebody may be writing it just now"
    before = left.stat().st_mtime - module.PART_KEPT_S - 1
    os.utime(left, (before, before))
    await folder.purge(0)
    assert not left.exists()


async def test_old_conversations_are_deleted_and_younger_ones_kept(tmp_path: Path) -> None:
    recorder = FlacRecorder(Folder(tmp_path))
    await recorder.record("main", "old:0:0", SOUND)
    await recorder.record("main", "young:0:0", SOUND)
    old, young = (tmp_path / file_name("main", f"{name}:0:0") for name in ("old", "young"))
    os.utime(old.parent, (1, 1))
    await recorder.purge(young.parent.stat().st_mtime_ns)
    assert not old.exists()
    assert young.exists()


async def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "main").write_text("in the way")
    with pytest.raises(RecordingError, match="c:0:0"):
        await FlacRecorder(Folder(tmp_path)).record("main", "c:0:0", SOUND)


@pytest.mark.parametrize(
    ("url", "endpoint", "told"),
    [
        ("s3://", None, "recordings_url"),
        ("s3://bucket?x=1", None, "recordings_url"),
        ("gs://bucket/prefix", None, "recordings_url"),
        ("s3://bucket", "localhost:9000", "recordings_endpoint"),
    ],
)
def test_a_bucket_that_cannot_be_one_is_told(url: str, endpoint: str | None, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        shelf_of(Places(recordings=url, recordings_endpoint=endpoint), SystemClock())
