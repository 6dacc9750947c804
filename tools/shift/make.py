"""Rebuilds the demo shift: `python -m tools.shift.make`. Writes one FLAC a channel and shift.json into the package."""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile

from quickcomm.demo_shift import ExpectedInsight, Shift, ShiftChannel, ShiftUtterance
from tools.shift.radio import RATE, Channel, Wave, tighten, transmit
from tools.shift.voices import Speaker, Spoken, speak

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "src" / "quickcomm" / "demo_shift"
MIN_GAP_S = 1.2
SEED = 412
LICENCE = "CC0-1.0 (words, recording and labels)"
ATTRIBUTION = (
    "Voices slt, rms and awb: CMU Flite / CMU ARCTIC, Carnegie Mellon University, permissive BSD-like licence",
    "Voice joe (en_US-joe-medium, Piper): model card states CC0",
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    channel: str
    at: float
    speaker: str
    text: str
    insights: tuple[ExpectedInsight, ...]
    say: str = ""
    snr: float = 0.0
    noisy: bool = False


class Script(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    duration_s: float
    speakers: dict[str, Speaker]
    channels: dict[str, Channel]
    line: tuple[Line, ...]


def read_script() -> Script:
    raw: dict[str, Any] = tomllib.loads((HERE / "script.toml").read_text())
    return msgspec.convert(raw, Script)


def lay(script: Script, name: str, speech: dict[Line, Wave]) -> tuple[Wave, tuple[ShiftUtterance, ...]]:
    """Put a channel's transmissions at their times, silence between them, as a squelched receiver gives it."""
    channel = script.channels[name]
    track = np.zeros(int(script.duration_s * RATE))
    utterances: list[ShiftUtterance] = []
    for line in sorted((one for one in script.line if one.channel == name), key=lambda one: one.at):
        rng = np.random.default_rng([SEED, script.line.index(line)])
        sent = transmit(speech[line], channel, line.snr or channel.snr, rng)
        start = int(line.at * RATE)
        end = start + sent.samples.size - sent.lead - sent.hang
        if utterances and start / RATE - utterances[-1].end_s < MIN_GAP_S:
            raise SystemExit(f"Less than {MIN_GAP_S} s before: {line.text}")
        begin = start - sent.lead
        track[begin : begin + sent.samples.size] += sent.samples
        utterances.append(
            ShiftUtterance(
                start_s=round(start / RATE, 3),
                end_s=round(end / RATE, 3),
                voice=script.speakers[line.speaker].voice,
                speaker_name=line.speaker,
                text=line.text,
                insights=line.insights,
                noisy=line.noisy,
            )
        )
    return track, tuple(utterances)


def build(environment: Path, out: Path) -> None:
    script = read_script()
    spoken = [Spoken(speaker=script.speakers[line.speaker], say=line.say or line.text) for line in script.line]
    clean = [tighten(wave) for wave in speak(spoken, environment)]
    speech = dict(zip(script.line, clean, strict=True))
    channels = []
    out.mkdir(parents=True, exist_ok=True)
    for name in script.channels:
        track, utterances = lay(script, name, speech)
        file = f"{name}.flac"
        pcm = np.round(np.clip(track, -1.0, 1.0) * 32767.0).astype(np.int16)
        soundfile.write(out / file, pcm, RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)
        channels.append(ShiftChannel(channel=name, file=file, utterances=utterances))
        sys.stdout.write(f"{name}: {len(utterances)} utterances, {(out / file).stat().st_size:,} bytes\n")
    shift = Shift(
        title=script.title,
        duration_s=script.duration_s,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        channels=tuple(channels),
    )
    (out / "shift.json").write_bytes(msgspec.json.format(msgspec.json.encode(shift), indent=1) + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--piper-env", type=Path, default=HERE / ".venv", help="throw-away environment for Piper")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    build(options.piper_env, options.out)


if __name__ == "__main__":
    main()
