"""What clients may send: G.711 against its formulas and vectors, speakers, refusals, names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.model.formats import CHANNEL_LIMIT, decode, parse_channel, parse_conversation_id, parse_format
from quickcomm.contracts.audio_socket import ENCODINGS, SAMPLE_RATES, AudioFormat
from quickcomm.kernel.errors import InvalidInputError

ALL_CODES = bytes(range(256))


def mulaw(code: int) -> int:
    """One µ-law code, as G.711 writes it down: all bits inverted, a bias of 33 (in 14 bit)."""
    code ^= 0xFF
    value = ((2 * (code & 0x0F) + 33) << ((code >> 4) & 7)) - 33
    return 4 * (-value if code & 0x80 else value)


def alaw(code: int) -> int:
    """One A-law code: even bits inverted, 13 bit."""
    code ^= 0x55
    exponent, mantissa = (code >> 4) & 7, code & 0x0F
    value = 2 * mantissa + 1 if exponent == 0 else (2 * mantissa + 33) << (exponent - 1)
    return 8 * (value if code & 0x80 else -value)


def decoded(data: bytes, encoding: str) -> list[int]:
    [samples] = decode(data, parse_format(encoding, "8000", "1"))
    assert samples.dtype == np.int16
    return [int(sample) for sample in samples]


def test_g711_tables_follow_the_formulas() -> None:
    assert decoded(ALL_CODES, "mulaw") == [mulaw(code) for code in range(256)]
    assert decoded(ALL_CODES, "alaw") == [alaw(code) for code in range(256)]


@pytest.mark.parametrize(
    ("encoding", "code", "value"),
    [
        ("mulaw", 0x00, -32124),
        ("mulaw", 0x80, 32124),
        ("mulaw", 0xFF, 0),
        ("mulaw", 0x7F, 0),
        ("mulaw", 0xFE, 8),
        ("mulaw", 0x8F, 16764),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
        ("alaw", 0xAA, 32256),
        ("alaw", 0x2A, -32256),
        ("alaw", 0x80, 5504),
    ],
)
def test_known_g711_vectors(encoding: str, code: int, value: int) -> None:
    assert decoded(bytes([code]), encoding) == [value]


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
@given(sample=st.integers(-32_000, 32_000))
def test_g711_has_a_code_near_every_sample(encoding: str, sample: int) -> None:
    """Logarithmic steps: the nearest code is within a thirtieth of the sample, or of the quiet end's step."""
    nearest = min(abs(value - sample) for value in decoded(ALL_CODES, encoding))
    assert nearest <= max(16, abs(sample) / 30)


@given(st.lists(st.integers(-32768, 32767)))
def test_linear16_comes_back_as_it_was_sent(values: list[int]) -> None:
    assert decoded(np.array(values, "<i2").tobytes(), "linear16") == values


@given(st.lists(st.tuples(st.integers(-32768, 32767), st.integers(-32768, 32767))))
def test_two_speakers_are_told_apart(pairs: list[tuple[int, int]]) -> None:
    data = np.array(pairs, "<i2").reshape(-1).tobytes()
    first, second = decode(data, AudioFormat(speakers=2))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == pairs


def test_two_speakers_in_one_byte_each() -> None:
    first, second = decode(bytes([0xFF, 0x00, 0xFF, 0x80]), AudioFormat(encoding="mulaw", speakers=2))
    assert (first.tolist(), second.tolist()) == ([0, 0], [-32124, 32124])


@given(
    encoding=st.sampled_from(ENCODINGS),
    speakers=st.sampled_from(["1", "2"]),
    size=st.integers(0, 50),
)
def test_a_cut_sample_is_refused_and_nothing_else(encoding: str, speakers: str, size: int) -> None:
    audio_format = parse_format(encoding, "16000", speakers)
    if size % audio_format.block_bytes:
        with pytest.raises(InvalidInputError, match=f"{size} bytes"):
            decode(bytes(size), audio_format)
    else:
        parts = decode(bytes(size), audio_format)
        assert [len(part) for part in parts] == [size // audio_format.block_bytes] * audio_format.speakers


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_a_frame_is_32_ms_at_every_rate(rate: int) -> None:
    audio_format = parse_format("linear16", str(rate), "1")
    assert audio_format.frame * 1000 == 32 * rate
    assert audio_format.seconds(rate) == 1.0


@pytest.mark.parametrize(
    ("encoding", "rate", "channels", "named"),
    [
        ("opus", "16000", "1", "encoding"),
        ("LINEAR16", "16000", "1", "encoding"),
        ("linear16", "44100", "1", "sample_rate"),
        ("linear16", "016000", "1", "sample_rate"),
        ("linear16", "", "1", "sample_rate"),
        ("linear16", "16000", "3", "speakers"),
        ("linear16", "16000", "0", "speakers"),
        ("linear16", "16000", "²", "speakers"),
    ],
)
def test_what_is_not_supported_is_named(encoding: str, rate: str, channels: str, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        parse_format(encoding, rate, channels)


@given(st.from_regex(r"[A-Za-z0-9._~-]{1,128}", fullmatch=True))
def test_good_ids_stay_as_they_are(text: str) -> None:
    assert parse_conversation_id(text) == text


@given(st.text().filter(lambda text: not text.isascii() or not text or set(text) & set(" /:?#[]@!$&'()*+,;=%\n")))
def test_bad_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_conversation_id(text)


@pytest.mark.parametrize("text", ["", "a" * 129, "a/b", "a:b", "a\n", "é"])
def test_ids_that_would_harm(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_conversation_id(text)


def test_channel_names() -> None:
    assert parse_channel("  Housekeeping 3é ") == "Housekeeping 3é"
    assert parse_channel("x" * CHANNEL_LIMIT)
    for bad in ("x" * (CHANNEL_LIMIT + 1), "two\nlines", "bell\a", "\u202efdp"):
        with pytest.raises(InvalidInputError):
            parse_channel(bad)
