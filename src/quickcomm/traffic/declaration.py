"""The declaration of the migration controller: a process of its own beside the monolith, with routes in the store."""

from pathlib import Path
from typing import Final

from quickcomm.kernel.runtime.data_directory import TRAFFIC as HOME
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.declaration import Module, Replicas, SettingsReader, StoreKeys
from quickcomm.traffic.ports import TrafficSettings

ONE: Final = "one controller decides, and keeps its state in a file"


def _database(_settings: SettingsReader, site: Path) -> Path:
    return DataDirectory(site).traffic.database


def _replicas(_settings: SettingsReader) -> Replicas:
    return Replicas(most=1, because=ONE)


TRAFFIC: Final = Module(
    name="traffic",
    build="quickcomm.traffic.assembly",
    settings={"traffic": TrafficSettings},
    store=(StoreKeys(keys=("routes", "routes:*"), commands=("time", "hget", "hset", "hmget", "hgetall")),),
    without_store="Nobody learns of new routes meanwhile; all keep those that they have.",
    replicas=_replicas,
    database=_database,
    home=HOME,
)
