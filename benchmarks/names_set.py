"""Site talk with names that no model expects: people, places and machines, four sentences each, spoken by flite.

For `benchmarks.learned_words`. Nothing is stored: the voices say the same each time.
"""

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from tools.shift.radio import RATE, Channel, tighten, to_rms, transmit
from tools.shift.voices import Speaker, Spoken, speak

from benchmarks.radio_set.clips import pcm
from quickcomm.audio.ports import Samples

_VOICES: Final = ("slt", "rms", "awb")
_LEVEL: Final = 0.1
_SNR: Final = 20.0
_PEOPLE: Final = ("Oyelaran", "Kowalczyk", "Takahashi", "Siobhan", "Nakamura", "Delacroix", "Okonkwo", "Vasquez")
_PLACES: Final = ("Bellevue", "Orangerie", "Miramar", "Sauternes", "Kingfisher", "Larkspur", "Belvedere", "Tamarind")
_THINGS: Final = ("Winterhalter", "Meiko", "Hobart", "Karcher", "Nilfisk", "Miele", "Numatic", "Vileda")
_TALK: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    _PEOPLE: (
        "Please ask {} to call the front desk.",
        "{} is on the way to room 412.",
        "Has anybody seen {} this morning?",
        "The keys are with {}, over.",
    ),
    _PLACES: (
        "We need six more chairs in the {}.",
        "The {} is ready for the dinner.",
        "Somebody spilled wine in the {}, please send the mop.",
        "Is the {} still locked?",
    ),
    _THINGS: (
        "The {} is leaking again.",
        "Engineering, please look at the {} in the kitchen.",
        "Who has the manual of the {}?",
        "I am done with the {}, it runs.",
    ),
}


def sentences() -> list[str]:
    """Return 96 sentences, each with one name."""
    return [
        talk[(number + turn) % len(talk)].format(name)
        for turn in range(4)
        for names, talk in _TALK.items()
        for number, name in enumerate(names)
    ]


def recordings() -> list[tuple[str, list[Samples]]]:
    """Return each sentence with two clips: clean, and over a radio. Raises `SystemExit` where flite is missing."""
    texts = sentences()
    with tempfile.TemporaryDirectory() as folder:
        speakers = [Speaker(engine="flite", voice=_VOICES[number % len(_VOICES)]) for number in range(len(texts))]
        lines = [Spoken(speaker=speaker, say=text) for speaker, text in zip(speakers, texts, strict=True)]
        waves = speak(lines, Path(folder))
    spoken = []
    for number, (text, wave) in enumerate(zip(texts, waves, strict=True)):
        said = to_rms(tighten(wave), _LEVEL)
        channel = Channel(snr=_SNR, hum_hz=60.0, room=0.06)
        sent = transmit(said, channel, _SNR, np.random.default_rng([number, 54])).samples
        clean = np.pad(said, (RATE // 5, RATE // 3))
        spoken.append((text, [pcm(clean), pcm(sent)]))
    return spoken
