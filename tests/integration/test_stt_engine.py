"""The engine on the real weights: silence, noise, limits, threads; and on real speech, where there is some."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jiwer
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from scipy.signal import resample_poly
from tests.support.talk import shift_talk

from quickcomm.audio.adapters.engines import ENGINES, engine_class
from quickcomm.audio.adapters.whisper import Whisper, WhisperSettings
from quickcomm.audio.adapters.whisper_guards import normal
from quickcomm.audio.ports import Clip, ClipTooLongError, Effort, EngineError, Samples
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.model_files import ModelStore

RATE = 16_000
SPEECH = os.environ.get("QUICKCOMM_SPEECH_DATA")
BEFORE = "Hotel radio. Room 907, go ahead."
HOTWORDS = (
    *("Housekeeping", "engineering", "front desk", "towels", "412", "1107"),
    *("minibar", "turndown", "valet", "concierge"),
)
needs_speech = [
    pytest.mark.speech,
    pytest.mark.skipif(SPEECH is None, reason="skipped: QUICKCOMM_SPEECH_DATA names no folder of real speech"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(cache=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(store: ModelStore) -> Iterator[Whisper]:
    whisper = Whisper(WhisperSettings(spoken_before=BEFORE, hotwords=HOTWORDS), store)
    yield whisper
    whisper.close()


def pcm(sound: npt.NDArray[np.float64]) -> Samples:
    return np.clip(sound * 32767, -32768, 32767).astype(np.int16)


def sounds() -> dict[str, Samples]:
    """What a radio hears when nobody speaks, three seconds of each."""
    rng = np.random.default_rng(7)
    count = 3 * RATE
    time = np.arange(count) / RATE
    white = rng.normal(size=count)
    brown = np.cumsum(white)
    pink = brown - np.convolve(brown, np.ones(800) / 800, "same")
    clicks = np.zeros(count)
    clicks[[3000, 3001, 20000, 20001, 40000]] = 0.8
    chord = sum((np.sin(2 * np.pi * tone * time) for tone in (262, 330, 392)), np.zeros(count))
    return {
        "digital silence": pcm(np.zeros(count)),
        "nothing": np.zeros(0, dtype=np.int16),
        "one sample": np.ones(1, dtype=np.int16),
        "loud white noise": pcm(0.1 * white),
        "soft white noise": pcm(0.002 * white),
        "pink noise": pcm(0.3 * pink / np.abs(pink).max()),
        "mains hum": pcm(0.2 * np.sin(2 * np.pi * 50 * time) + 0.1 * np.sin(2 * np.pi * 100 * time)),
        "room tone": pcm(0.0005 * white + 0.001 * np.sin(2 * np.pi * 60 * time)),
        "radio static": pcm(0.3 * white * (rng.random(count) > 0.7)),
        "squelch clicks": pcm(clicks),
        "chord": pcm(0.1 * chord * np.exp(-3 * ((2 * time) % 1))),
        "beep": pcm(0.3 * np.sin(2 * np.pi * 1000 * time) * (time < 0.5)),
        "squelch tail": pcm(0.05 * white[: RATE // 4]),
    }


@pytest.mark.parametrize("name", sounds())
def test_nobody_speaks_and_nothing_is_written(engine: Whisper, name: str) -> None:
    transcript = engine.transcribe([Clip(samples=sounds()[name])])[0]
    assert (transcript.text, transcript.words) == ("", ())


def test_a_clip_that_does_not_fit_is_refused(engine: Whisper) -> None:
    too_long = Clip(samples=np.zeros(int(28.1 * RATE), dtype=np.int16))
    with pytest.raises(ClipTooLongError, match="28"):
        engine.transcribe([too_long])


def test_a_clip_reads_the_same_in_any_company(engine: Whisper) -> None:
    """What a restart or a busy minute brings together in a batch must not change what was said."""
    sound = shift_talk().pcm
    cuts = [sound[start : start + length] for start, length in ((96_000, 76_000), (24_000, 88_000), (96_000, 120_000))]
    clips = [Clip(samples=cut[: len(cut) - less]) for cut in cuts for less in (0, 6_000, 11_000, 17_000)]
    together = [transcript.text for transcript in engine.transcribe(clips)]
    assert together == [engine.transcribe([clip])[0].text for clip in clips]
    windows = [engine._by_window([clip], [0]) for clip in clips]
    assert engine._by_window(clips, range(len(clips))) == {
        window: [at for at, each in enumerate(windows) if window in each] for found in windows for window in found
    }


def test_the_least_effort_leaves_out_word_times_and_says_so(engine: Whisper) -> None:
    samples = shift_talk().pcm[24_000:112_000]
    full, one, least = engine.transcribe([Clip(samples=samples, effort=effort) for effort in Effort])
    assert full.words
    assert (full.text, full.shed) == (least.text, ())
    assert one.words == full.words
    assert (least.words, least.shed) == ((), ("word_times",))
    [unasked] = engine.transcribe([Clip(samples=samples, word_times=False, effort=Effort.LEAST)])
    assert unasked.shed == ()


def test_no_clips_no_transcripts(engine: Whisper) -> None:
    assert engine.transcribe([]) == []


def test_every_engine_in_the_table_resolves() -> None:
    for name in ENGINES:
        assert callable(engine_class(name).transcribe)
    with pytest.raises(ConfigurationError, match="whisper"):
        engine_class("hearsay")


def test_a_closed_engine_says_so(store: ModelStore) -> None:
    whisper = Whisper(WhisperSettings(workers=1), store)
    whisper.close()
    whisper.close()
    with pytest.raises(EngineError, match="closed"):
        whisper.transcribe([Clip(samples=sounds()["loud white noise"])])


def test_an_english_model_knows_no_other_language(store: ModelStore) -> None:
    with pytest.raises(ConfigurationError, match="English only"):
        Whisper(WhisperSettings(language="de"), store)


def clips() -> list[tuple[Samples, str]]:
    folder = Path(SPEECH or "")
    found = []
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["sec"] < 12:
            sound, rate = soundfile.read(folder / entry["file"], always_2d=True)
            found.append((pcm(resample_poly(sound.mean(axis=1), RATE, rate)), entry["text"]))
    return found


class TestRealSpeech:
    pytestmark = needs_speech

    def test_words_lie_in_the_clip_in_order(self, engine: Whisper) -> None:
        samples = clips()[4][0]
        transcript = engine.transcribe([Clip(samples=samples)])[0]
        assert transcript.text == " ".join(word.text for word in transcript.words)
        assert "invention of movable metal letters" in transcript.text
        times = [time for word in transcript.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert 0 <= times[0] < 1
        assert 7 < times[-1] <= len(samples) / RATE
        assert 0.8 < transcript.confidence <= 1

    def test_words_only_for_those_who_ask(self, engine: Whisper) -> None:
        (first, _), (second, _) = clips()[1], clips()[7]
        asked, unasked = engine.transcribe([Clip(samples=first), Clip(samples=second, word_times=False)])
        assert asked.words
        assert unasked.words == ()
        assert "surpassed" in unasked.text

    def test_a_caller_a_worker_and_each_gets_its_own_text(self, engine: Whisper) -> None:
        speech = [samples for samples, _ in clips()[:4]]
        alone = [engine.transcribe([Clip(samples=samples)])[0].text for samples in speech]
        with ThreadPoolExecutor(engine.traits.workers) as pool:
            together = list(pool.map(lambda samples: engine.transcribe([Clip(samples=samples)])[0].text, speech * 2))
        assert together == alone * 2

    def test_silence_among_speech_takes_its_place_in_the_batch(self, engine: Whisper) -> None:
        speech = clips()[7][0]
        texts = [t.text for t in engine.transcribe([Clip(samples=np.zeros(RATE, np.int16)), Clip(samples=speech)])]
        assert texts[0] == ""
        assert "surpassed" in texts[1]

    def test_hotwords_do_no_harm_to_plain_speech(self, engine: Whisper) -> None:
        spoken = clips()
        texts = [engine.transcribe([Clip(samples=samples, word_times=False)])[0].text for samples, _ in spoken]
        # Numerals and spelling count as errors here; `python -m benchmarks.stt` measures properly.
        assert jiwer.wer([normal(text) for _, text in spoken], [normal(text) for text in texts]) < 0.1
