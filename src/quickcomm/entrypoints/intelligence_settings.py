"""The settings of intelligence as a service of its own: its share of the site's, others are left alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

from quickcomm.entrypoints.setting_sources import read_settings
from quickcomm.intelligence.model.cache import CacheSettings
from quickcomm.intelligence.model.settings import LlmSettings, StoreSettings
from quickcomm.intelligence.model.settings import check as check_llm
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.kernel.keys import KeySettings
from quickcomm.kernel.settings import InstanceSettings, StorageSettings, TrustSettings
from quickcomm.kernel.site_pack import DEFAULT_PACK
from quickcomm.kernel.telemetry.settings import Budget, TelemetrySettings


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the dashboard's settings, the one that is about every service."""

    metrics_open: bool = False


class IntelligenceServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """As in `settings.Settings`, which knows them all."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    pack: str = DEFAULT_PACK
    cache_dir: str | None = None
    redis_url: str | None = None
    llm: LlmSettings = LlmSettings()
    answers: CacheSettings = CacheSettings()
    usage: UsageSettings = UsageSettings()
    summaries: SummarySettings = SummarySettings()
    intelligence: StoreSettings = StoreSettings()
    dashboard: Figures = Figures()
    keys: KeySettings = KeySettings()
    storage: StorageSettings = StorageSettings()
    instance: InstanceSettings = InstanceSettings()
    trust: TrustSettings = TrustSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    budgets: Budget = Budget()

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir) if self.cache_dir else platformdirs.user_cache_path("quickcomm")


def load_intelligence_settings(data_dir: Path, flags: Mapping[str, object]) -> IntelligenceServiceSettings:
    """Raises `ConfigurationError` that names the setting."""
    settings = read_settings(IntelligenceServiceSettings, data_dir, flags)
    check_llm(settings.llm)
    return settings
