"""Recorded calls in a folder that another program writes to: Trunk Recorder, or a folder of Rdio Scanner.

Each call is a sound file; what is known of it is in a JSON file of the same name beside it. A call is taken once both
have stopped growing, and is then noted in a file of the folder, so that it is sent once, however often this is started.
"""

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from quickcomm.client.errors import SourceError

HEARD: Final = ".quickcomm-heard"
"""Keys of the calls that were sent, one a line."""
SOUND: Final = (".wav", ".flac", ".m4a", ".mp3", ".ogg", ".aac")
"""Endings of sound files; of several with one name the first counts."""
CHANNELS: Final = ("talkgroup_tag", "talkgroupLabel", "talkgroup_description", "talkgroupName", "talkgroup")
STARTED: Final = ("start_time", "startTime", "dateTime")
WITHOUT_JSON_LOOKS: Final = 5
"""Number of looks after which a call is taken without a JSON file beside it."""
MAX_JSON_BYTES: Final = 1_000_000
MAX_CHANNEL: Final = 80


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded call. `unit`: the radio that began it. `started_at`: seconds since the epoch.

    `key`: its path in the folder without the ending, as two subfolders may have files of the same name.
    """

    path: Path
    key: str = ""
    channel: str | None = None
    unit: str | None = None
    started_at: float | None = None

    @property
    def name(self) -> str:
        return self.path.stem


class CallFolder:
    """A folder with its calls. Raises `SourceError` where it is none, or cannot be written to."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(f"There is no folder {folder}.")
        self._folder = folder
        self._list = folder / HEARD
        try:
            self._list.touch()
        except OSError as error:
            raise SourceError(f"{self._list} cannot be written, so that calls would be sent twice: {error}") from error
        self._known = set(self._list.read_text(encoding="utf-8", errors="replace").splitlines())
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._looks: dict[Path, int] = {}

    def look(self) -> list[Call]:
        """Return the calls that are complete and were not returned before, the earliest first. Call it regularly."""
        found = [call for path in self._new() if (call := self._complete(path)) is not None]
        self._known |= {call.key for call in found}
        return sorted(found, key=lambda call: (call.started_at or math.inf, call.name))

    def done(self, call: Call) -> None:
        """Note that a call needs not be sent again. Raises `OSError` where the disk is full."""
        with self._list.open("a", encoding="utf-8") as file:
            file.write(f"{call.key}\n")
        self._sizes.pop(call.path, None)
        self._looks.pop(call.path, None)

    def _new(self) -> Iterator[Path]:
        by_key: dict[str, Path] = {}
        for path in sorted(self._folder.rglob("*")):
            if path.suffix.lower() in SOUND and (key := self._key(path)) not in self._known:
                other = by_key.setdefault(key, path)
                if SOUND.index(path.suffix.lower()) < SOUND.index(other.suffix.lower()):
                    by_key[key] = path
        yield from by_key.values()

    def _key(self, path: Path) -> str:
        return path.relative_to(self._folder).with_suffix("").as_posix()

    def _complete(self, path: Path) -> Call | None:
        """Return a call once its files are as they were at the last look."""
        beside = path.with_suffix(".json")
        try:
            size = path.stat().st_size, beside.stat().st_size if beside.exists() else -1
        except OSError:
            return None
        before, self._sizes[path] = self._sizes.get(path), size
        self._looks[path] = self._looks.get(path, 0) + 1
        if before != size or not size[0]:
            return None
        if size[1] < 0:
            return Call(path=path, key=self._key(path)) if self._looks[path] >= WITHOUT_JSON_LOOKS else None
        return msgspec.structs.replace(described(path, beside), key=self._key(path))


def described(path: Path, beside: Path) -> Call:
    """Return a call with what its JSON says; without, where that is none."""
    try:
        told = json.loads(beside.read_bytes()[:MAX_JSON_BYTES])
    except (OSError, ValueError, RecursionError):
        return Call(path=path)
    if not isinstance(told, dict):
        return Call(path=path)
    return Call(path=path, channel=_channel(told), unit=_unit(told), started_at=_started(told))


def _channel(told: dict[str, Any]) -> str | None:
    """Return the name of the talk group, or its number."""
    named = (str(told[key]).strip() for key in CHANNELS if isinstance(told.get(key), str | int))
    return next((_printable(name)[:MAX_CHANNEL] for name in named if name and name != "-"), None)


def _unit(told: dict[str, Any]) -> str | None:
    """Return the radio that spoke first."""
    sources = told.get("srcList", told.get("sources"))
    first = sources[0].get("src") if isinstance(sources, list) and sources and isinstance(sources[0], dict) else None
    unit = first if first is not None else told.get("source")
    return str(unit) if isinstance(unit, int | str) and str(unit) not in {"", "-1", "0"} else None


def _started(told: dict[str, Any]) -> float | None:
    """Return when the call began: seconds or milliseconds since the epoch, or RFC 3339."""
    for key in STARTED:
        value = told.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
            return value / 1_000 if value > 10**11 else float(value)
        if isinstance(value, str):
            try:
                at = datetime.fromisoformat(value)
            except ValueError:
                continue
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return None


def _printable(text: str) -> str:
    return re.sub(r"\s+", " ", "".join(each if each.isprintable() else " " for each in text)).strip()
