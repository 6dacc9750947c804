"""Spanish said to an English model, and to a multilingual one: never a task, a room or an emergency out of nonsense."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import soundfile
from scipy.signal import resample_poly
from tests.support.front_end import Run
from tests.support.sounds import RATE, Pcm, noises, nothing

from quickcomm.audio.adapters.whisper import Whisper, WhisperSettings
from quickcomm.audio.ports import Clip, Transcript
from quickcomm.audio.service.utterance import understood
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.transcripts import Status
from quickcomm.intelligence.adapters.local import LocalClassifier, build_local_classifier
from quickcomm.intelligence.ports import Heard
from quickcomm.intelligence.service.doubting import Doubting
from quickcomm.intelligence.service.understanding import CERTAIN_WORD
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.model_files import ModelStore
from quickcomm.kernel.site_pack import SitePack, load_pack

needs_voice = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="skipped: espeak-ng is not installed")
SPANISH = (
    "Necesito dos toallas en la habitación cuatro doce, por favor.",
    "Hay fuego en la cocina, llamen a seguridad.",
    "Hay una persona inconsciente en el pasillo, llamen una ambulancia.",
    "Hay un hombre con un cuchillo en el vestíbulo.",
    "Entendido, voy para allá.",
    "El aire acondicionado de la trescientos cinco no funciona.",
)
ENGLISH = (
    "I need two towels in room four twelve, please.",
    "There is a fire in the kitchen, call security.",
    "Understood, I am on my way.",
    "The air conditioning in three oh five does not work.",
)
# What tiny.en made of Spanish, as `hearing.md` and the sentences above gave it.
NONSENSE = (
    "and the evil, boy, panna",
    "I'm not a concierge, I'm a non-become, key, on a list of you.",
    "I've wiggled in that coffee, and that's it, I'm in that sogliad.",
    "I'm a person who is a champion, and I'm a champion.",
)


def say(text: str, voice: str, folder: Path) -> Pcm:
    file = folder / "said.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", str(file), text], check=True)
    sound, rate = soundfile.read(file)
    sound = resample_poly(sound, RATE // 50, rate // 50)
    return np.concatenate([nothing(0.7), (sound / np.abs(sound).max() * 13_000).astype(np.int16), nothing(1)])


def hear(engine: Whisper, sound: Pcm) -> list[tuple[Status | None, Transcript]]:
    run = Run(AudioFormat())
    run.play([sound])
    heard = [(span, engine.transcribe([Clip(samples=span.samples)])[0]) for span in run.spans]
    return [(understood(transcript, span.voiced), transcript) for span, transcript in heard]


@pytest.fixture(scope="module")
def pack() -> SitePack:
    return load_pack("hospitality")


@pytest.fixture(scope="module")
def engine(pack: SitePack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whisper]:
    whisper = Whisper(
        WhisperSettings(hotwords=pack.vocabulary.hotwords, workers=1), ModelStore(cache=tmp_path_factory.mktemp("tiny"))
    )
    yield whisper
    whisper.close()


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whisper]:
    try:
        whisper = Whisper(
            WhisperSettings(model="base", workers=1),
            ModelStore(cache=tmp_path_factory.mktemp("base"), allow_hub=False),
        )
    except QuickCommError as error:
        pytest.skip(f"needs a multilingual model: {error}")
    yield whisper
    whisper.close()


@pytest.fixture(scope="module")
def local(pack: SitePack) -> Iterator[LocalClassifier]:
    """What servers use: it was learnt before, or takes its time once."""
    built = build_local_classifier(pack, platformdirs.user_cache_path("quickcomm"))
    yield built
    asyncio.run(built.aclose())


def answer(local: LocalClassifier, pack: SitePack, transcript: Transcript) -> tuple[Insight, ...]:
    certain = tuple(word.text for word in transcript.words if word.confidence >= CERTAIN_WORD)
    heard = Heard(text=transcript.text, doubtful=True, certain=certain)
    return asyncio.run(Doubting(local, local, pack).classify([heard]))[0]


@needs_voice
@pytest.mark.parametrize("voice", ["es", "es-419+f3"])
def test_an_english_model_never_takes_spanish_for_words(
    engine: Whisper, local: LocalClassifier, pack: SitePack, voice: str, tmp_path: Path
) -> None:
    for text in SPANISH:
        heard = hear(engine, say(text, voice, tmp_path))
        assert heard, f"{text} left no trace"
        for status, transcript in heard:
            assert status in {"unintelligible", "low_confidence"}, (text, transcript)
            [one] = answer(local, pack, transcript)
            assert (one.intent, one.rooms) == (pack.unclear, ())


@needs_voice
def test_a_multilingual_model_tells_another_language(multilingual: Whisper, tmp_path: Path) -> None:
    found = [status for text in SPANISH for status, _ in hear(multilingual, say(text, "es", tmp_path))]
    assert "ok" not in found
    assert found.count("not_english") >= len(SPANISH) - 1
    assert {status for text in ENGLISH for status, _ in hear(multilingual, say(text, "en-us", tmp_path))} == {"ok"}


@needs_voice
def test_english_is_understood(engine: Whisper, tmp_path: Path) -> None:
    assert {status for text in ENGLISH for status, _ in hear(engine, say(text, "en-us", tmp_path))} == {"ok"}


def test_noise_asks_nobody_to_listen(engine: Whisper) -> None:
    asked = [
        kind for kind, sound in noises() for status, _ in hear(engine, np.concatenate([sound, nothing(1)])) if status
    ]
    assert asked == []


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_no_emergency(local: LocalClassifier, pack: SitePack, text: str) -> None:
    [one] = answer(local, pack, Transcript(text=text, confidence=0.25))
    assert one.intent == pack.unclear


def test_a_clear_word_of_danger_in_a_text_that_is_not_is_an_emergency_to_be_confirmed(
    local: LocalClassifier, pack: SitePack
) -> None:
    heard = Heard(text="There is smoke in 412 nor the bell of", doubtful=True, certain=("There", "is", "smoke", "in"))
    [[one]] = asyncio.run(Doubting(local, local, pack).classify([heard]))
    assert (one.intent, one.rooms) == ("emergency", ())
    assert "not confirmed" in one.summary
