"""The settings of audio as a service of its own: its share of the site's, others are left alone."""

from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

from quickcomm.audio.model.settings import AudioSettings
from quickcomm.kernel.keys import KeySettings
from quickcomm.kernel.settings import InstanceSettings, StorageSettings, TrustSettings
from quickcomm.kernel.site_pack import DEFAULT_PACK
from quickcomm.kernel.telemetry.settings import Budget, TelemetrySettings


class SttSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    engine: str = "whisper"
    model: str = "tiny.en"
    model_path: str | None = None
    """A folder with a CTranslate2 Whisper model."""
    language: str = "en"
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    """Decodings at once in each process. 0: two, shared out where audio has several processes."""
    allow_hub: bool = True
    """Whether a model that is not installed may be fetched from its hub."""


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    metrics_open: bool = False
    """`/metrics` without a key."""


class AudioServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """As in `settings.Settings`, which knows them all."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    pack: str = DEFAULT_PACK
    cache_dir: str | None = None
    redis_url: str | None = None
    audio: AudioSettings = AudioSettings()
    stt: SttSettings = SttSettings()
    dashboard: MetricsSettings = MetricsSettings()
    keys: KeySettings = KeySettings()
    storage: StorageSettings = StorageSettings()
    instance: InstanceSettings = InstanceSettings()
    trust: TrustSettings = TrustSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    budgets: Budget = Budget()

    @property
    def cache(self) -> Path:
        return cache_of(self.cache_dir)


def cache_of(cache_dir: str | None) -> Path:
    return Path(cache_dir) if cache_dir else platformdirs.user_cache_path("quickcomm")
