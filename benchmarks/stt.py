"""Speech-to-text: word error rate and CPU of our decoding against stock faster-whisper with the same model.

`python -m benchmarks.stt [--model tiny.en] [--json FILE]`. Reads real speech from QUICKCOMM_SPEECH_DATA.
Beside the recordings themselves it joins neighbours of one speaker to utterances of up to 27 s, because long and
short ones fail differently. CPU is process time per second of speech; a busy machine inflates it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
import numpy as np
import numpy.typing as npt
import soundfile
from faster_whisper import WhisperModel
from platformdirs import user_cache_path
from scipy.signal import resample_poly
from whisper_normalizer.english import EnglishTextNormalizer

from quickcomm.audio.adapters.whisper import Whisper, WhisperSettings
from quickcomm.audio.ports import Clip, Samples
from quickcomm.kernel.model_files import ModelStore

RATE = 16_000
LONGEST = 27.0
BEFORE = "Hotel radio. Room 907, go ahead."
HOTWORDS = (
    *("Housekeeping", "engineering", "front desk", "towels", "412", "1107"),
    *("minibar", "turndown", "valet", "concierge"),
)


@dataclass(frozen=True, slots=True)
class Utterance:
    samples: Samples
    text: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `wer` in percent; `cpu`: CPU seconds per second of speech."""

    engine: str
    hotwords: bool
    batch: int
    utterances: int
    wer: float
    cpu: float


def load(folder: Path) -> list[Utterance]:
    """Read recordings that fit, and joined neighbours of one source."""
    single: list[tuple[str, Utterance]] = []
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        sound, rate = soundfile.read(folder / entry["file"], always_2d=True)
        wave = resample_poly(sound.mean(axis=1), RATE, rate)
        samples: Samples = np.clip(wave * 32767, -32768, 32767).astype(np.int16)
        if len(samples) <= LONGEST * RATE:
            single.append((entry["file"].split("-")[0], Utterance(samples, entry["text"])))
    joined: list[Utterance] = []
    for at, (source, first) in enumerate(single):
        together = first
        for other, following in single[at + 1 :]:
            if other != source or together.seconds + following.seconds > LONGEST:
                break
            gap = np.zeros(RATE // 4, dtype=np.int16)
            pieces = [together.samples, gap, following.samples]
            together = Utterance(np.concatenate(pieces), f"{together.text} {following.text}")
        if together is not first:
            joined.append(together)
    return [utterance for _, utterance in single] + joined


def wer(references: Sequence[str], texts: Sequence[str]) -> float:
    normalise = EnglishTextNormalizer()
    return 100 * float(jiwer.wer([normalise(text) for text in references], [normalise(text) for text in texts]))


def timed(run: Callable[[], list[str]]) -> tuple[list[str], float]:
    start = time.process_time()
    texts = run()
    return texts, time.process_time() - start


def ours(engine: Whisper, utterances: Sequence[Utterance], batch: int) -> list[str]:
    """Transcribe in batches of like length, as the caller does; texts in the order given."""
    order = sorted(range(len(utterances)), key=lambda at: utterances[at].seconds)
    texts = [""] * len(utterances)
    for first in range(0, len(order), batch):
        group = order[first : first + batch]
        clips = [Clip(samples=utterances[at].samples, word_times=False) for at in group]
        for at, transcript in zip(group, engine.transcribe(clips), strict=True):
            texts[at] = transcript.text
    return texts


def stock(model: WhisperModel, utterances: Sequence[Utterance], hotwords: str | None) -> list[str]:
    def text(samples: Samples) -> str:
        wave: npt.NDArray[np.float32] = samples.astype(np.float32) / np.float32(32768)
        segments, _ = model.transcribe(wave, language="en", beam_size=1, hotwords=hotwords)
        return "".join(segment.text for segment in segments)

    return [text(utterance.samples) for utterance in utterances]


def measure(model: str, utterances: Sequence[Utterance]) -> list[Row]:
    store = ModelStore(cache=user_cache_path("quickcomm"))
    references = [utterance.text for utterance in utterances]
    seconds = sum(utterance.seconds for utterance in utterances)
    rows: list[Row] = []

    def add(engine: str, batch: int, run: Callable[[], list[str]], *, hot: bool) -> None:
        run_texts, cpu = timed(run)
        rate = wer(references, run_texts)
        row = Row(engine=engine, hotwords=hot, batch=batch, utterances=len(utterances), wer=rate, cpu=cpu / seconds)
        rows.append(row)

    for hot in (False, True):
        before, listed = (BEFORE, HOTWORDS) if hot else ("", ())
        engine = Whisper(WhisperSettings(model=model, spoken_before=before, hotwords=listed), store)
        for batch in (1, 2, 4):
            add("quickcomm", batch, lambda e=engine, b=batch: ours(e, utterances, b), hot=hot)  # type: ignore[misc]
        folder = str(engine.located.folder)
        engine.close()
        plain = WhisperModel(folder, compute_type="int8", cpu_threads=1)
        words = ", ".join(HOTWORDS) if hot else None
        add("faster-whisper 30 s", 1, lambda p=plain, w=words: stock(p, utterances, w), hot=hot)  # type: ignore[misc]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    folder = os.environ.get("QUICKCOMM_SPEECH_DATA")
    if folder is None:
        print("skipped: QUICKCOMM_SPEECH_DATA names no folder of real speech", file=sys.stderr)
        return 2
    utterances = load(Path(folder))
    rows = measure(arguments.model, utterances)
    print(f"{arguments.model}, {len(utterances)} utterances, {sum(u.seconds for u in utterances):.0f} s of speech")
    print(f"{'engine':22}{'hotwords':>9}{'batch':>7}{'WER %':>8}{'CPU s / speech s':>19}")
    for row in rows:
        print(f"{row.engine:22}{'yes' if row.hotwords else 'no':>9}{row.batch:>7}{row.wer:>8.2f}{row.cpu:>19.4f}")
    text = json.dumps([asdict(row) for row in rows])
    print(text)
    if arguments.json:
        arguments.json.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
