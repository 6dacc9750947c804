"""Every rate to 16 kHz: frame by frame the same as in one piece, tones keep their level, aliases are gone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import firwin, upfirdn
from tests.support.examples import examples

from quickcomm.audio.model.formats import ENGINE_FRAME, ENGINE_RATE, Int16
from quickcomm.audio.model.resample import HALF_TAPS, KAISER_BETA, MAX_HISTORY, RESAMPLERS, Resampler
from quickcomm.contracts.audio_socket import SAMPLE_RATES

OTHER_RATES = [rate for rate in SAMPLE_RATES if rate != ENGINE_RATE]


def noise(samples: int, seed: int = 1) -> Int16:
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, dtype=np.int16)


def tone(rate: int, hertz: float, seconds: float = 1.024) -> Int16:
    time = np.arange(round(rate * seconds)) / rate
    found: Int16 = np.rint(10_000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)
    return found


def streamed(resampler: Resampler, samples: Int16, history: Int16 | None = None) -> Int16:
    """Frame by frame, with nothing carried over but the last `history` samples."""
    kept = np.zeros(resampler.history, np.int16) if history is None else history
    out = []
    for start in range(0, len(samples), resampler.frame):
        frame = np.concatenate([kept, samples[start : start + resampler.frame]])
        out.append(resampler(frame[None, :])[0])
        kept = frame[len(frame) - resampler.history :]
    return np.concatenate(out)


def level(samples: Int16) -> float:
    """Root mean square, without the first moments."""
    return float(np.sqrt(np.mean(np.square(samples[1024:].astype(np.float64)))))


@pytest.mark.parametrize("rate", OTHER_RATES)
def test_frame_by_frame_equals_the_whole_signal(rate: int) -> None:
    resampler = RESAMPLERS[rate]
    samples = noise(20 * resampler.frame)
    factor = int(np.gcd(rate, ENGINE_RATE))
    up, down = ENGINE_RATE // factor, rate // factor
    widest = max(up, down)
    taps = firwin(2 * HALF_TAPS * widest + 1, 1 / widest, window=("kaiser", KAISER_BETA)) * up
    whole = upfirdn(taps, samples.astype(np.float64), up, down)
    expected = np.clip(np.rint(whole[: 20 * ENGINE_FRAME]), -32768, 32767)
    assert np.array_equal(streamed(resampler, samples), expected)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@examples(20)
@given(restart=st.integers(1, 11), seed=st.integers(0, 1000))
def test_a_restart_from_the_history_gives_identical_samples(rate: int, restart: int, seed: int) -> None:
    resampler = RESAMPLERS[rate]
    samples = noise(12 * resampler.frame, seed)
    at = restart * resampler.frame
    history = np.frombuffer(samples[:at][at - resampler.history :].tobytes(), np.int16)
    again = streamed(resampler, samples[at:], history)
    assert np.array_equal(again, streamed(resampler, samples)[restart * ENGINE_FRAME :])


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_many_streams_at_once_are_the_same_as_each_alone(rate: int) -> None:
    resampler = RESAMPLERS[rate]
    rows = np.stack([noise(resampler.history + resampler.frame, seed) for seed in range(5)])
    together = resampler(rows)
    assert together.shape == (5, ENGINE_FRAME)
    assert all(np.array_equal(resampler(rows[i : i + 1])[0], together[i]) for i in range(5))


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_a_tone_keeps_its_level_and_pitch(rate: int) -> None:
    out = streamed(RESAMPLERS[rate], tone(rate, 1_000))
    assert len(out) == 32 * ENGINE_FRAME
    assert level(out) == pytest.approx(10_000 / np.sqrt(2), rel=0.01)
    spectrum = np.abs(np.fft.rfft(out[1024:].astype(np.float64) * np.hanning(len(out) - 1024)))
    assert np.argmax(spectrum) * ENGINE_RATE / (len(out) - 1024) == pytest.approx(1_000, abs=2)


@pytest.mark.parametrize("rate", [24_000, 32_000, 48_000])
@pytest.mark.parametrize("hertz", [9_000, 10_000, 11_500])
def test_what_is_above_8_khz_does_not_come_back_as_speech(rate: int, hertz: float) -> None:
    assert level(streamed(RESAMPLERS[rate], tone(rate, hertz))) < 10_000 / np.sqrt(2) * 0.01


def test_a_telephone_line_gets_no_mirror_above_4_khz() -> None:
    out = streamed(RESAMPLERS[8_000], tone(8_000, 1_000)).astype(np.float64)[1024:]
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out)))) ** 2
    split = round(4_500 * len(out) / ENGINE_RATE)
    assert spectrum[split:].sum() < spectrum.sum() * 1e-5


def test_clipping_does_not_wrap_around() -> None:
    square = np.where(np.arange(20 * 1536) // 100 % 2, 32767, -32768).astype(np.int16)
    out = streamed(RESAMPLERS[48_000], square)
    assert out.max() == 32767
    assert out.min() == -32768
    middle = out[1024:].reshape(-1)
    assert np.abs(np.diff(middle.astype(np.int32))).max() < 65_000


def test_histories_fit_the_common_array() -> None:
    assert RESAMPLERS[ENGINE_RATE].history == 0
    assert all(0 < RESAMPLERS[rate].history <= MAX_HISTORY for rate in OTHER_RATES)
    samples = noise(2 * ENGINE_FRAME)
    assert np.array_equal(streamed(RESAMPLERS[ENGINE_RATE], samples), samples)
