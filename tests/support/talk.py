"""Real speech for tests: named by QUICKCOMM_SPEECH_DATA, or else the shift that comes with the package."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Final, cast

import av
import msgspec
import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]
RATE: Final = 16_000
_CLIPS: Final = (
    "ljspeech-LJ001-0002.wav",
    "librispeech-1089-134691-0000.flac",
    "librispeech-1089-134686-0001.flac",
    "ljspeech-LJ001-0008.wav",
)
_SHIFT_S: Final = 33
SHIFT: Final = Path(__file__).parents[2] / "src/quickcomm/demo_shift"


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """int16[n], 16 kHz mono; `words` is what is said in it, `utterances` how often somebody speaks at least."""

    pcm: Pcm
    words: str
    utterances: int

    @property
    def samples(self) -> int:
        return len(self.pcm)

    @property
    def wire(self) -> bytes:
        return self.pcm.tobytes()


@cache
def talk() -> Talk:
    """About a quarter of a minute: several utterances with pauses between them."""
    folder = os.environ.get("QUICKCOMM_SPEECH_DATA")
    return _from_clips(Path(folder)) if folder else _from_shift()


@cache
def shift_talk() -> Talk:
    """The beginning of the sample shift, in which somebody asks for something."""
    return _from_shift()


def _from_clips(folder: Path) -> Talk:
    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    words = {entry["file"]: entry["text"] for entry in manifest}
    pieces = [_pause(0.8)]
    for name in _CLIPS:
        pieces += [decoded(folder / name), _pause(1.5)]
    return Talk(pcm=np.concatenate(pieces), words=" ".join(words[name] for name in _CLIPS), utterances=len(_CLIPS))


def _from_shift() -> Talk:
    shift = json.loads((SHIFT / "shift.json").read_text())
    channel = shift["channels"][0]
    said = [each for each in channel["utterances"] if each["end_s"] < _SHIFT_S - 1]
    pcm = decoded(SHIFT / channel["file"])[: _SHIFT_S * RATE]
    return Talk(pcm=pcm, words=" ".join(each["text"] for each in said), utterances=len(said))


def _pause(seconds: float) -> Pcm:
    """A quiet room: never quite digital silence, and always the same."""
    noise = np.random.default_rng(7).normal(0, 12, int(seconds * RATE))
    return noise.astype(np.int16)


def decoded(path: Path, rate: int = RATE) -> Pcm:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    with av.open(str(path)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)


def at_rate(pcm: Pcm, rate: int) -> Pcm:
    """The same sound at another sample rate."""
    if rate == RATE:
        return pcm
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    parts = [*resampler.resample(_frame(pcm, RATE)), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray().reshape(-1) for part in parts]).astype(np.int16)


def g711(pcm: Pcm, law: str, rate: int = 8_000) -> bytes:
    """ITU-T G.711 by FFmpeg's encoder: not the decoder under test turned round."""
    codec = cast("av.AudioCodecContext", av.CodecContext.create(f"pcm_{law}", "w"))
    codec.sample_rate, codec.layout, codec.format = rate, "mono", "s16"
    packets = [*codec.encode(_frame(pcm, rate)), *codec.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def _frame(pcm: Pcm, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm).reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate
    return frame
