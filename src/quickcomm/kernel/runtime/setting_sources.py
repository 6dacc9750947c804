"""Reads settings of any shape: defaults, then `quickcomm.toml` in the data directory, then the environment, then flags.

The environment variable of a setting is its path: `QUICKCOMM_AUDIO_IDLE_LIMIT_S=60`. Only this file reads it
(and `data_directory`, for where the directory is).
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from quickcomm.kernel.errors import MALFORMED, ConfigurationError

PREFIX: Final = "QUICKCOMM_"
FILE: Final = "quickcomm.toml"
LARGEST: Final = 10**9
SPEECH_DATA: Final = "QUICKCOMM_SPEECH_DATA"
NESTED: Final = frozenset({"segmenter", "twilio"})
"""Sections within `audio`."""
SIGNED: Final = "priority."
"""Settings that may be below 0."""
IGNORED: Final = frozenset({"QUICKCOMM_KEY", "QUICKCOMM_URL", "QUICKCOMM_DATA_DIR", SPEECH_DATA})

S = TypeVar("S", bound=msgspec.Struct)


def read_settings(
    kind: type[S],
    data_dir: Path,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> S:
    """Raises `ConfigurationError` that names the setting."""
    raw = _from_file(data_dir / FILE)
    for path, value in _from_environment(os.environ if environment is None else environment, _sections(kind)):
        _put(raw, path, value)
    for name, flag in (flags or {}).items():
        if flag is not None:
            _put(raw, name.split("."), flag)
    try:
        settings = msgspec.convert(raw, kind, strict=False)
    except MALFORMED as error:
        raise ConfigurationError(f"A setting is wrong: {error}. See docs/settings.md.") from error
    for name, number in _numbers(settings):
        if not name.startswith(SIGNED) and not (math.isfinite(number) and 0 <= number <= LARGEST):
            raise ConfigurationError(f"A setting is wrong: {name} must be a number from 0. See docs/settings.md.")
    return settings


def _numbers(settings: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number, with its name: but for a few, none of them makes sense below 0, or without an end."""
    for name, value in msgspec.structs.asdict(settings).items():
        if isinstance(value, msgspec.Struct):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value


def _from_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except MALFORMED as error:
        raise ConfigurationError(f"{path} is no valid TOML: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def _sections(kind: type[msgspec.Struct]) -> frozenset[str]:
    types = {each.name: each.type for each in msgspec.structs.fields(kind)}
    return frozenset(name for name, of in types.items() if isinstance(of, type) and issubclass(of, msgspec.Struct))


def _from_environment(environment: Mapping[str, str], sections: frozenset[str]) -> list[tuple[list[str], str]]:
    found = []
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in IGNORED:
            continue
        key = name.removeprefix(PREFIX).lower()
        section, _, rest = key.partition("_")
        path = [section, rest] if section in sections and rest else [key]
        found.append((_split_nested(path), value))
    return found


def _split_nested(path: list[str]) -> list[str]:
    section, separator, name = path[-1].partition("_")
    return ["audio", section, name] if path[0] == "audio" and separator and section in NESTED else path


def _put(raw: dict[str, Any], path: list[str], value: object) -> None:
    *parents, last = path
    for parent in parents:
        inner = raw.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"A setting is wrong: {parent} is a section with settings of its own.")
        raw = inner
    raw[last] = value
