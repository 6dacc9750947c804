"""Which options a site runs with, so that a second `up` can say which of its own it did not follow."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from quickcomm.audio.model.settings import SttSettings
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.kernel.runtime.settings import Settings

SECRET: Final = frozenset({"redis_url"})
"""Compared by a digest, for there may be a password in it."""
OPTIONS: Final = {"shape": "--deployment"}
"""Those that are not called as they are kept."""
NEW_STORE: Final = "new_store"


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
        option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
        tells = name not in SECRET and name != NEW_STORE
        found.append(f"{option} {value} (it has {running.get(name) or 'none'})" if tells else option)
    return found


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if name in SECRET:
        return hashlib.sha256(str(value).encode()).hexdigest()
    return str(value.absolute()) if isinstance(value, Path) else str(value)
