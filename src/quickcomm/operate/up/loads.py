"""The readings of `up --autoscale`: what each process of audio says, and what waits in the store for intelligence."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from quickcomm.capacity.model.scaling import Reading
from quickcomm.contracts.checking import Waiting
from quickcomm.contracts.commands import Command, GetStatus
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.declaration import GROUP
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, BusyError, QuickCommError
from quickcomm.kernel.runtime.admin_socket import Rows
from quickcomm.topology.module import Keeper

AUDIO: Final = "audio"
INTELLIGENCE: Final = "intelligence"
ANSWER_S: Final = 5.0
FAILURES: Final = (QuickCommError, aiohttp.ClientError, OSError, *MALFORMED)
"""What a process or the store may answer with, or not at all; a TimeoutError is an OSError."""
Ask = Callable[[str, Command, float], Awaitable[Rows]]
"""Ask a process, by its name, within so many seconds."""


class NotReadError(BusyError):
    """A process does not say how it is. What is not known changes nothing."""

    code = "autoscale.not_read"


class AudioLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a process's status that tell its load. None: it is of a release that does not tell."""

    talkers: int | None = None
    stt_workers: int | None = None
    stt_backlog_s: float
    """Seconds of finished speech that wait for a decode worker."""
    cannot_resume: int = 0
    """Conversations of clients that would be cut off if it stopped, such as telephone calls."""


class Loads(NamedTuple):
    """`audio`: by the names of the processes, in the order in which they were started."""

    reading: Reading
    audio: Mapping[str, AudioLoad]


class Meter:
    def __init__(
        self,
        keepers: Callable[[], Sequence[Keeper]],
        ask: Ask,
        waiting: Callable[[], Awaitable[Sequence[Waiting]]],
        clock: Clock,
        *,
        model_s: float = 0.0,
    ) -> None:
        """`waiting`: what waits in the store. `model_s`: for so long an utterance may be with the language model."""
        self._keepers = keepers
        self._ask = ask
        self._waiting = waiting
        self._clock = clock
        self._model_s = model_s

    async def read(self) -> Loads:
        """Return the load of all processes now. Raises one of `FAILURES` where any of it is not known."""
        keepers = self._keepers()
        for keeper in keepers:
            if keeper.module in {AUDIO, INTELLIGENCE} and keeper.state != "ready":
                raise NotReadError(f"{keeper.name} is {keeper.state}.")
        names = [keeper.name for keeper in keepers if keeper.module == AUDIO]
        audio = dict(zip(names, await asyncio.gather(*map(self._load, names)), strict=True))
        lag_s, messages = await self._lag()
        reading = Reading(
            at_s=self._clock.monotonic(),
            talkers=sum(load.talkers or 0 for load in audio.values()),
            audio=len(audio),
            workers=min((load.stt_workers or 1 for load in audio.values()), default=1),
            backlog_s=math.fsum(load.stt_backlog_s for load in audio.values()),
            intelligence=sum(keeper.module == INTELLIGENCE for keeper in keepers),
            lag_s=lag_s,
            lag_messages=messages,
        )
        return Loads(reading, audio)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _load(self, name: str) -> AudioLoad:
        [row] = await self._ask(name, GetStatus(), ANSWER_S)
        load: AudioLoad = msgspec.convert(_known(row), AudioLoad)
        if load.talkers is None or load.stt_workers is None:
            raise NotReadError(f"{name} is of an earlier release, and does not say how many talk. Restart it.")
        return load

    async def _lag(self) -> tuple[float, int]:
        """Return the age of the oldest transcript that waits, and their number. One that the model has does not wait.

        The store counts a message until it is acknowledged; an answer of the model takes `model_s` at most.
        """
        async with self._clock.timeout(ANSWER_S):
            found = await self._waiting()
        ours = [each for each in found if (each.stream, each.group) == (TRANSCRIPTS, GROUP)]
        oldest_ns = min((each.oldest_ns for each in ours), default=self._clock.now_ns())
        age_s = (self._clock.now_ns() - oldest_ns) / 1e9
        return max(0.0, age_s - self._model_s), sum(each.count for each in ours)


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in AudioLoad.__struct_fields__ if name in row}


def excess(audio: Mapping[str, AudioLoad], behind_s: float = -1.0) -> dict[str, int]:
    """Return how many talkers each process has beyond an equal share, of those that have more.

    `behind_s`: only of a process for each of whose workers so many seconds of speech wait.
    """
    share = math.ceil(sum(load.talkers or 0 for load in audio.values()) / max(1, len(audio)))
    more = {name: (load.talkers or 0) - share for name, load in audio.items()}
    return {
        name: more[name]
        for name, load in audio.items()
        if more[name] > 0 and load.stt_backlog_s / (load.stt_workers or 1) > behind_s
    }
