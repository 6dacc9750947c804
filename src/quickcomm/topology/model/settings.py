"""Settings of the processes of `up`."""

from typing import Annotated

import msgspec

Nice = Annotated[int, msgspec.Meta(ge=-20, le=19)]


class AutoscaleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far `up --autoscale` may go."""

    talkers: Annotated[float, msgspec.Meta(gt=0)] = 16.0
    """Talkers that one decode worker of audio bears."""
    audio_most: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """Processes of audio at most. 0: as many as the decode workers of all of them have cores."""
    intelligence_most: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """Processes of intelligence at most. 0: one for each core."""


class PrioritySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much each module yields where processors are scarce (`nice`): 0 as much as `up` itself does, 19 to everybody.

    Who speaks must be heard at once; what becomes of it may take a moment longer. Below 0 needs the right to do so.
    """

    audio: Nice = 0
    intelligence: Nice = 5
    dashboard: Nice = 15
    monolith: Nice = 0
    edge: Nice = 0
    valkey: Nice = 0
    traffic: Nice = 5
    operations: Nice = 5

    def of(self, module: str, *, beside_monolith: bool = False) -> int:
        """0 for a module that is not named here.

        Beside a monolith no module yields more than the monolith does: the two are compared, and must wait alike.
        """
        nice = getattr(self, module) if module in self.__struct_fields__ else 0
        return min(nice, self.monolith) if beside_monolith else nice
