"""Sums up what a module has in a range of keys; used by each module's answer to `Compare`."""

from collections.abc import Iterable
from typing import Final

import msgspec
import sqlalchemy as sa
import xxhash
from sqlalchemy import Connection

from quickcomm.contracts.backfill import MODULUS, written
from quickcomm.contracts.checking import MAX_FAULTS, Compare, Contents, Fault, Item, Key, Summary
from quickcomm.contracts.conversations import Ledger

UNBALANCED: Final = "ledger.unbalanced"
_encode: Final = msgspec.msgpack.Encoder().encode


class Gathering:
    """Counts and digests by kind, the items where they are wanted, and faults."""

    def __init__(self, request: Compare, until: Key | None) -> None:
        """`until`: as far as the module tells."""
        self._wants_items = request.items
        self._until = until
        self._sums: dict[str, tuple[int, int]] = {}
        self._items: dict[str, list[Item]] = {}
        self._faults: list[Fault] = []

    def add(self, kind: str, rows: Iterable[tuple[str, str, object, int]]) -> None:
        """Add rows of site, id, content and time; rows without content are compared by their id alone."""
        count, total = self._sums.get(kind, (0, 0))
        items = self._items.setdefault(kind, []) if self._wants_items else None
        for site, name, content, at_ns in rows:
            digest = xxhash.xxh64_intdigest(_encode((site, name, content)))
            count, total = count + 1, total + digest
            if items is not None:
                items.append(Item(site=site, id=name, digest=written(digest), at_ns=at_ns))
        self._sums[kind] = count, total % MODULUS

    def fault(self, code: str, site: str, name: str, at_ns: int = 0, detail: str = "") -> None:
        """Tell of something that is wrong; of a range, the first `MAX_FAULTS`."""
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(Fault(code=code, site=site, id=name, at_ns=at_ns, detail=detail))

    def check_ledgers(self, site: str, conversation_id: str, ledgers: Iterable[Ledger], at_ns: int) -> None:
        """Tell of a ledger that does not add up."""
        for speaker, ledger in enumerate(ledgers):
            if not ledger.balanced:
                parts = f"{ledger.speech} + {ledger.silence} + {ledger.gap}"
                detail = f"speaker {speaker}: {ledger.received} samples received, {parts} accounted for"
                self.fault(UNBALANCED, site, conversation_id, at_ns, detail)

    def contents(self) -> Contents:
        kinds = {kind: Summary(count=count, digest=written(total)) for kind, (count, total) in self._sums.items()}
        return Contents(until=self._until, kinds=kinds, items=self._items, faults=self._faults)


def within(
    site: sa.ColumnElement[str], name: sa.ColumnElement[str], request: Compare, until: Key | None
) -> sa.ColumnElement[bool]:
    """Return the condition for keys behind the request's `after`, up to `until`."""
    key = sa.tuple_(site, name)
    behind = key > _literal(request.after)
    return behind if until is None else sa.and_(behind, key <= _literal(until))


def reach(
    connection: Connection,
    site: sa.ColumnElement[str],
    name: sa.ColumnElement[str],
    request: Compare,
    *which: sa.ColumnElement[bool],
) -> Key | None:
    """Return how far an answer goes: to the last key that `limit` allows, else to the end of the request."""
    query = (
        sa.select(site, name)
        .where(within(site, name, request, request.until), *which)
        .order_by(site, name)
        .offset(request.limit - 1)
        .limit(2)
    )
    last = connection.execute(query).all()
    return (last[0][0], last[0][1]) if len(last) > 1 else request.until


def _literal(key: Key) -> sa.ColumnElement[tuple[str, str]]:
    return sa.tuple_(*(sa.literal(part) for part in key))
