"""Which options a site runs with: a second `up` says which of its own it did not follow, the next goes on with them.

They are kept as long as the site runs, with which processes an operator wants: an `up` that was killed is started again
without them, by a person in a hurry, and must not make another site of it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from quickcomm.audio.model.settings import SttSettings
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.runtime.settings import Settings

SECRET: Final = frozenset({"redis_url"})
"""Compared by a digest, for there may be a password in it."""
OPTIONS: Final = {"shape": "--deployment"}
"""Those that are not called as they are kept."""
NEW_STORE: Final = "new_store"
ONCE: Final = frozenset({NEW_STORE, "data_dir", "detach", "detached"})
"""Options that count for one start."""


def in_force(given: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Return the value of each option of `up`, given or not. `settings`: as loaded with the options given."""
    stt, llm = settings.of(SttSettings), settings.of(LlmSettings)
    other = {
        "host": settings.host,
        "port": settings.port,
        "redis_url": settings.redis_url,
        "pack": settings.pack,
        "stt_model": stt.model_path or stt.model,
        "llm_url": llm.url,
        "llm_model": llm.model,
    }
    found = {name: value if value is not None else other.get(name) for name, value in given.items()}
    return {name: _text(name, value) for name, value in found.items()}


def differences(wanted: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """Return the options that the running site does not follow, as they are written, with what it has instead."""
    found = []
    for name, value in sorted(wanted.items()):
        if running.get(name) == value or (name == "port" and value == "0") or (name == NEW_STORE and value == "False"):
            continue
        option = written(name)
        tells = name not in SECRET and name != NEW_STORE
        found.append(f"{option} {value} (it has {running.get(name) or 'none'})" if tells else option)
    return found


def keep(path: Path, given: Mapping[str, Any]) -> None:
    """Keep the options that were given, but for those of one start. Raises `OSError` where that cannot be written."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(
        msgspec.json.encode(
            {
                name: str(value.absolute()) if isinstance(value, Path) else value
                for name, value in given.items()
                if name not in ONCE
            }
        )
    )
    new.replace(path)


def kept(path: Path) -> dict[str, Any]:
    """Return the options that the `up` before was given, and did not stop by itself; none where that is not known."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, *MALFORMED):
        return {}


def written(name: str) -> str:
    """Return an option as it is written on the command line."""
    return OPTIONS.get(name, f"--{name.replace('_', '-')}")


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if name in SECRET:
        return hashlib.sha256(str(value).encode()).hexdigest()
    return str(value.absolute()) if isinstance(value, Path) else str(value)
