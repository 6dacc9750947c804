"""Words that corrections have taught: how much better they are heard, and what else changes.

`python -m benchmarks.learned_words [--sets real,radio,names] [--splits 10] [--json FILE]`. Recordings are split into
two halves by chance, over and over. Uncommon words that were misheard in one half are learned, the newest up to a size,
and the other half is heard with and without them. `own` learns what was misheard in the other half itself: no
learning can do better. Sets: `real` from QUICKCOMM_SPEECH_DATA as recorded, `real-radio` the same over a radio,
`radio` of benchmarks/radio_set, `names` of benchmarks/names_set (needs flite).
"""

import argparse
import json
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

import jiwer
import numpy as np
import soundfile
from platformdirs import user_cache_path
from scipy.signal import resample_poly
from tools.shift.radio import RATE, Channel, to_rms, transmit
from whisper_normalizer.english import EnglishTextNormalizer

from benchmarks import names_set
from benchmarks.radio_set import load_set
from benchmarks.radio_set.clips import STREAM_KINDS, clips, pcm
from quickcomm.audio.adapters.silero import Silero
from quickcomm.audio.adapters.whisper import Whisper, WhisperSettings
from quickcomm.audio.adapters.whisper_decoder import Decoded, Decoder, Prompt, Sound
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.ports import Clip, Samples, SttTraits, Transcript
from quickcomm.audio.service.offline import transcribe_offline
from quickcomm.kernel.model_files import ModelStore
from quickcomm.kernel.site_pack import load_pack

SIZES: Final = (5, 20, 50)
MOST_TOKENS: Final = 96
"""Of the word list, as the decoder cuts it."""
MOST_NEW: Final = 10
"""Words of one correction; a text that is new altogether corrects no word."""
SHORTEST: Final = 4
LONGEST: Final = 30
_WORD: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|['\u2019-](?=[^\W\d_]))*")
_POSSESSIVE: Final = re.compile(r"['\u2019]s$", re.IGNORECASE)
OWN: Final = 0
"""The size that stands for the misheard words of the half that is measured."""
SNRS: Final = (20.0, 8.0)
_NORMAL: Final = EnglishTextNormalizer()


@dataclass(frozen=True, slots=True)
class Recording:
    """A text, and its sound: one or several forms of it, each cut into the clips that the engine gets."""

    text: str
    forms: tuple[tuple[Samples, ...], ...]


@dataclass(slots=True, kw_only=True)
class Row:
    """Sums over all splits. `said`: learned words in the references of the other half; `heard`: those in its text."""

    set: str
    size: int
    halves: int = 0
    learned: int = 0
    expected: int = 0
    """Learned words that the prompt has room for: `said`, `heard`, `inserted` are of these."""
    said: int = 0
    heard_before: int = 0
    heard_after: int = 0
    reference: int = 0
    errors_before: int = 0
    errors_after: int = 0
    inserted_before: int = 0
    inserted_after: int = 0
    better: int = 0
    worse: int = 0
    examples: list[str] = field(default_factory=list)


class _Remembering(Decoder):
    """A decoder that keeps what it has decoded: only the word list differs from pass to pass."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, language="en", compute_type="int8", workers=1, threads=1)
        self._sounds: dict[tuple[bytes, float], Sound] = {}
        self._texts: dict[tuple[int, tuple[int, ...]], Decoded] = {}

    def encode(self, clips: Sequence[Samples], window: float) -> list[Sound]:
        found = []
        for clip in clips:
            key = (clip.tobytes(), window)
            if key not in self._sounds:
                [self._sounds[key]] = super().encode([clip], window)
            found.append(self._sounds[key])
        return found

    def decode(self, sounds: Sequence[Sound], prompt: Prompt) -> list[Decoded]:
        found = []
        for sound in sounds:
            key = (id(sound), prompt.tokens)  # kept in _sounds, so an id stays
            if key not in self._texts:
                [self._texts[key]] = super().decode([sound], prompt)
            found.append(self._texts[key])
        return found


class Engine(Whisper):
    """The product's engine, whose word list can be changed while it runs."""

    def __init__(self) -> None:
        vocabulary = load_pack().vocabulary
        settings = WhisperSettings(spoken_before=vocabulary.spoken_before, hotwords=vocabulary.hotwords)
        super().__init__(settings, ModelStore(cache=user_cache_path("quickcomm")))
        self._decoder = _Remembering(self.located.folder)
        self._pack = vocabulary.hotwords

    def teach(self, learned: Sequence[str]) -> list[str]:
        """Have the word list begin with learned words, as far as all of the pack has room. Return those it has."""
        chosen: list[str] = []
        for word in learned:
            if self.knows(word) or word.casefold() in map(str.casefold, self._pack):
                continue
            if len(self._list_of(*chosen, word).tokens) <= MOST_TOKENS:
                chosen.append(word)
        self._settings = replace(self._settings, hotwords=(*chosen, *self._pack))
        self._list = self._list_of(*chosen)
        return chosen

    def knows(self, word: str) -> bool:
        """Return True for a common word: the model's vocabulary has each of its parts in one piece."""
        parts = re.split("[-']", word)
        return all(1 in (len(self._decoder.tokens(part)), len(self._decoder.tokens(part.lower()))) for part in parts)

    def _list_of(self, *learned: str) -> Prompt:
        return self._decoder.prompt(f"{', '.join((*learned, *self._pack))}.")

    def hear(self, recording: Recording) -> list[str]:
        return [
            " ".join(self.transcribe([Clip(samples=clip, word_times=False)])[0].text for clip in form)
            for form in recording.forms
        ]


def new_words(heard: str, corrected: str) -> tuple[str, ...]:
    """Return words of the corrected text that the heard one has not, as they are written, in their order."""
    known = {word.casefold() for word in _words(heard)}
    new: dict[str, str] = {}
    for word in _words(corrected):
        if SHORTEST <= len(word) <= LONGEST and word.casefold() not in known:
            new.setdefault(word.casefold(), word)
    return tuple(new.values())[:MOST_NEW]


def _words(text: str) -> Iterator[str]:
    return (_POSSESSIVE.sub("", word) for word in _WORD.findall(text))


class _Cutter:
    """Takes what the front end cuts, in place of an engine."""

    traits = SttTraits(model="none")

    def __init__(self) -> None:
        self.cut: list[Samples] = []

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        self.cut += [clip.samples for clip in clips]
        return [Transcript(text="")] * len(clips)

    def close(self) -> None: ...


def front_end(samples: Samples) -> tuple[Samples, ...]:
    """Cut sound into utterances as the product does."""
    cutter = _Cutter()
    list(transcribe_offline(samples, cutter, Silero(), AudioSettings()))
    return tuple(cutter.cut)


def real(*, radio: bool) -> list[Recording]:
    folder = Path(os.environ["QUICKCOMM_SPEECH_DATA"])
    recordings = []
    for number, line in enumerate((folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()):
        entry = json.loads(line)
        sound, rate = soundfile.read(folder / entry["file"], always_2d=True)
        wave = np.asarray(resample_poly(sound.mean(axis=1), RATE, rate), dtype=np.float64)
        forms = [wave]
        if radio:
            rng = np.random.default_rng([number, 54])
            forms = [
                transmit(to_rms(wave, 0.1), Channel(snr=snr, hum_hz=60.0, room=0.06), snr, rng).samples for snr in SNRS
            ]
        silence = np.zeros(RATE)
        sounds = [pcm(np.concatenate([silence, form, silence])) for form in forms]
        text = entry["text"].lower() if entry["text"].isupper() else entry["text"]
        recordings.append(Recording(text, tuple(front_end(sound) for sound in sounds)))
    return recordings


def radio_set() -> list[Recording]:
    forms: dict[str, list[tuple[Samples, ...]]] = {sentence.text: [] for sentence in load_set().sentences}
    for half in ("tuning", "checking"):
        for clip in clips(half):
            cut = front_end(clip.samples) if clip.kind in STREAM_KINDS else (clip.samples,)
            forms[clip.sentence.text].append(cut)
    return [Recording(text, tuple(cut)) for text, cut in forms.items()]


def names() -> list[Recording]:
    if shutil.which("flite") is None:
        return []
    return [Recording(text, tuple((clip,) for clip in said)) for text, said in names_set.recordings()]


SETS: Final[Mapping[str, Callable[[], list[Recording]]]] = {
    "real": lambda: real(radio=False),
    "real-radio": lambda: real(radio=True),
    "radio": radio_set,
    "names": names,
}


@cache
def normal(text: str) -> tuple[str, ...]:
    return tuple(_NORMAL(text).split())


def misheard(heard: Iterable[tuple[Recording, Sequence[str]]]) -> list[str]:
    """Return the words that corrections of these recordings teach, the newest first."""
    found: dict[str, None] = {}
    for recording, texts in heard:
        for text in texts:
            for word in new_words(text, recording.text):
                found.pop(word, None)
                found[word] = None
    return list(found)[::-1]


@cache
def errors(text: str, heard: str) -> int:
    aligned = jiwer.process_words([" ".join(normal(text))], [" ".join(normal(heard))])
    return aligned.substitutions + aligned.deletions + aligned.insertions


def add(row: Row, recording: Recording, before: Sequence[str], after: Sequence[str], learned: Sequence[str]) -> None:
    known = {word: normal(word)[0] for word in learned if len(normal(word)) == 1}
    for first, second in zip(before, after, strict=True):
        said, one, two = Counter(normal(recording.text)), Counter(normal(first)), Counter(normal(second))
        for word in set(known.values()):
            row.said += said[word]
            row.heard_before += min(said[word], one[word])
            row.heard_after += min(said[word], two[word])
            row.inserted_before += max(0, one[word] - said[word])
            row.inserted_after += max(0, two[word] - said[word])
        row.reference += len(normal(recording.text))
        wrong, wrong_after = errors(recording.text, first), errors(recording.text, second)
        row.errors_before += wrong
        row.errors_after += wrong_after
        row.better += wrong_after < wrong
        row.worse += wrong_after > wrong
        if first != second and len(row.examples) < 8:
            row.examples.append(f"{recording.text} | {first} | {second}")


def measure(name: str, given: Sequence[Recording], engine: Engine, splits: int) -> Iterator[Row]:
    engine.teach(())
    plain = [engine.hear(recording) for recording in given]
    for size in (*SIZES, OWN):
        row = Row(set=name, size=size)
        for split in range(splits):
            places = list(range(len(given)))
            random.Random(split).shuffle(places)  # noqa: S311 - halves, no secrets
            halves = places[: len(places) // 2], places[len(places) // 2 :]
            for teaching, checking in (halves, halves[::-1]):
                teacher = checking if size == OWN else teaching
                taught = misheard((given[at], plain[at]) for at in teacher)
                learned = [word for word in taught if not engine.knows(word)][: size or max(SIZES)]
                expected = engine.teach(learned)
                row.halves += 1
                row.learned += len(learned)
                row.expected += len(expected)
                for at in checking:
                    add(row, given[at], plain[at], engine.hear(given[at]), expected)
        yield row


def describe(row: Row) -> str:
    size = "own" if row.size == OWN else str(row.size)
    learned = f"{row.learned / row.halves:.1f}/{row.expected / row.halves:.1f}"

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole:.2f}" if whole else "-"

    recall = f"{share(row.heard_before, row.said)} > {share(row.heard_after, row.said)}"
    wer = f"{share(row.errors_before, row.reference)} > {share(row.errors_after, row.reference)}"
    inserted = f"{row.inserted_before} > {row.inserted_after}"
    return (
        f"{row.set:11}{size:>4}{learned:>14}{row.said:>6}{recall:>17}{wer:>16}"
        f"{inserted:>12}{row.better:>7}{row.worse:>7}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--splits", type=int, default=10, help="each is measured in both directions")
    parser.add_argument("--wrong", action="store_true", help="also print texts that changed")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    options = parser.parse_args()
    chosen = options.sets.split(",")
    if any(name.startswith("real") for name in chosen) and "QUICKCOMM_SPEECH_DATA" not in os.environ:
        print("skipped: real speech; QUICKCOMM_SPEECH_DATA names no folder of it", file=sys.stderr)
        chosen = [name for name in chosen if not name.startswith("real")]
    print(
        f"{'set':11}{'size':>4}{'learned/used':>14}{'said':>6}{'recall %':>17}{'WER %':>16}"
        f"{'inserted':>12}{'better':>7}{'worse':>7}"
    )
    rows: list[Row] = []
    for name in chosen:
        given = SETS[name]()
        if not given:
            print(f"skipped: {name}; flite is missing (on Debian: apt-get install flite)", file=sys.stderr)
            continue
        engine = Engine()
        for row in measure(name, given, engine, options.splits):
            rows.append(row)
            print(describe(row), flush=True)
            if options.wrong:
                print(*(f"    {example}" for example in row.examples), sep="\n")
        engine.close()
    text = json.dumps([{key: value for key, value in asdict(row).items() if key != "examples"} for row in rows])
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
