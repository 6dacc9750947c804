"""Radio talk heard by the engine: word errors, lost first words, room numbers, CPU, by kind of clip.

`python -m benchmarks.radio [--half tuning|checking|both] [--plain] [--wrong] [--json FILE]`. The clips are derived from
benchmarks/radio_set: starts (+-128 ms), 8 kHz mu-law, noise, and tones and hard cuts that go through the front end.
`--plain`: without the pack's sentence and word list. Settings are chosen on the tuning half only.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import jiwer
from platformdirs import user_cache_path

from benchmarks.radio_set import Half
from benchmarks.radio_set.clips import STREAM_KINDS, RadioClip, clips
from quickcomm.audio.adapters.silero import Silero
from quickcomm.audio.adapters.whisper import Whisper, WhisperSettings
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.ports import Clip, SpeechToText
from quickcomm.audio.service.offline import transcribe_offline
from quickcomm.demo_shift.score import edit_distance, words_of
from quickcomm.kernel.model_files import ModelStore
from quickcomm.kernel.site_pack import load_pack

_ROOM: Final = re.compile(r"(?<![\d.,:-])\d{3,4}(?![.,:-]?\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioScore:
    """`wer` in percent; `lost`: clips whose first word is missing; `rooms`: numbers heard of `expected`."""

    kind: str
    clips: int
    words: int
    errors: int
    wer: float
    lost: int
    rooms: int
    expected: int
    invented: int
    """Room numbers that were not said."""


def first_word_lost(expected: str, heard: str) -> bool:
    """Return True if the first word has no counterpart, not even a misheard one."""
    reference, found = words_of(expected), words_of(heard)
    if not found:
        return True

    aligned = jiwer.process_words([" ".join(reference)], [" ".join(found)]).alignments[0]
    return bool(aligned[0].type == "delete")


def score(kind: str, heard: Iterable[tuple[RadioClip, str]]) -> RadioScore:
    pairs = list(heard)
    errors = words = lost = rooms = expected = invented = 0
    for clip, text in pairs:
        said = words_of(clip.sentence.text)
        errors += edit_distance(said, words_of(text))
        words += len(said)
        lost += first_word_lost(clip.sentence.text, text)
        found, right = set(_ROOM.findall(text)), set(clip.sentence.rooms)
        rooms += len(found & right)
        expected += len(right)
        invented += len(found - right)
    return RadioScore(
        kind=kind,
        clips=len(pairs),
        words=words,
        errors=errors,
        wer=round(100 * errors / max(1, words), 2),
        lost=lost,
        rooms=rooms,
        expected=expected,
        invented=invented,
    )


def listen(engine: SpeechToText, given: Sequence[RadioClip]) -> list[tuple[RadioClip, str]]:
    """Hear each clip; those that are sound of a line are cut by the front end first."""
    vad, settings = Silero(), AudioSettings()
    heard: list[tuple[RadioClip, str]] = []
    for clip in given:
        if clip.kind in STREAM_KINDS:
            texts = [one.text for _, _, one in transcribe_offline(clip.samples, engine, vad, settings)]
        else:
            texts = [one.text for one in engine.transcribe([Clip(samples=clip.samples)])]
        heard.append((clip, " ".join(texts)))
    return heard


def engine_of_pack(*, plain: bool = False) -> Whisper:
    words = load_pack().vocabulary
    before, hotwords = ("", ()) if plain else (words.spoken_before, words.hotwords)
    store = ModelStore(cache=user_cache_path("quickcomm"))
    return Whisper(WhisperSettings(spoken_before=before, hotwords=hotwords), store)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=["tuning", "checking", "both"], default="both")
    parser.add_argument("--plain", action="store_true", help="without the site pack's sentence and words")
    parser.add_argument("--wrong", action="store_true", help="also print what was heard wrong")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    options = parser.parse_args()
    halves: list[Half] = ["tuning", "checking"] if options.half == "both" else [options.half]
    given = [clip for half in halves for clip in clips(half)]
    engine = engine_of_pack(plain=options.plain)
    cpu = time.process_time()
    heard = listen(engine, given)
    cpu = time.process_time() - cpu
    engine.close()
    kinds = list(dict.fromkeys(clip.kind for clip in given))
    rows = [score(kind, [pair for pair in heard if pair[0].kind == kind]) for kind in kinds] + [score("all", heard)]
    if options.wrong:
        for clip, text in heard:
            if words_of(clip.sentence.text) != words_of(text):
                print(f"{clip.kind:9}{clip.sentence.voice:6}{clip.sentence.text} | {text}")
    print(f"{'kind':10}{'clips':>6}{'WER %':>7}{'first word lost':>17}{'rooms':>10}{'invented':>10}")
    for row in rows:
        rooms = f"{row.rooms}/{row.expected}"
        print(f"{row.kind:10}{row.clips:>6}{row.wer:>7.2f}{row.lost:>17}{rooms:>10}{row.invented:>10}")
    seconds = sum(len(clip.samples) for clip in given) / 16_000
    print(f"{cpu:.1f} s of CPU for {seconds:.0f} s of sound")
    text = json.dumps({"half": options.half, "plain": options.plain, "rows": [asdict(row) for row in rows]})
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
