"""How messages are read: what a later release adds to one is passed over, at every depth.

Structs of messages pass over unknown fields by themselves. Insights do not: what a model or a person claims must fit to
the letter. In a message that another process wrote they may have more, and are read as if they had not.
"""

from typing import Any, Final, Protocol, TypeVar, cast

import msgspec

from quickcomm.contracts.insight import Evidence, Insight, Item
from quickcomm.contracts.insights import InsightsFound

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class Reader(Protocol[M_co]):
    def decode(self, buf: bytes, /) -> M_co:
        """Raises what is `MALFORMED`."""
        ...


class _Item(Item, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """With more."""


class _Evidence(Evidence, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """With more."""


class _Insight(Insight, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """With more."""

    items: tuple[_Item, ...] = ()
    evidence: _Evidence = _Evidence()


class _InsightsFound(InsightsFound, frozen=True, kw_only=True):
    insights: tuple[_Insight, ...]


class _InsightsReader:
    def __init__(self) -> None:
        self._strict = msgspec.json.Decoder(InsightsFound)
        self._with_more = msgspec.json.Decoder(_InsightsFound)

    def decode(self, buf: bytes, /) -> InsightsFound:
        try:
            return self._strict.decode(buf)
        except msgspec.ValidationError:
            return msgspec.convert(msgspec.to_builtins(self._with_more.decode(buf)), InsightsFound)


_OWN: Final[dict[type[Any], type[Any]]] = {InsightsFound: _InsightsReader}


def reader(kind: type[M]) -> Reader[M]:
    """For messages of a stream, as JSON."""
    own = _OWN.get(kind)
    return cast("Reader[M]", own() if own is not None else msgspec.json.Decoder(kind))
