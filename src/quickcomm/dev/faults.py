"""How the fake language model behaves: how long it takes, and what goes wrong how often. Changed while it runs."""

import math
import random
from typing import Annotated, Final, Literal

import msgspec

from quickcomm.kernel.errors import InvalidInputError

Fault = Literal["busy", "error", "hang", "cut", "wrong_schema", "drip"]
FAULTS: Final[tuple[Fault, ...]] = ("busy", "error", "hang", "cut", "wrong_schema", "drip")
Rate = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0.0, le=3_600_000.0)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=3_600.0)]

_SIGMAS_TO_P99: Final = 2.3263478740408408
"""The 99th percentile of a normal distribution, in standard deviations."""


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of `quickcomm dev fake-llm`, by the same names as in `POST /control`."""

    median_ms: Milliseconds = 0.0
    p99_ms: Milliseconds = 0.0
    """Latency is log-normal between these two; 0 for `p99_ms` means that every answer takes the median."""
    busy: Rate = 0.0
    """Share of requests that get 429 with Retry-After."""
    retry_after_s: Seconds = 1.0
    error: Rate = 0.0
    """Share that gets 500."""
    hang: Rate = 0.0
    """Share that gets no answer at all, until the client leaves."""
    cut: Rate = 0.0
    """Share whose JSON ends in the middle, with `finish_reason` "length"."""
    wrong_schema: Rate = 0.0
    """Share whose JSON is whole but not what was asked for."""
    drip: Rate = 0.0
    """Share whose answer comes a few bytes at a time, over `drip_s`."""
    drip_s: Seconds = 30.0
    max_concurrent: Annotated[int, msgspec.Meta(ge=0)] = 0
    """More requests at a time than this get 429; 0 for no limit."""
    dead: bool = False
    """Connections break without an answer, also those that wait."""
    obey: bool = False
    """Does what the utterance tells it: the rooms, things and urgency that it is ordered to return."""

    def __post_init__(self) -> None:
        if self.p99_ms and self.p99_ms < self.median_ms:
            raise ValueError("p99_ms must not be below median_ms")
        if sum(self.rate(fault) for fault in FAULTS) > 1.0 + 1e-9:
            raise ValueError("the rates of busy, error, hang, cut, wrong_schema and drip add up to more than 1")

    def rate(self, fault: Fault) -> float:
        rates = (self.busy, self.error, self.hang, self.cut, self.wrong_schema, self.drip)
        return rates[FAULTS.index(fault)]


def changed(behaviour: Behaviour, change: bytes) -> Behaviour:
    """The behaviour with some options changed, as JSON says. Raises `InvalidInputError` and says what is wrong."""
    try:
        asked = msgspec.json.decode(change, type=dict[str, object])
        return msgspec.convert({**msgspec.structs.asdict(behaviour), **asked}, Behaviour)
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
        raise InvalidInputError(f"The behaviour cannot be changed so: {error}") from error


class Dice:
    """Latencies and faults, drawn in order from one seed: the same requests meet the same fate in every run."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - made to be repeated, not to be secret

    def latency_s(self, behaviour: Behaviour) -> float:
        """Log-normal by median and 99th percentile; drawn even when it is constant, to keep the order."""
        normal = self._random.gauss(0.0, 1.0)
        median = behaviour.median_ms / 1_000
        if not median or not behaviour.p99_ms:
            return median
        return median * math.exp(normal * math.log(behaviour.p99_ms / behaviour.median_ms) / _SIGMAS_TO_P99)

    def fault(self, behaviour: Behaviour) -> Fault | None:
        left = self._random.random()
        for fault in FAULTS:
            left -= behaviour.rate(fault)
            if left < 0.0:
                return fault
        return None
