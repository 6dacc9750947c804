"""Keeps the sound of each utterance as a FLAC file; doing it again writes the same file."""

import asyncio
import shutil
from pathlib import Path

from quickcomm.audio.model.formats import ENGINE_RATE, Int16
from quickcomm.audio.ports import RecordingError


class FlacRecorder:
    """Files are `<directory>/<site>/<conversation>/<speaker>-<start offset>.flac`, 16 kHz mono."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, site: str, utterance_id: str) -> Path:
        conversation_id, speaker, start = utterance_id.rsplit(":", 2)
        # A conversation may be called `..`: its folder never is.
        return self._directory / site / f"c-{conversation_id}" / f"{speaker}-{start}.flac"

    async def record(self, site: str, utterance_id: str, samples: Int16) -> None:
        try:
            await asyncio.to_thread(self._write, self.path(site, utterance_id), samples)
        except (OSError, RuntimeError) as error:  # what libsndfile refuses is a RuntimeError
            raise RecordingError(f"The sound of {utterance_id} could not be kept: {error}") from error

    async def purge(self, before_ns: int) -> None:
        """Delete conversations to which nothing was added since."""
        await asyncio.to_thread(self._purge, before_ns)

    def _purge(self, before_ns: int) -> None:
        for folder in self._directory.glob("*/c-*"):
            if folder.stat().st_mtime_ns < before_ns:
                shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _write(path: Path, samples: Int16) -> None:
        import soundfile  # noqa: PLC0415 - most sites keep no sound, and start sooner without

        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        soundfile.write(part, samples, ENGINE_RATE, format="FLAC")
        part.replace(path)
