"""Keeps the sound of each utterance as a FLAC file; doing it again writes the same file.

Where the files go is a shelf: a directory (here), or a bucket (`bucket.py`). On either, a file is there as a whole or
not at all, however many processes write it and whichever of them dies.
"""

import asyncio
import io
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from quickcomm.audio.model.formats import ENGINE_RATE, Int16
from quickcomm.audio.ports import RecordingError
from quickcomm.contracts.erasing import Scope

PART: Final = ".part"
PART_KEPT_S: Final = 3_600.0
"""What is not whole after so long was left by a crash."""
NS: Final = 1_000_000_000


class Shelf(Protocol):
    """Where files are kept, by names like `main/c-shift/0-512.flac`. Raises `OSError` where it cannot."""

    async def put(self, name: str, content: bytes) -> None:
        """All of it or nothing. Doing it again changes nothing."""
        ...

    async def purge(self, before_ns: int) -> None:
        """Delete folders to which nothing was added since."""
        ...

    async def lacking(self, names: Sequence[str]) -> list[str]:
        """Return those that are not there, of folders that are."""
        ...

    async def delete(self, folders: Sequence[str], names: Sequence[str]) -> int:
        """Delete folders and files; return how many files it was."""
        ...


class FlacRecorder:
    """Files are `<site>/c-<conversation>/<speaker>-<start offset>.flac`, 16 kHz mono."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def record(self, site: str, utterance_id: str, samples: Int16) -> None:
        try:
            await self._shelf.put(file_name(site, utterance_id), await asyncio.to_thread(encoded, samples))
        except (OSError, RuntimeError) as error:  # what libsndfile refuses is a RuntimeError
            raise RecordingError(f"The sound of {utterance_id} could not be kept: {error}") from error

    async def purge(self, before_ns: int) -> None:
        """Delete conversations to which nothing was added since. Raises `RecordingError`."""
        try:
            await self._shelf.purge(before_ns)
        except OSError as error:
            raise RecordingError(f"Old recordings could not be deleted: {error}") from error

    async def lacking(self, utterances: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those that are not kept, though others of their conversation are. Raises `RecordingError`."""
        names = {file_name(*each): each for each in utterances}
        try:
            return [names[name] for name in await self._shelf.lacking(list(names))]
        except OSError as error:
            raise RecordingError(f"Recordings could not be looked for: {error}") from error

    async def erase(self, scope: Scope) -> int:
        folders = [folder_name(scope.site, each) for each in scope.conversations]
        try:
            return await self._shelf.delete(folders, [file_name(scope.site, each) for each in scope.utterances])
        except OSError as error:
            raise RecordingError(f"Recordings could not be deleted: {error}") from error


class Folder:
    """A `Shelf` in a directory, which several processes may share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def put(self, name: str, content: bytes) -> None:
        await asyncio.to_thread(self._put, self.path / name, content)

    async def purge(self, before_ns: int) -> None:
        await asyncio.to_thread(self._purge, before_ns)

    async def lacking(self, names: Sequence[str]) -> list[str]:
        return await asyncio.to_thread(self._lacking, names)

    async def delete(self, folders: Sequence[str], names: Sequence[str]) -> int:
        return await asyncio.to_thread(self._delete, folders, names)

    def _delete(self, folders: Sequence[str], names: Sequence[str]) -> int:
        paths = [path for path in (self.path / name for name in names) if path.exists()]
        for name in folders:
            paths += [path for path in (self.path / name).glob("*") if path.is_file()]
        for path in paths:
            path.unlink(missing_ok=True)
        for name in folders:
            shutil.rmtree(self.path / name, ignore_errors=True)
        return len(paths)

    def _lacking(self, names: Sequence[str]) -> list[str]:
        paths = {name: self.path / name for name in names}
        kept = {folder for folder in {path.parent for path in paths.values()} if folder.is_dir()}
        return [name for name, path in paths.items() if path.parent in kept and not path.exists()]

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        # Each level for this user alone: with `parents=True`, `mode` is only that of the last one.
        for folder in reversed(path.parents[:3]):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")  # another process may be at it as well
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _purge(self, before_ns: int) -> None:
        for folder in self.path.glob("*/c-*"):
            if _touched(folder) < before_ns:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for part in _left_behind(folder):
                part.unlink(missing_ok=True)


def folder_name(site: str, conversation_id: str) -> str:
    # A conversation may be called `..`: its folder never is.
    return f"{site}/c-{conversation_id}"


def file_name(site: str, utterance_id: str) -> str:
    conversation_id, speaker, start = utterance_id.rsplit(":", 2)
    return f"{folder_name(site, conversation_id)}/{speaker}-{start}.flac"


def encoded(samples: Int16) -> bytes:
    import soundfile  # noqa: PLC0415 - most sites keep no sound, and start sooner without

    file = io.BytesIO()
    soundfile.write(file, samples, ENGINE_RATE, format="FLAC")
    return file.getvalue()


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return time.time_ns()  # just deleted


def _left_behind(folder: Path) -> Iterator[Path]:
    oldest = time.time_ns() - int(PART_KEPT_S * NS)
    return (part for part in folder.glob(f".*{PART}") if _touched(part) < oldest)
