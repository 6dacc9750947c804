"""The settings of a dashboard that is a service of its own: its share of the site's, others are left alone."""

from typing import Annotated

import msgspec

from quickcomm.dashboard.ports import DashboardSettings
from quickcomm.kernel.keys import KeySettings
from quickcomm.kernel.settings import InstanceSettings, StorageSettings, TrustSettings
from quickcomm.kernel.telemetry.settings import Budget, TelemetrySettings


class DashboardServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """As in `settings.Settings`, which knows them all."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    redis_url: str | None = None
    dashboard: DashboardSettings = DashboardSettings()
    keys: KeySettings = KeySettings()
    storage: StorageSettings = StorageSettings()
    instance: InstanceSettings = InstanceSettings()
    trust: TrustSettings = TrustSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    budgets: Budget = Budget()
