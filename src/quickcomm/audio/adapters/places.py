"""Storage of audio: conversations in a database or a Valkey, recordings in a directory or a bucket."""

from pathlib import Path

import msgspec

from quickcomm.audio.adapters.recorder import Folder, Shelf
from quickcomm.audio.adapters.sql_sessions import SqlSessions
from quickcomm.audio.ports import SessionStore
from quickcomm.contracts.routes import MONOLITH, Side
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.routing import FollowedRoutes
from quickcomm.kernel.storage import Database


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of the storage, and the side of this process."""

    recordings: Path | str | None = None
    """The sound of utterances: a directory, or `s3://bucket/prefix`; None keeps none."""
    recordings_endpoint: str | None = None
    """URL of the bucket's endpoint, if it is not Amazon's."""
    redis_url: str | None = None
    """Conversations, in this Valkey and not in the database."""
    owner: str = "monolith"
    """There, and for other processes: a name that one process has at a time."""
    routes: FollowedRoutes | None = None
    """There: by which audio and intelligence move; None where they do not."""
    side: Side = MONOLITH


def sessions(places: Places, database: Database | None, clock: Clock, step_s: float) -> SessionStore:
    """Return where conversations are kept."""
    if places.redis_url is None:
        assert database is not None, "conversations are in Valkey, or in a database"  # noqa: S101 - a programming error
        return SqlSessions(database, clock)
    from quickcomm.audio.adapters.redis_sessions import RedisSessions  # noqa: PLC0415 - where there is no Valkey
    from quickcomm.audio.adapters.redis_sides import Moves  # noqa: PLC0415 - likewise

    moves = None if places.routes is None else Moves(routes=places.routes, step_s=step_s)
    return RedisSessions(places.redis_url, clock, owner=places.owner, moves=moves)


def shelf_of(places: Places, clock: Clock) -> Shelf | None:
    """Return where the sound of utterances is kept, if it is."""
    where = places.recordings
    if where is None or isinstance(where, Path):
        return None if where is None else Folder(where)
    from quickcomm.audio.adapters.bucket import Bucket, is_address  # noqa: PLC0415 - most sites have none

    return Bucket(where, clock, endpoint=places.recordings_endpoint) if is_address(where) else Folder(Path(where))
