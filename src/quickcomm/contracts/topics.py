"""What a topic declares: who publishes it, who may subscribe, and what happens to messages that have to wait."""

from collections.abc import Hashable
from typing import ClassVar, Literal

import msgspec


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the messages that are pushed at once and may be lost. A topic is a struct with a tag, its name.

    `kind`: of "state" the newest message of each `key` counts; "events" all count, in their order, as far as there is
    room. `replayed`: a new subscriber gets the state as it is. `publishers`: the modules that publish it, and where it
    is therefore subscribed to. `subscribers`: the services that may do so. `back`: it goes from a subscriber to the
    publishers of what it has subscribed to, over the same connection.
    """

    kind: ClassVar[Literal["state", "events"]] = "events"
    replayed: ClassVar[bool] = False
    publishers: ClassVar[tuple[str, ...]] = ()
    subscribers: ClassVar[tuple[str, ...]] = ()
    back: ClassVar[bool] = False

    def key(self) -> Hashable:
        """Return that of which this is the state."""
        return ()


def name_of(topic: type[Topic]) -> str:
    """Return the name of a topic: its tag."""
    return str(topic.__struct_config__.tag)
