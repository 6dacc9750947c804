"""How many of the model's answers are kept, and for how long."""

from typing import Annotated

import msgspec


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entries: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    ttl_hours: Annotated[float, msgspec.Meta(gt=0, le=87_600)] = 168.0
