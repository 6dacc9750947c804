"""Rebuilds the radio set: `python -m tools.radio_set.make`. Writes one Opus file and labels.json into the benchmarks.

Machines mispronounce. So two models without any prompt (Whisper tiny.en and base, see docs/models.md) listen to each
clean recording. Where both mishear it, the next speaker of the half says the line; a line that no speaker gets across
is left out.
"""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import soundfile
from benchmarks.radio_set import FOLDER, Half, RadioSet, Sentence
from benchmarks.radio_set.clips import pcm
from platformdirs import user_cache_path

from quickcomm.audio.adapters.whisper import Whisper, WhisperSettings
from quickcomm.audio.ports import Clip
from quickcomm.demo_shift.score import word_edits
from quickcomm.kernel.model_files import ModelStore
from tools.shift.radio import RATE, Wave, tighten, to_rms
from tools.shift.voices import Speaker, Spoken, speak

HERE = Path(__file__).parent
GAP_S = 0.3
"""Nothing between two sentences of the file."""
SPEECH_RMS = 0.1
TURNS = 4
LICENCE = "CC0-1.0 (words, recording and labels)"
ATTRIBUTION = (
    "Voices slt, rms and awb: CMU Flite / CMU ARCTIC, Carnegie Mellon University, permissive BSD-like licence",
    "Voice joe (en_US-joe-medium, Piper): model card states CC0",
)


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str
    say: str = ""
    rooms: tuple[str, ...] = ()


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sentences of one half; its speakers take turns."""

    speakers: tuple[Speaker, ...]
    lines: tuple[Line, ...]


@dataclass(slots=True)
class Take:
    """The best recording of a line so far."""

    half: Half
    line: Line
    speakers: tuple[Speaker, ...]
    errors: int = 1_000
    wave: Wave = field(default_factory=lambda: np.zeros(0))
    speaker: Speaker | None = None

    def offer(self, speaker: Speaker, wave: Wave, listeners: Sequence[Whisper]) -> None:
        clip = Clip(samples=pcm(np.pad(wave, (RATE // 4, RATE // 2))), word_times=False)
        for listener in listeners:
            [heard] = listener.transcribe([clip])
            errors = word_edits(self.line.text, heard.text)[0]
            if errors < self.errors:
                self.errors, self.wave, self.speaker = errors, wave, speaker
            if not errors:
                return


def record(script: dict[Half, Part], environment: Path) -> list[Take]:
    store = ModelStore(cache=user_cache_path("quickcomm"))
    listeners = [Whisper(WhisperSettings(model=model), store) for model in ("tiny.en", "base")]
    takes = [
        Take(half, line, tuple(part.speakers[(number + turn) % len(part.speakers)] for turn in range(TURNS)))
        for half, part in script.items()
        for number, line in enumerate(part.lines)
    ]
    for turn in range(TURNS):
        wanted = [take for take in takes if take.errors]
        lines = [Spoken(speaker=take.speakers[turn], say=take.line.say or take.line.text) for take in wanted]
        for take, wave in zip(wanted, speak(lines, environment), strict=True):
            take.offer(take.speakers[turn], to_rms(tighten(wave), SPEECH_RMS), listeners)
        sys.stdout.write(f"turn {turn + 1}: {sum(take.errors > 0 for take in takes)} lines are still misheard\n")
        sys.stdout.flush()
    for take in takes:
        if take.errors:
            sys.stdout.write(f"left out: {take.line.text}\n")
    return [take for take in takes if not take.errors]


def build(environment: Path, out: Path) -> None:
    raw = tomllib.loads((HERE / "script.toml").read_text())
    pieces: list[Wave] = []
    sentences: list[Sentence] = []
    gap, at = np.zeros(int(GAP_S * RATE)), 0
    for take in record(msgspec.convert(raw, dict[Half, Part]), environment):
        start = at + gap.size
        at = start + take.wave.size
        pieces += [gap, take.wave]
        voice = take.speaker.voice if take.speaker else ""
        sentences.append(
            Sentence(text=take.line.text, rooms=take.line.rooms, half=take.half, voice=voice, start=start, end=at)
        )
    out.mkdir(parents=True, exist_ok=True)
    sound = np.clip(np.concatenate([*pieces, gap]), -1.0, 1.0)
    soundfile.write(out / "clean.opus", sound, RATE, format="OGG", subtype="OPUS", compression_level=0.87)
    labels = RadioSet(licence=LICENCE, attribution=ATTRIBUTION, sentences=tuple(sentences))
    (out / "labels.json").write_bytes(msgspec.json.format(msgspec.json.encode(labels), indent=1) + b"\n")
    size = (out / "clean.opus").stat().st_size
    sys.stdout.write(f"{len(sentences)} sentences, {sound.size / RATE:.0f} s, {size:,} bytes\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--piper-env", type=Path, default=HERE.parent / "shift" / ".venv", help="environment for Piper")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    build(options.piper_env, options.out)


if __name__ == "__main__":
    main()
