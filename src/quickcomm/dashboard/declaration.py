"""The declaration of the dashboard: all streams in; page, REST and live push out."""

from pathlib import Path
from typing import Final

from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.decisions import DECISIONS
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.summaries import SUMMARIES
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.dashboard.ports import DashboardSettings
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.declaration import Group, Module, Replicas, Route, SettingsReader, StoreKeys

GROUP: Final = "dashboard"
DECIDERS: Final = "decisions"
"""Decides what follows from what was said; in a process alone. With one database, that is done as it is folded."""
PROBE_S: Final = 5.0
IN_A_FILE: Final = "its database is a file: give it PostgreSQL (dashboard.database_url)"
SHARED: Final = "so many partitions share the work"


def _database(settings: SettingsReader, site: Path) -> Path | str:
    return settings.of(DashboardSettings).database_url or DataDirectory(site).dashboard.database


def _replicas(settings: SettingsReader) -> Replicas:
    if settings.of(DashboardSettings).database_url is None:
        return Replicas(most=1, because=IN_A_FILE)
    return Replicas(most=PARTITIONS, because=SHARED)


DASHBOARD: Final = Module(
    name="dashboard",
    build="quickcomm.dashboard.assembly",
    settings={"dashboard": DashboardSettings},
    appends=(DECISIONS,),
    consumes=(
        Group(name=GROUP, streams=(TRANSCRIPTS, CONVERSATIONS, INSIGHTS, SUMMARIES, DECISIONS)),
        Group(name=DECIDERS, streams=(TRANSCRIPTS, INSIGHTS), shared=True),
    ),
    store=(StoreKeys(keys=("decisions:*",), commands=("get", "set", "hget", "hset")),),
    makes_keys=True,
    watches_site=True,
    without_store="Cards are not renewed meanwhile; they come when it is back.",
    routes=(
        Route(name="live", path="/v1/live", websocket=True, by_client=True),
        Route(name="health", path="/healthz", answers_within_s=PROBE_S),
        Route(name="health", path="/readyz", answers_within_s=PROBE_S),
        Route(name="rest", path="/v1/", by_client=True),
        Route(name="rest", path="/openapi.json", by_client=True),
        Route(name="rest", path="/asyncapi.json", by_client=True),
        Route(name="rest", path="/metrics", by_client=True),
        Route(name="page", path="/", by_client=True),
    ),
    replicas=_replicas,
    database=_database,
    home="dashboard",
    history="quickcomm.dashboard.history",
)
