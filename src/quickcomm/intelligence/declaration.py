"""The declaration of intelligence: transcripts in, insights and summaries out."""

from pathlib import Path
from typing import Final

from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.summaries import SUMMARIES
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.model.cache import CacheSettings
from quickcomm.intelligence.model.settings import LlmSettings, StoreSettings, check
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS
from quickcomm.kernel.runtime.data_directory import DATABASE
from quickcomm.kernel.runtime.declaration import Group, Module, Replicas, SettingsReader, StoreKeys

GROUP: Final = "intelligence"
SUMMARIES_GROUP: Final = "summaries"
BREAKER_KEY: Final = "intelligence:model"
"""In the store: what the processes know together of the language model."""
IN_A_FILE: Final = (
    "it keeps prompts, costs and results in a file, and is the only one that writes to it. With a PostgreSQL database "
    "(QUICKCOMM_INTELLIGENCE_DATABASE_URL) there can be more"
)
SHARED: Final = "so many partitions share the work"


def _check(settings: SettingsReader) -> None:
    check(settings.of(LlmSettings))


def _database(settings: SettingsReader, site: Path) -> Path | str:
    return settings.of(StoreSettings).database_url or site / DATABASE


def _replicas(settings: SettingsReader) -> Replicas:
    if settings.of(StoreSettings).database_url is None:
        return Replicas(most=1, because=IN_A_FILE)
    return Replicas(most=PARTITIONS, because=SHARED)


INTELLIGENCE: Final = Module(
    name="intelligence",
    build="quickcomm.intelligence.assembly",
    settings={
        "llm": LlmSettings,
        "answers": CacheSettings,
        "usage": UsageSettings,
        "summaries": SummarySettings,
        "intelligence": StoreSettings,
    },
    check=_check,
    options=("pack", "llm_url", "llm_model"),
    publishes=(INSIGHTS, SUMMARIES),
    consumes=(
        Group(name=GROUP, streams=(TRANSCRIPTS,)),
        Group(name=SUMMARIES_GROUP, streams=(TRANSCRIPTS, INSIGHTS, CONVERSATIONS)),
    ),
    trims=True,
    store=(StoreKeys(keys=(BREAKER_KEY,), commands=("hget", "hset", "hmget", "pexpire"), between_replicas=True),),
    replicas=_replicas,
    database=_database,
    also=("quickcomm.dashboard.history",),
)
