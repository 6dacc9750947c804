"""Unit costs: what a second of speech, an utterance, a page or a process takes of a machine, and how sure that is."""

from typing import Annotated, Final, Literal

import msgspec

from quickcomm.capacity.model.timing import Timing
from quickcomm.kernel.errors import InvalidInputError

VERSION: Final = 1
Resource = Literal["cpu_s", "memory_mb", "gpu_s", "tokens_in", "tokens_out"]
"""Seconds of one core; resident megabytes; seconds of one GPU; tokens of a language model."""
Per = Literal[
    "speech_s",
    "silent_channel_h",
    "utterance_local",
    "utterance_model",
    "page_h",
    "query",
    "process",
    "process_h",
    "conversation",
]
"""`process`: one that is there at all, such as its memory; `process_h`: of one that has nothing to do, for an hour;
`conversation`: one that is open; `utterance_model`: what is added where a language model is asked."""
Origin = Literal["measured", "published", "assumed"]
Deployment = Literal["monolith", "services"]
Positive = Annotated[float, msgspec.Meta(ge=0)]


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The median of `runs`, the least and the most. `source`: where it is from, if it was not measured here."""

    median: Positive
    low: Positive
    high: Positive
    runs: Annotated[int, msgspec.Meta(ge=1)] = 1
    origin: Origin = "measured"
    source: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` where the spread does not hold the median, or nothing says where it is from."""
        if not self.low <= self.median <= self.high:
            message = f"low {self.low}, median {self.median}, high {self.high}: not in this order"
            raise ValueError(message)
        if self.origin != "measured" and not self.source:
            message = "a figure that was not measured needs its `source`"
            raise ValueError(message)


class Unit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `module` takes of `resource` for one `per`. In the monolith its name is `monolith`: one process has all."""

    module: str
    per: Per
    resource: Resource
    figure: Figure


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cpu: str
    cores: Annotated[int, msgspec.Meta(ge=1)]
    memory_mb: Annotated[int, msgspec.Meta(ge=1)]
    gpu: str | None = None


class UnitCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one machine, for each deployment that was measured. `taken_at`: ISO 8601, UTC."""

    version: int = VERSION
    machine: Machine
    taken_at: str
    deployments: dict[Deployment, tuple[Unit, ...]]
    timing: Timing | None = None
    """How long single steps take, for `quickcomm simulate`; None: as published for two cores (docs/benchmarks.md)."""

    def find(self, deployment: Deployment, module: str, per: Per, resource: Resource) -> Figure | None:
        """Return None where it was not measured."""
        for unit in self.deployments.get(deployment, ()):
            if (unit.module, unit.per, unit.resource) == (module, per, resource):
                return unit.figure
        return None

    def modules(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the modules of which a deployment has figures, in their order."""
        return tuple(dict.fromkeys(unit.module for unit in self.deployments.get(deployment, ())))


def read_units(content: bytes) -> UnitCosts:
    """Raise `InvalidInputError` with what is wrong and where."""
    try:
        found = msgspec.json.decode(content, type=UnitCosts)
    except msgspec.DecodeError as error:
        raise InvalidInputError(f"Not unit costs: {error}. Measure them: quickcomm bench units --json") from error
    if found.version != VERSION:
        raise InvalidInputError(f"Unit costs of version {found.version}; this release reads {VERSION}.")
    return found
