"""Makes clean speech sound like a two-way radio: room, microphone, companding, channel. voices → here → timeline."""

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import signal

RATE = 16_000
NARROW_RATE = 8_000
Wave = npt.NDArray[np.float64]

SPEECH_RMS = 0.07
LEAD_S = (0.18, 0.32)
"""Carrier before the first word: people press the button and then speak."""
HANG_S = (0.15, 0.25)
TAIL_S = 0.08
MAX_PAUSE_S = 0.25


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """`room`: share of reverberation; `hum_hz`: mains or fan hum; `snr`: dB of speech over all noise."""

    snr: float
    hum_hz: float
    room: float


class Transmission(msgspec.Struct, frozen=True, kw_only=True):
    """From button down to squelch closed. `lead` and `hang`: samples before the first and after the last word."""

    samples: Wave
    lead: int
    hang: int


def rms(wave: Wave) -> float:
    return float(np.sqrt(np.mean(np.square(wave)) + 1e-12))


def to_rms(wave: Wave, level: float) -> Wave:
    return wave * (level / rms(wave))


def envelope(wave: Wave, seconds: float) -> Wave:
    pole = np.exp(-1.0 / (seconds * RATE))
    return np.sqrt(np.maximum(signal.lfilter([1.0 - pole], [1.0, -pole], np.square(wave)), 1e-10))


def voiced(wave: Wave) -> npt.NDArray[np.bool_]:
    """Where somebody speaks: within 34 dB of the loudest 10 ms, closed over 30 ms on both sides."""
    hop = RATE // 100
    frames = np.sqrt(np.mean(np.square(wave[: wave.size // hop * hop].reshape(-1, hop)), axis=1))
    loud = frames > frames.max() * 10 ** (-34 / 20)
    near = np.convolve(loud, np.ones(7), mode="same") > 0
    flags = np.repeat(near, hop)
    return np.concatenate([flags, np.zeros(wave.size - flags.size, dtype=np.bool_)])


def tighten(wave: Wave) -> Wave:
    """No silence around the words, and none inside longer than `MAX_PAUSE_S`: one breath, one transmission."""
    flags = voiced(wave)
    first, last = np.flatnonzero(flags)[[0, -1]]
    wave, flags = wave[first : last + 1], flags[first : last + 1]
    edges = np.flatnonzero(np.diff(flags.astype(np.int8))) + 1
    keep = int(MAX_PAUSE_S * RATE)
    pieces = []
    for part in np.split(np.arange(wave.size), edges):
        if flags[part[0]] or part.size <= keep:
            pieces.append(part)
        else:
            pieces += [part[: keep // 2], part[-keep // 2 :]]
    return wave[np.concatenate(pieces)]


def reverberate(wave: Wave, share: float, rng: np.random.Generator) -> Wave:
    """Put it in a small hard room: exponentially falling noise, 0.12 s to -60 dB. Same length as before."""
    time = np.arange(int(0.12 * RATE)) / RATE
    response = rng.standard_normal(time.size) * np.exp(-time * 6.9 / 0.12)
    wet = signal.fftconvolve(wave, response)[: wave.size]
    return wave + share * to_rms(wet, rms(wave))


def background(size: int, hum_hz: float, rng: np.random.Generator) -> Wave:
    """Corridor and ventilation: pink noise and a hum with harmonics that survive the band-pass."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.size), 1.0))
    pink = to_rms(np.fft.irfft(spectrum, size), 1.0)
    time = np.arange(size) / RATE
    hum = sum(
        (0.8**n * np.sin(2 * np.pi * hum_hz * n * time + rng.uniform(0, 6.28)) for n in range(1, 12)),
        start=np.zeros(size),
    )
    return pink + 0.5 * to_rms(hum, 1.0)


def band(wave: Wave) -> Wave:
    """300-3400 Hz, the voice band of a handset."""
    sos = signal.butter(5, [300.0, 3400.0], btype="bandpass", fs=RATE, output="sos")
    return np.asarray(signal.sosfilt(sos, wave), dtype=np.float64)


def compress(wave: Wave) -> Wave:
    """Apply the handset's automatic gain (about 1.5:1) and its limiter (soft clipping of the peaks)."""
    level = rms(wave)
    gain = np.clip((envelope(wave, 0.02) / level) ** -0.3, 0.6, 1.6)
    driven = wave * gain / (4.5 * level)
    return np.asarray(np.tanh(1.25 * driven) * level * 3.6, dtype=np.float64)


def mulaw(wave: Wave) -> Wave:
    """Through an 8 kHz mu-law codec and back."""
    narrow = np.clip(signal.resample_poly(wave, NARROW_RATE, RATE), -1.0, 1.0)
    coded = np.sign(narrow) * np.log1p(255.0 * np.abs(narrow)) / np.log(256.0)
    coded = np.round(coded * 127.0) / 127.0
    decoded = np.sign(coded) * (256.0 ** np.abs(coded) - 1.0) / 255.0
    return np.asarray(signal.resample_poly(decoded, RATE, NARROW_RATE), dtype=np.float64)[: wave.size]


def transmit(speech: Wave, channel: Channel, snr: float, rng: np.random.Generator) -> Transmission:
    """One press of the button. Speech: float[n], 16 kHz, tight. Half of the noise is the room's, half the channel's."""
    lead, hang = (int(rng.uniform(*span) * RATE) for span in (LEAD_S, HANG_S))
    speech = reverberate(to_rms(speech, 1.0), channel.room, rng)
    spoken = to_rms(band(speech), 1.0)
    air = np.pad(spoken, (lead, hang))
    noise = 10 ** (-(snr + 3.0) / 20)
    air += noise * to_rms(band(background(air.size, channel.hum_hz, rng)), 1.0)
    heard = compress(air)
    heard *= SPEECH_RMS / rms(heard[lead : lead + spoken.size])
    hiss = band(np.diff(rng.standard_normal(heard.size + 1)) + 0.6 * rng.standard_normal(heard.size))
    heard = mulaw(band(heard) + SPEECH_RMS * noise * to_rms(hiss, 1.0))
    return Transmission(samples=_keyed(heard, rng), lead=lead, hang=hang + int(TAIL_S * RATE))


def _keyed(heard: Wave, rng: np.random.Generator) -> Wave:
    """Add the click of the button in front, and behind the burst of noise before the squelch closes."""
    click = rng.standard_normal(240) * np.exp(-np.arange(240) / 45.0)
    heard[: click.size] += 0.05 * band(np.pad(click, (0, 200)))[: click.size]
    burst = to_rms(band(rng.standard_normal(int(TAIL_S * RATE))), 0.35 * SPEECH_RMS)
    burst[-160:] *= np.linspace(1.0, 0.0, 160)
    return np.concatenate([heard, burst])
