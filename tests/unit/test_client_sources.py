"""Where sound comes from: files of any kind, pipes, devices, and the passing of real time."""

import asyncio
import os
import sys
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest
from tests.support.sounds import Pcm, tone, write

from quickcomm.client.device import DeviceSource
from quickcomm.client.errors import DeviceMissingError, SourceError
from quickcomm.client.files import FileSource
from quickcomm.client.sources import AudioSource, Missing, Paced, PcmSource, StdinSource
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.clock import FakeClock


async def pcm_of(source: AudioSource) -> Pcm:
    chunks = [chunk async for chunk in source.chunks()]
    assert not any(isinstance(chunk, Missing) for chunk in chunks)
    return np.frombuffer(b"".join(chunk for chunk in chunks if isinstance(chunk, bytes)), np.int16)


def loudest(pcm: Pcm, rate: int) -> float:
    """Hertz of the strongest tone."""
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64)))
    return float(np.argmax(spectrum) * rate / len(pcm))


async def test_a_wave_file_at_a_rate_of_the_wire_comes_sample_for_sample(tmp_path: Path) -> None:
    said = tone(24_000)
    source = FileSource(write(tmp_path / "a.wav", 24_000, said))
    assert source.format == AudioFormat(sample_rate=24_000)
    assert np.array_equal(await pcm_of(source), said)


@pytest.mark.parametrize(
    ("name", "rate", "sent"),
    [("a.wav", 22_050, 16_000), ("a.flac", 44_100, 16_000), ("a.mp3", 44_100, 16_000), ("a.wav", 11_025, 8_000)],
)
async def test_other_rates_and_formats_are_resampled(tmp_path: Path, name: str, rate: int, sent: int) -> None:
    source = FileSource(write(tmp_path / name, rate, tone(rate, 2.0)))
    pcm = await pcm_of(source)
    assert source.format.sample_rate == sent
    assert abs(len(pcm) - 2 * sent) < sent / 10
    assert loudest(pcm, sent) == pytest.approx(440, abs=3)


async def test_opus_in_ogg_is_read(tmp_path: Path) -> None:
    pcm = await pcm_of(FileSource(write(tmp_path / "a.ogg", 48_000, tone(48_000))))
    assert loudest(pcm, 48_000) == pytest.approx(440, abs=3)


async def test_stereo_is_mixed_unless_it_is_two_speakers(tmp_path: Path) -> None:
    left, right = tone(16_000, hertz=440), tone(16_000, hertz=880)
    path = write(tmp_path / "two.wav", 16_000, left, right)
    mixed = await pcm_of(FileSource(path))
    assert len(mixed) == len(left)
    assert np.allclose(mixed, (left.astype(int) + right) / 2, atol=2)
    two = FileSource(path, speakers=2)
    assert two.format.speakers == 2
    both = (await pcm_of(two)).reshape(-1, 2)
    assert np.array_equal(both[:, 0], left)
    assert np.array_equal(both[:, 1], right)


def test_two_speakers_need_two_channels(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"1 channel\(s\)"):
        FileSource(write(tmp_path / "a.wav", 16_000, tone(16_000)), speakers=2)


def test_what_is_no_sound_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Not a sound.")
    with pytest.raises(SourceError, match="cannot be read"):
        FileSource(tmp_path / "a.txt")
    with pytest.raises(SourceError, match="no file"):
        FileSource(tmp_path / "missing.wav")
    with pytest.raises(SourceError, match="no file"):
        FileSource(tmp_path)


async def test_standard_input_is_read_from_a_pipe_and_from_a_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    said = bytes(range(256)) * 300
    os.write(writing, said[:50_000])
    source = StdinSource(AudioFormat(), descriptor=reading)
    assert source.live
    chunks = source.chunks()
    heard = b""
    while len(heard) < 50_000:
        chunk = await anext(chunks)
        assert isinstance(chunk, bytes)
        heard += chunk
    os.write(writing, said[50_000:])
    os.close(writing)
    heard += b"".join([chunk async for chunk in chunks if isinstance(chunk, bytes)])
    os.close(reading)
    assert heard == said
    (tmp_path / "raw").write_bytes(said)
    with (tmp_path / "raw").open("rb") as file:
        raw = StdinSource(AudioFormat(), descriptor=file.fileno())
        assert not raw.live
        assert b"".join([chunk async for chunk in raw.chunks() if isinstance(chunk, bytes)]) == said


async def test_a_pipe_that_gives_sound_faster_than_it_is_spoken_is_no_live_one() -> None:
    reading, writing = os.pipe()
    clock = FakeClock()
    source = StdinSource(AudioFormat(sample_rate=8_000), descriptor=reading, clock=clock)
    chunks, live = source.chunks(), []
    for _ in range(12):
        os.write(writing, bytes(16_000))
        await anext(chunks)
        live.append(source.live)
    assert live == [True] * 10 + [False] * 2
    clock.advance(3_600)
    os.write(writing, bytes(16_000))
    await anext(chunks)
    assert not source.live
    os.close(writing)
    assert [chunk async for chunk in chunks] == []
    os.close(reading)


async def test_pacing_lets_time_pass_as_if_it_were_spoken_now() -> None:
    clock, slept = FakeClock(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    async def all_at_once() -> AsyncIterator[bytes]:
        yield bytes(16_000)
        clock.advance(5)  # somebody made it wait
        yield bytes(16_000)

    paced = Paced(PcmSource(AudioFormat(sample_rate=8_000), all_at_once()), clock=clock, sleep=sleep)
    started = clock.monotonic()
    chunks = [len(chunk) async for chunk in paced.chunks() if isinstance(chunk, bytes)]
    assert chunks == [1_600] * 20
    assert slept == pytest.approx([0.1] * 19, abs=1e-5)  # one was late, and the others do not rush after it
    assert clock.monotonic() - started == pytest.approx(6.9, abs=1e-3)


class FakeSoundDevice(ModuleType):
    """As much of `sounddevice` as is used; the callback is played by the test."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.opened: dict[str, Any] = {}
        self.playing = asyncio.Event()

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {"name": "Speaker", "max_input_channels": 0},
            {"name": "USB Radio Line", "max_input_channels": 1},
            {"name": "USB Camera", "max_input_channels": 2},
        ]

    def RawInputStream(self, **how: Any) -> "FakeSoundDevice":  # noqa: N802 - the name of the real one
        if how["samplerate"] == 48_000:
            raise self.PortAudioError("Invalid sample rate")
        self.opened = how
        return self

    def __enter__(self) -> Self:
        self.playing.set()
        return self

    def __exit__(self, *_: object) -> None:
        self.playing.clear()

    def hear(self, block: bytes) -> None:
        callback: Callable[[bytes, int, None, None], None] = self.opened["callback"]
        callback(block, len(block) // 2, None, None)


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


async def test_a_device_is_found_by_a_part_of_its_name(sounddevice: FakeSoundDevice) -> None:
    chunks = DeviceSource("radio", fmt=AudioFormat()).chunks()
    first = asyncio.ensure_future(anext(chunks))
    await asyncio.wait_for(sounddevice.playing.wait(), 5)
    sounddevice.hear(b"ab" * 1_600)
    assert await first == b"ab" * 1_600
    assert (sounddevice.opened["device"], sounddevice.opened["blocksize"]) == (1, 1_600)


async def test_what_nobody_takes_from_a_device_in_time_is_missing(sounddevice: FakeSoundDevice) -> None:
    chunks = DeviceSource("1", fmt=AudioFormat()).chunks()
    first = asyncio.ensure_future(anext(chunks))
    await asyncio.wait_for(sounddevice.playing.wait(), 5)
    for n in range(60):
        sounddevice.hear(bytes([n, 0]) * 1_600)
    heard = [await first] + [await anext(chunks) for _ in range(50)]
    assert heard == [bytes([n, 0]) * 1_600 for n in range(50)] + [Missing(samples=16_000)]


@pytest.mark.parametrize(("name", "problem"), [("tuba", "No sound input"), ("usb", "More than one")])
def test_devices_are_listed_where_the_name_does_not_tell(sounddevice: FakeSoundDevice, name: str, problem: str) -> None:
    with pytest.raises(DeviceMissingError, match=problem) as caught:
        DeviceSource(name, fmt=AudioFormat())
    assert "1  USB Radio Line" in str(caught.value)
    assert "Speaker" not in str(caught.value)
    assert not sounddevice.opened


async def test_a_device_that_refuses_the_rate_says_so(sounddevice: FakeSoundDevice) -> None:
    source = DeviceSource("radio", fmt=AudioFormat(sample_rate=48_000))
    with pytest.raises(SourceError, match="48000 Hz"):
        await anext(source.chunks())
    assert not sounddevice.opened


def test_without_support_for_devices_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DeviceMissingError, match=r"quickcomm\[device\]"):
        DeviceSource("radio", fmt=AudioFormat())


def test_the_helper_writes_what_the_standard_library_reads(tmp_path: Path) -> None:
    with wave.open(str(write(tmp_path / "a.wav", 8_000, tone(8_000)))) as file:
        assert (file.getframerate(), file.getnframes()) == (8_000, 8_000)
