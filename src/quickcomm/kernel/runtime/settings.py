"""The settings of a process: those that every process has, and a section for each type that its modules declare."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar, cast

import msgspec
import platformdirs

from quickcomm.kernel.keys import KeySettings
from quickcomm.kernel.runtime.declaration import Module
from quickcomm.kernel.runtime.setting_sources import read_settings
from quickcomm.kernel.settings import CheckSettings, InstanceSettings, StorageSettings, TrustSettings
from quickcomm.kernel.site_pack import DEFAULT_PACK
from quickcomm.kernel.telemetry.settings import Budget, TelemetrySettings

S = TypeVar("S", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that every process reads. `of` gives the sections of modules."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    pack: str = DEFAULT_PACK
    """Name of a site pack, or a path to one."""
    cache_dir: str | None = None
    """Where models are prepared; shared between data directories."""
    redis_url: str | None = None
    """Valkey or Redis of this site, given to every process by `up`: conversations and messages are kept there."""
    keys: KeySettings = KeySettings()
    storage: StorageSettings = StorageSettings()
    check: CheckSettings = CheckSettings()
    instance: InstanceSettings = InstanceSettings()
    trust: TrustSettings = TrustSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    budgets: Budget = Budget()
    """Milliseconds that each stage may take."""

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir) if self.cache_dir else platformdirs.user_cache_path("quickcomm")

    def of(self, kind: type[S]) -> S:
        """Return the section that is declared with this type; its defaults where no module of the process has it."""
        for name in self.__struct_fields__:
            if isinstance(found := getattr(self, name), kind):
                return found
        return kind()


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process without the dashboard reads of its section."""

    metrics_open: bool = False
    """`/metrics` without a key."""


@cache
def settings_type(sections: tuple[tuple[str, type[msgspec.Struct]], ...], *, whole: bool) -> type[Settings]:
    """Return the type of settings with these sections. `whole`: there are no others in the file of a site."""
    fields = [(name, kind, kind()) for name, kind in sections]
    made = msgspec.defstruct(
        "Settings", fields, bases=(Settings,), frozen=True, kw_only=True, forbid_unknown_fields=whole
    )
    return cast("type[Settings]", made)


def read_sections(
    modules: Iterable[Module], data_dir: Path, flags: Mapping[str, object], environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the share of these modules, and leave the others alone. Raises `ConfigurationError` for a wrong setting."""
    modules = tuple(modules)
    sections = {"dashboard": MetricsSettings} | {name: kind for each in modules for name, kind in each.settings.items()}
    settings = read_settings(settings_type(tuple(sections.items()), whole=False), data_dir, flags, environment)
    for module in modules:
        module.check(settings)
    return settings
