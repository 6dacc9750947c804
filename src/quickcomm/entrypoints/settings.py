"""All settings in one place, with their defaults; `setting_sources` says where else they come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

# Not from the modules' faces: those load the whole server, and every command reads this file.
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.dashboard.ports import DashboardSettings
from quickcomm.edge.settings import EdgeSettings
from quickcomm.entrypoints.audio_settings import SttSettings, cache_of
from quickcomm.entrypoints.setting_sources import FILE, SECTIONS, SPEECH_DATA, read_settings
from quickcomm.intelligence.model.cache import CacheSettings
from quickcomm.intelligence.model.settings import LlmSettings, StoreSettings
from quickcomm.intelligence.model.settings import check as check_llm
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.kernel.keys import KeySettings
from quickcomm.kernel.settings import InstanceSettings, StorageSettings, TrustSettings
from quickcomm.kernel.site_pack import DEFAULT_PACK
from quickcomm.kernel.telemetry.settings import Budget, TelemetrySettings
from quickcomm.topology.model.settings import PrioritySettings

__all__ = ["FILE", "SECTIONS", "SPEECH_DATA", "Settings", "SttSettings", "load_settings"]


S = TypeVar("S", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    pack: str = DEFAULT_PACK
    """Name of a site pack, or a path to one."""
    cache_dir: str | None = None
    """Where models are prepared; shared between data directories."""
    redis_url: str | None = None
    """Valkey or Redis of this site, given to every process by `up`: conversations and messages are kept there."""
    audio: AudioSettings = AudioSettings()
    stt: SttSettings = SttSettings()
    llm: LlmSettings = LlmSettings()
    intelligence: StoreSettings = StoreSettings()
    dashboard: DashboardSettings = DashboardSettings()
    keys: KeySettings = KeySettings()
    answers: CacheSettings = CacheSettings()
    usage: UsageSettings = UsageSettings()
    summaries: SummarySettings = SummarySettings()
    storage: StorageSettings = StorageSettings()
    edge: EdgeSettings = EdgeSettings()
    priority: PrioritySettings = PrioritySettings()
    instance: InstanceSettings = InstanceSettings()
    trust: TrustSettings = TrustSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    budgets: Budget = Budget()
    """Milliseconds that each stage may take."""

    @property
    def cache(self) -> Path:
        return cache_of(self.cache_dir)

    def of(self, kind: type[S]) -> S:
        """Return the section that has this type."""
        return next(each for name in self.__struct_fields__ if isinstance(each := getattr(self, name), kind))


def load_settings(
    data_dir: Path, flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Raises `ConfigurationError` that names the setting."""
    settings = read_settings(Settings, data_dir, flags, environment)
    check_llm(settings.llm)
    return settings
