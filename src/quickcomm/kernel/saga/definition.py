"""What an operation is: named steps, each a command to a module, with the command that takes it back. Pure."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from quickcomm.contracts.messaging import name_of, reply_type
from quickcomm.contracts.saga import StepRequest, Undone
from quickcomm.kernel.errors import ConfigurationError

S = TypeVar("S", bound=msgspec.Struct)


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What the command of a step is made of."""

    key: str
    """The idempotency key of the step."""
    site: str
    by: str
    """Who started the operation."""
    at_ns: int
    """When it was started."""
    input: Any
    """Of the operation's type."""
    results: Mapping[str, Any]
    """The replies of earlier steps, by their names."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A command, and the one that takes it back. Exactly one of `undo` and `stays` is set.

    `asks`: the type of the command that `does` makes; `does` may be called once more without results, before the
    operation begins, for what has to be prepared outside of a transaction.
    """

    name: str
    asks: type[StepRequest[Any]]
    does: Callable[[Given], StepRequest[Any]]
    undoes: type[StepRequest[Undone]] | None = None
    undo: Callable[[Given], StepRequest[Undone]] | None = None
    stays: str = ""
    """Why nothing takes it back."""
    outside: bool = False
    """By its nature not part of a transaction: a file, a bucket, a webhook."""
    patience_s: float = 600.0
    """How long a step is tried again that may still succeed."""

    @property
    def module(self) -> str:
        return self.asks.module


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """`input`: the type of what it is started with. `subject`: returns what it is about, for people.

    `once`: done about one subject, it is not done again; False: one at a time. `nameless`: returns the input without
    names of people, for records of which such a name is erased; None: no input has any. `spoken`: returns the id of the
    utterance or conversation that it is about, to whose trace its own is linked.
    """

    name: str
    input: type[msgspec.Struct]
    subject: Callable[[Any], str]
    steps: tuple[Step, ...]
    once: bool = True
    nameless: Callable[[Any], Any] | None = None
    spoken: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a definition that cannot be executed."""
        if len({step.name for step in self.steps}) < len(self.steps):
            raise ConfigurationError(f"Two steps of {self.name} have one name.")
        for step in self.steps:
            if (step.undo is None) != (step.undoes is None) or (step.undo is None) != bool(step.stays):
                raise ConfigurationError(
                    f"{self.name}/{step.name} needs a compensation, or the reason for having none."
                )
            if step.undoes is not None and step.undoes.module != step.module:
                raise ConfigurationError(f"{self.name}/{step.name} is taken back by another module than did it.")

    def step(self, name: str) -> Step:
        """Raise `KeyError` where there is none of this name."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)


def key_of(operation_id: str, step: Step) -> str:
    """Return the idempotency key of a step."""
    return f"{operation_id}:{step.name}"


def digest(operations: Iterable[Operation]) -> str:
    """Return 16 hex digits that change when a definition does: another order, step, command or field of one."""
    told = [
        [each.name, _fields(each.input)]
        + [[step.name, _told(step.asks), _told(step.undoes), step.stays != "", step.outside] for step in each.steps]
        for each in sorted(operations, key=lambda each: each.name)
    ]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


def _told(kind: type[StepRequest[Any]] | None) -> list[Any]:
    return [] if kind is None else [name_of(kind), kind.module, _fields(kind), _fields(reply_type(kind))]


def _fields(kind: type[Any]) -> list[str]:
    return [f"{field.encode_name}:{field.type}" for field in msgspec.structs.fields(kind)]
