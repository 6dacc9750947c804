"""Settings types shared by modules; the only place that reads the environment is `entrypoints/settings.py`."""

from typing import Annotated

import msgspec


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 90
    """Conversations that ended longer ago are deleted; 0 keeps everything."""
    recordings: bool = False
    """Keep the sound of every utterance as FLAC."""
