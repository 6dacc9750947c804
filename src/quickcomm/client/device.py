"""A sound device (a radio on the line-in) → PCM. `sounddevice` is an optional dependency, loaded when it is needed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import ModuleType
from typing import Any, Final

from quickcomm.client.errors import DeviceMissingError, SourceError
from quickcomm.client.sources import Chunk, Missing
from quickcomm.contracts.audio_socket import AudioFormat

HOW_TO_INSTALL: Final = "In a clone: make install EXTRAS=device. Elsewhere: install the package as quickcomm[device]"
_HELD: Final = 50
_BLOCK_MS: Final = 100


class DeviceSource:
    """Live: it cannot wait. `name` is a part of a device's name or its number; raises `DeviceMissingError`."""

    def __init__(self, name: str, *, fmt: AudioFormat) -> None:
        if fmt.encoding != "linear16":
            raise SourceError("A sound device gives linear16; leave the encoding out.")
        self._sounddevice = _load()
        self._device = _find(self._sounddevice.query_devices(), name)
        self._format = fmt

    @property
    def format(self) -> AudioFormat:
        return self._format

    @property
    def live(self) -> bool:
        return True

    async def chunks(self) -> AsyncIterator[Chunk]:
        # Overflow policy: what does not fit is counted and becomes a declared gap; nothing that was taken is dropped.
        queue: asyncio.Queue[bytes] = asyncio.Queue(_HELD)
        loop = asyncio.get_running_loop()
        lost = 0

        def take(block: bytes) -> None:
            nonlocal lost
            if lost or queue.full():
                lost += len(block) // self._format.block_bytes
            else:
                queue.put_nowait(block)

        def heard(data: Any, _frames: int, _time: Any, _status: Any) -> None:
            loop.call_soon_threadsafe(take, bytes(data))

        with self._open(heard):
            while True:
                yield await queue.get()
                if lost and queue.empty():
                    missing, lost = lost, 0
                    yield Missing(samples=missing)

    def _open(self, callback: Any) -> Any:
        fmt = self._format
        try:
            return self._sounddevice.RawInputStream(
                samplerate=fmt.sample_rate,
                channels=fmt.speakers,
                dtype="int16",
                blocksize=fmt.samples(_BLOCK_MS),
                device=self._device,
                callback=callback,
            )
        except self._sounddevice.PortAudioError as error:
            raise SourceError(f"The sound device cannot be opened at {fmt.sample_rate} Hz: {error}") from error


def _load() -> ModuleType:
    try:
        import sounddevice  # noqa: PLC0415 - optional, and it looks for devices when it is loaded
    except ImportError as error:
        raise DeviceMissingError(f"Sound devices need one more package. {HOW_TO_INSTALL}.") from error
    except OSError as error:
        raise DeviceMissingError(f"The PortAudio library is missing (Debian: libportaudio2): {error}") from error
    module: ModuleType = sounddevice
    return module


def _find(devices: Sequence[dict[str, Any]], name: str) -> int:
    """The number of the one input that `name` means."""
    inputs = {number: device for number, device in enumerate(devices) if device["max_input_channels"] > 0}
    listing = "\n".join(f"  {number}  {device['name']}" for number, device in inputs.items()) or "  (none)"
    if name.isdecimal() and int(name) in inputs:
        return int(name)
    matches = [number for number, device in inputs.items() if name.casefold() in str(device["name"]).casefold()]
    if len(matches) != 1:
        count = "No" if not matches else "More than one"
        raise DeviceMissingError(f"{count} sound input matches {name!r}. There are:\n{listing}")
    return matches[0]
