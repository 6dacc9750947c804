"""Sound files that are cut short, lie in their headers or are none: read as far as they go, or refused."""

import io
import struct
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.edges import tried
from tests.support.examples import examples

from quickcomm.cli.offline import _read
from quickcomm.client.errors import SourceError
from quickcomm.client.files import FileSource, _pieces
from quickcomm.contracts.audio_socket import SAMPLE_RATES
from quickcomm.kernel.errors import InvalidInputError

SAMPLES = 4_000
SOUND = np.random.default_rng(1).normal(0, 3_000, SAMPLES).astype(np.int16)
HEADER = 120
SCRATCH = tempfile.TemporaryDirectory(prefix="quickcomm-files-")


def wav(rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(SOUND.tobytes())
    return buffer.getvalue()


def flac() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUND, 16_000, format="FLAC")
    return buffer.getvalue()


def changed(original: bytes) -> st.SearchStrategy[bytes]:
    """Its header written over somewhere, or cut off anywhere."""
    overwritten = st.builds(
        lambda at, other: original[:at] + other + original[at + len(other) :],
        st.integers(0, HEADER),
        st.binary(min_size=1, max_size=8),
    )
    return overwritten | st.integers(0, len(original)).map(lambda end: original[:end])


def patched(at: int, value: bytes) -> bytes:
    return wav()[:at] + value + wav()[at + len(value) :]


def tagged() -> bytes:
    """A title in Latin-1, as old recorders write it."""
    title = b"INFOINAM" + struct.pack("<I", 4) + b"K\xfcch"
    sound = wav()
    whole = sound[12:] + b"LIST" + struct.pack("<I", len(title)) + title
    return b"RIFF" + struct.pack("<I", len(whole) + 4) + b"WAVE" + whole


def written(content: bytes) -> Path:
    path = Path(SCRATCH.name) / "sound"
    path.write_bytes(content)
    return path


@examples(150)
@given(st.sampled_from([wav(), flac()]).flatmap(changed) | st.binary(max_size=300))
@example(patched(24, struct.pack("<I", 0)))
@example(patched(24, struct.pack("<I", 2**32 - 1)))
@example(patched(22, struct.pack("<H", 0)))
@example(patched(22, struct.pack("<H", 65_535)))
@example(patched(34, struct.pack("<H", 0)))
@example(patched(40, struct.pack("<I", 2**32 - 1)))
@example(tagged())
def test_a_file_is_read_as_far_as_it_goes_or_refused(content: bytes) -> None:
    path = written(content)
    _, refused = tried(lambda: heard(path), SourceError)
    assert refused is None or str(path) in str(refused)
    samples, refusal = tried(lambda: _read(path), InvalidInputError)
    assert refusal is None or str(path) in str(refusal)
    assert samples is None or samples.dtype == np.int16


def heard(path: Path) -> None:
    source = FileSource(path)
    assert source.format.sample_rate in SAMPLE_RATES
    assert all(len(piece) % source.format.block_bytes == 0 for piece in _pieces(path, source.format))


@pytest.mark.parametrize("content", [wav(), flac(), tagged()], ids=["WAV", "FLAC", "tagged"])
def test_what_is_right_is_read_whole(content: bytes) -> None:
    path = written(content)
    assert b"".join(_pieces(path, FileSource(path).format)) == SOUND.tobytes()
    assert (_read(path) == SOUND).all()
