"""The limit: decoding alone, no server. How many continuous talkers two cores could hear if all else cost nothing.

`python -m benchmarks.raw_engine [--talkers N] [--seconds S]`. Decodes what the load generator's talkers say
(QUICKCOMM_SPEECH_DATA) with the project's own engine, batches of like length, two threads that call it. An
utterance is a recording. "Continuous talkers" = 2 cores / CPU per second of stream, pauses between recordings included.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final

from platformdirs import user_cache_path

from benchmarks.pieces import Piece, pieces, speech_seconds, stream_seconds
from benchmarks.stt import wer
from benchmarks.talkers import Talk, speech_folder, talk
from quickcomm.audio.adapters.whisper import Whisper, WhisperSettings
from quickcomm.audio.ports import Clip, Transcript
from quickcomm.kernel.model_files import ModelStore
from quickcomm.kernel.site_pack import Vocabulary, load_pack

CORES: Final = 2
BATCHES: Final = (1, 2, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawResult:
    """`cpu`: CPU seconds a second of stream, pauses included; `cpu_speech`: a second of speech. `wer` in percent.

    `hotwords`: with the site pack's sentence and list.
    """

    hotwords: bool
    word_times: bool
    batch: int
    wer: float
    cpu_speech: float
    cpu: float
    talkers: float
    """What the cores have room for by their CPU time."""
    wall_talkers: float
    """What they had room for while this ran; less where the machine had other work."""


def measure(talks: Sequence[Talk], *, hotwords: bool, word_times: bool, batch: int) -> RawResult:
    store = ModelStore(cache=user_cache_path("quickcomm"))
    vocabulary = load_pack().vocabulary if hotwords else Vocabulary()
    settings = WhisperSettings(
        spoken_before=vocabulary.spoken_before, hotwords=vocabulary.hotwords, workers=2, threads_per_worker=1
    )
    engine = Whisper(settings, store)
    spoken = sorted(pieces(talks), key=lambda one: len(one.samples))
    groups = [spoken[at : at + batch] for at in range(0, len(spoken), batch)]

    def decode(group: Sequence[Piece]) -> list[Transcript]:
        return engine.transcribe([Clip(samples=one.samples, word_times=word_times) for one in group])

    try:
        decode(groups[0])  # its memory is taken
        with ThreadPoolExecutor(2) as callers:
            cpu, wall = time.process_time(), time.perf_counter()
            found = [transcript.text for group in callers.map(decode, groups) for transcript in group]
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        engine.close()
    texts: dict[int, str] = {}
    for piece, text in sorted(zip(spoken, found, strict=True), key=lambda pair: (pair[0].recording, pair[0].start)):
        texts[piece.recording] = f"{texts.get(piece.recording, '')} {text}"
    references = [text for one in talks for _, _, text in one.said]
    stream = stream_seconds(talks)
    return RawResult(
        hotwords=hotwords,
        word_times=word_times,
        batch=batch,
        wer=round(wer(references, [texts[number] for number in range(len(references))]), 2),
        cpu_speech=round(cpu / speech_seconds(talks), 4),
        cpu=round(cpu / stream, 4),
        talkers=round(CORES * stream / cpu, 1),
        wall_talkers=round(stream / wall, 1),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talkers", type=int, default=4, help="streams to decode")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each stream")
    arguments = parser.parse_args()
    speech_folder()
    talks = [talk(number, arguments.seconds) for number in range(arguments.talkers)]
    speech, stream = speech_seconds(talks), stream_seconds(talks)
    print(
        f"{arguments.talkers} streams, {stream:.0f} s, of them {speech:.0f} s of speech; load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'hotwords':>8}{'times':>7}{'batch':>7}{'WER %':>7}{'CPU / speech':>14}{'CPU / stream':>14}{'talkers':>9}")
    rows = []
    for hotwords, word_times in ((True, True), (True, False), (False, True), (False, False)):
        for batch in BATCHES:
            row = measure(talks, hotwords=hotwords, word_times=word_times, batch=batch)
            rows.append(row)
            marks = f"{'yes' if row.hotwords else 'no':>8}{'yes' if row.word_times else 'no':>7}{row.batch:>7}"
            print(f"{marks}{row.wer:>7.2f}{row.cpu_speech:>14.4f}{row.cpu:>14.4f}{row.talkers:>9.0f}", flush=True)
    print(json.dumps([asdict(row) for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
