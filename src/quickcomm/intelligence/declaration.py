"""The declaration of intelligence: transcripts in, insights and summaries out."""

from pathlib import Path
from typing import Final

import msgspec

from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.routes import MONOLITH
from quickcomm.contracts.summaries import SUMMARIES
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.model.cache import CacheSettings
from quickcomm.intelligence.model.settings import LlmSettings, StoreSettings, check
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.kernel.messaging.bus.redis_assignments import Fence
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS
from quickcomm.kernel.runtime.data_directory import DATABASE, DataDirectory
from quickcomm.kernel.runtime.declaration import Group, Module, Replicas, SettingsReader, StoreKeys
from quickcomm.kernel.settings import InstanceSettings

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
    elsewhere = settings.of(StoreSettings).database_url
    side = settings.of(InstanceSettings).side
    if side not in {"", MONOLITH}:
        return elsewhere or DataDirectory(site).part(GROUP, side).database
    return elsewhere or site / DATABASE


def _replicas(settings: SettingsReader) -> Replicas:
    if settings.of(StoreSettings).database_url is None:
        return Replicas(most=1, because=IN_A_FILE)
    return Replicas(most=PARTITIONS, because=SHARED)


class _Answer(msgspec.Struct):
    """What insights say of the utterance that they answer."""

    site: str
    conversation_id: str
    utterance_id: str
    owner_epoch: int = 0


_answers: Final = msgspec.json.Decoder(_Answer)


def fence(payload: bytes) -> Fence | None:
    """Return the fence of insights; None where their transcript had no stamp."""
    found = _answers.decode(payload)
    if not found.owner_epoch:
        return None
    name = f"{found.site}:{found.conversation_id}"
    return Fence(name=name, epoch=found.owner_epoch, utterance_id=found.utterance_id)


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
        Group(name=SUMMARIES_GROUP, streams=(TRANSCRIPTS, INSIGHTS, CONVERSATIONS, SUMMARIES)),
    ),
    fences={INSIGHTS: fence},
    trims=True,
    store=(
        StoreKeys(keys=(BREAKER_KEY,), commands=("hget", "hset", "hmget", "pexpire")),
        StoreKeys(keys=("understanding", "understanding:*"), commands=("hget", "hmget", "hdel", "hlen", "srem")),
    ),
    replicas=_replicas,
    database=_database,
    also=("quickcomm.dashboard.history",),
    history="quickcomm.intelligence.history",
)
