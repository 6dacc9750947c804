"""Speech-to-text engines by name, loaded when they are asked for; the assembler chooses one."""

from importlib import import_module
from typing import Any

from quickcomm.kernel.errors import ConfigurationError

ENGINES: dict[str, str] = {"whisper": "quickcomm.audio.adapters.whisper:Whisper"}


def engine_class(name: str) -> type[Any]:
    """Import the class of an engine. Raises `ConfigurationError` for a name that is not in the table."""
    if name not in ENGINES:
        raise ConfigurationError(f"There is no engine {name!r}; there is: {', '.join(sorted(ENGINES))}.")
    module, _, attribute = ENGINES[name].partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, type):
        raise ConfigurationError(f"{ENGINES[name]} is no class.")
    return found
