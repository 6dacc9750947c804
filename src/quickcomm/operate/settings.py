"""All settings of a site, with those of `up` itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from quickcomm.apps import MODULES
from quickcomm.edge.settings import EdgeSettings
from quickcomm.kernel.runtime.setting_sources import FILE, SPEECH_DATA, read_settings
from quickcomm.kernel.runtime.settings import Settings, settings_type
from quickcomm.operations.declaration import OPERATIONS
from quickcomm.relay.declaration import RELAY
from quickcomm.topology.model.settings import AutoscaleSettings, PrioritySettings
from quickcomm.traffic.declaration import TRAFFIC

__all__ = ["FILE", "SITE", "SPEECH_DATA", "Settings", "load_settings"]
DECLARED: Final = (*MODULES, TRAFFIC, RELAY, OPERATIONS)
SITE: Final = settings_type(
    (
        *{name: kind for module in DECLARED for name, kind in module.settings.items()}.items(),
        ("edge", EdgeSettings),
        ("priority", PrioritySettings),
        ("autoscale", AutoscaleSettings),
    ),
    whole=True,
)
"""The type of all settings."""


def load_settings(
    data_dir: Path, flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read all of a site. Raises `ConfigurationError` that names the setting."""
    settings = read_settings(SITE, data_dir, flags, environment)
    for module in DECLARED:
        module.check(settings)
    return settings
