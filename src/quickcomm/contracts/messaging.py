"""What a request of one module to another declares, and what a topic of the live channel does. The tag is the name."""

from collections.abc import Hashable
from typing import ClassVar, Final, Generic, Literal, TypeVar, get_args

import msgspec

EVERY: Final = "*"
"""The module of a request that every process answers: `call_all` asks them all, the own one included."""

R = TypeVar("R", covariant=True)  # noqa: PLC0105 - `Request[R]` reads as what it is


class Request(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """Base of all requests; `R` is the reply. Declare one beside its reply, in `contracts`, with a tag.

    `to`: "any" replica of `module` answers, the "owner" alone (others raise `NotOwnerError`), or "all" of them.
    `callers`: the services that may ask, beside modules of the same process. `within_s`: seconds for one replica; None:
    no limit. `about`: what only `module` knows, for the error while it does not answer.
    """

    module: ClassVar[str]
    to: ClassVar[Literal["any", "owner", "all"]] = "any"
    callers: ClassVar[tuple[str, ...]] = ()
    within_s: ClassVar[float | None] = 2.0
    about: ClassVar[str] = "the answer"


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the messages that are pushed at once and may be lost. A topic is a struct with a tag, its name.

    `kind`: of "state" the newest message of each `key` counts; "events" all count, in their order, as far as there is
    room; "bulk" waits until nothing else does, and has little room. `replayed`: a new subscriber gets the state as it
    is. `publishers`: the modules that publish it, and where it is therefore subscribed to. `subscribers`: the services
    that may do so. `back`: it goes from a subscriber to the publishers of what it has subscribed to, over the same
    connection.
    """

    kind: ClassVar[Literal["state", "events", "bulk"]] = "events"
    replayed: ClassVar[bool] = False
    publishers: ClassVar[tuple[str, ...]] = ()
    subscribers: ClassVar[tuple[str, ...]] = ()
    back: ClassVar[bool] = False

    def key(self) -> Hashable:
        """Return that of which this is the state."""
        return ()


def name_of(kind: type[msgspec.Struct]) -> str:
    """Return the name of a request or a topic: its tag."""
    return str(kind.__struct_config__.tag)


def reply_type(kind: type[Request[R]]) -> type[R]:
    """Return the type that a request is answered with: of `Request[UsageReport]`, `UsageReport`."""
    found: type[R] = get_args(kind.__orig_bases__[0])[0]  # type: ignore[attr-defined]
    return found
