"""The declaration of the session relay: no engine, no database, and no process unless one is wanted."""

from typing import Final

from quickcomm.audio.declaration import AUDIO, INGEST
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.kernel.runtime.declaration import Module, Replicas, SettingsReader
from quickcomm.relay.settings import RelaySettings


def _replicas(settings: SettingsReader) -> Replicas:
    return Replicas(first=settings.of(RelaySettings).processes, least=0)


def _drain_s(settings: SettingsReader) -> float:
    own = settings.of(RelaySettings)
    return own.drain_s + own.linger_s


RELAY: Final = Module(
    name="relay",
    build="quickcomm.relay.assembly",
    settings={"relay": RelaySettings, "audio": AudioSettings},
    without_store="Clients stay connected; new ones are let in once the store is back.",
    stands_before=tuple(route for route in AUDIO.routes if route.path != INGEST),
    replicas=_replicas,
    drain_s=_drain_s,
)
