"""Clips derived from the radio set's sentences, always alike: starts, codecs, noise, tones, hard cuts."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

import numpy as np
from tools.shift.radio import Channel, mulaw, rms, to_rms, transmit

from benchmarks.radio_set import RATE, Half, Sentence, Wave, load_set, speech
from quickcomm.audio.ports import Samples

LEAD_S: Final = 0.2
"""Sound before the first word where the front end cuts."""
OFFSETS_S: Final = tuple(step * 0.032 for step in range(-4, 5))
TAIL_S: Final = 0.35
Kind = Literal["clean", "mulaw", "noisy", "tone", "hard cut"]
CUT_KINDS: Final[tuple[Kind, ...]] = ("clean", "mulaw", "noisy")
"""Clips as the front end gives them to the engine."""
STREAM_KINDS: Final[tuple[Kind, ...]] = ("tone", "hard cut")
"""Sound that is to go through the front end first."""
_HUM: Final = (50.0, 60.0, 120.0)


@dataclass(frozen=True, slots=True)
class RadioClip:
    """`samples`: int16[n], 16 kHz mono."""

    sentence: Sentence
    kind: Kind
    samples: Samples


def clips(half: Half) -> Iterator[RadioClip]:
    """Yield four clips a sentence: three as cut, each with another start, and one to be cut."""
    for number, sentence in enumerate(load_set().sentences):
        if sentence.half != half:
            continue
        said = speech(sentence)
        for place, kind in enumerate(CUT_KINDS):
            offset = OFFSETS_S[(number + 4 * place) % len(OFFSETS_S)]
            yield RadioClip(sentence, kind, pcm(_as_cut(said, kind, LEAD_S + offset, number)))
        stream_kind = STREAM_KINDS[number % len(STREAM_KINDS)]
        yield RadioClip(sentence, stream_kind, pcm(_stream(said, stream_kind)))


def pcm(wave: Wave) -> Samples:
    return np.clip(np.rint(wave * 32767), -32768, 32767).astype(np.int16)


def _as_cut(said: Wave, kind: Kind, lead_s: float, number: int) -> Wave:
    rng = np.random.default_rng([number, 15])
    lead = int(lead_s * RATE)
    if kind == "noisy":
        channel = Channel(snr=20.0 + number % 3 * 3.0, hum_hz=_HUM[number % len(_HUM)], room=0.06)
        sent = transmit(said, channel, channel.snr, rng)
        # The transmission has its own lead: cut it to the one that is asked for.
        first = max(0, sent.lead - lead)
        return np.concatenate([np.zeros(max(0, lead - sent.lead)), sent.samples[first:]])
    wave = np.pad(said, (lead, int(TAIL_S * RATE)))
    wave += 0.001 * rng.standard_normal(wave.size)
    return mulaw(wave) if kind == "mulaw" else wave


def _stream(said: Wave, kind: Kind) -> Wave:
    """A line that was silent, opens on a tone or in the very word, and is silent again."""
    if kind == "hard cut":
        return np.pad(said, (int(5.0 * RATE), RATE))
    time = np.arange(3 * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 960.0 * time)
    pause = np.zeros(int(0.6 * RATE))
    return mulaw(np.concatenate([np.zeros(2 * RATE), tone, pause, np.pad(said, (int(LEAD_S * RATE), RATE))]))


@dataclass(frozen=True, slots=True)
class HardClip:
    """A clip that tempts an engine to invent. `text`: the sentence that it is torn from, empty where nobody speaks."""

    text: str
    samples: Samples


def hard_clips() -> Iterator[HardClip]:
    """Yield more than 400: pieces of 0.25 to 0.8 s, also through mu-law, speech under noise, and noise alone."""
    for number, sentence in enumerate(load_set().sentences):
        rng = np.random.default_rng([number, 28])
        said = speech(sentence)
        size = int(rng.uniform(0.25, 0.8) * RATE)
        at = int(rng.uniform(0, max(1, said.size - size)))
        torn = said[at : at + size]
        snr = (3.0, -3.0)[number % 2]
        noise = to_rms(rng.standard_normal(said.size), rms(said) * 10 ** (-snr / 20))
        for wave in (torn, mulaw(torn), 0.5 * (said + noise)):
            yield HardClip(sentence.text, pcm(wave))
    for level, seconds, seed in product((0.003, 0.03, 0.2), (0.3, 0.8, 2.0, 5.0), range(3)):
        rng = np.random.default_rng([seed, int(seconds * 10), 3])
        yield HardClip("", pcm(mulaw(level * rng.standard_normal(int(seconds * RATE)))))
