"""Recordings: a FLAC an utterance, the same however often it is written, gone when it is old."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from quickcomm.audio.adapters.recorder import FlacRecorder
from quickcomm.audio.ports import RecordingError

SOUND = (np.sin(np.arange(16_000) / 9) * 9_000).astype(np.int16)


async def test_what_was_said_is_kept_to_the_sample(tmp_path: Path) -> None:
    recorder = FlacRecorder(tmp_path)
    for _ in range(2):
        await recorder.record("main", "..:0:512", SOUND)
    file = recorder.path("main", "..:0:512")
    assert ".." not in file.parts
    samples, rate = soundfile.read(file, dtype="int16")
    assert rate == 16_000
    assert (samples == SOUND).all()


async def test_old_conversations_are_deleted_and_younger_ones_kept(tmp_path: Path) -> None:
    recorder = FlacRecorder(tmp_path)
    await recorder.record("main", "old:0:0", SOUND)
    await recorder.record("main", "young:0:0", SOUND)
    young = recorder.path("main", "young:0:0").parent.stat().st_mtime_ns
    await recorder.purge(young)
    assert not recorder.path("main", "old:0:0").exists()
    assert recorder.path("main", "young:0:0").exists()


async def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "main").write_text("in the way")
    with pytest.raises(RecordingError, match="c:0:0"):
        await FlacRecorder(tmp_path).record("main", "c:0:0", SOUND)
