"""The features are those of the reference, for any length of clip."""

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from quickcomm.audio.adapters.whisper_features import LogMel


@pytest.mark.parametrize("count", [1, 100, 200, 399, 400, 16_000, 48_123])
def test_features_are_those_of_the_reference_on_padded_samples(count: int) -> None:
    samples = (np.random.default_rng(count).normal(size=count) * 3000).astype(np.int16)
    wave = np.pad(samples.astype(np.float32) / 32768, (0, 800 * 160 - count))
    expected = FeatureExtractor()(wave, padding=0)
    got = LogMel()(samples, 800)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[:, : expected.shape[1]], expected, atol=1e-6)


def test_silence_is_flat() -> None:
    got = LogMel()(np.zeros(1600, np.int16), 800)
    assert np.all(got == got[0, 0])
