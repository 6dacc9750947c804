"""A small operation of three steps, its commands, and modules that answer them from one table of effects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec
import sqlalchemy as sa

from quickcomm.contracts.saga import StepRequest, Undone
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import ConflictError, UnavailableError
from quickcomm.kernel.messaging.rpc import LocalRpc
from quickcomm.kernel.saga import Compensating, Given, Operation, Step, Transaction, Transactional
from quickcomm.kernel.saga.keys import migrate_keys
from quickcomm.kernel.storage import Database


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    who: str


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    number: int


class BookHotel(StepRequest[Booked], frozen=True, kw_only=True, tag="test.hotel"):
    module: ClassVar = "hotel"
    who: str


class CancelHotel(StepRequest[Undone], frozen=True, kw_only=True, tag="test.hotel.cancel"):
    module: ClassVar = "hotel"


class BookFlight(StepRequest[Booked], frozen=True, kw_only=True, tag="test.flight"):
    module: ClassVar = "flight"
    hotel: int


class CancelFlight(StepRequest[Undone], frozen=True, kw_only=True, tag="test.flight.cancel"):
    module: ClassVar = "flight"


class Tell(StepRequest[Booked], frozen=True, kw_only=True, tag="test.tell"):
    module: ClassVar = "teller"
    flight: int


class TakeBack(StepRequest[Undone], frozen=True, kw_only=True, tag="test.tell.back"):
    module: ClassVar = "teller"


def _hotel(given: Given) -> BookHotel:
    return BookHotel(key=given.key, who=given.input.who)


def _no_hotel(given: Given) -> CancelHotel:
    return CancelHotel(key=given.key)


def _flight(given: Given) -> BookFlight:
    return BookFlight(key=given.key, hotel=given.results["hotel"].number)


def _no_flight(given: Given) -> CancelFlight:
    return CancelFlight(key=given.key)


def _tell(given: Given) -> Tell:
    return Tell(key=given.key, flight=given.results["flight"].number)


def _untell(given: Given) -> TakeBack:
    return TakeBack(key=given.key)


def _who(given: Trip) -> str:
    return given.who


def trip(patience_s: float = 5.0, *, told_stays: str = "", flight_stays: str = "") -> Operation:
    """Return the operation; `*_stays`: that step has no compensation."""
    return Operation(
        name="trip",
        input=Trip,
        subject=_who,
        steps=(
            Step(name="hotel", asks=BookHotel, does=_hotel, undoes=CancelHotel, undo=_no_hotel, patience_s=patience_s),
            Step(
                name="flight",
                asks=BookFlight,
                does=_flight,
                undoes=None if flight_stays else CancelFlight,
                undo=None if flight_stays else _no_flight,
                stays=flight_stays,
                patience_s=patience_s,
            ),
            Step(
                name="tell",
                asks=Tell,
                does=_tell,
                undoes=None if told_stays else TakeBack,
                undo=None if told_stays else _untell,
                stays=told_stays,
                patience_s=patience_s,
            ),
        ),
    )


effects = sa.Table(
    "effects",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("step", sa.String),
    sa.Column("change", sa.Integer),
)
PAIRS: Final = (
    ("hotel", BookHotel, CancelHotel),
    ("flight", BookFlight, CancelFlight),
    ("tell", Tell, TakeBack),
)


class RefusedError(ConflictError):
    code = "test.refused"


class AwayError(UnavailableError):
    code = "test.away"


class World:
    """Modules with one database. `trouble`: called before the effect of a step, `after` once it is committed."""

    def __init__(self, where: Path, names: tuple[str, ...] = ("hotel", "flight", "tell")) -> None:
        self.clock = SystemClock(pauses=0.01)
        self.database = Database(where)
        self.rpc = LocalRpc(self.clock)
        self.trouble: Callable[[str], None] = lambda _step: None
        self.committed: list[str] = []
        self._names = names

    def open(self) -> None:
        self.database.open()
        migrate_keys(self.database.engine)
        with self.database.engine.begin() as connection:
            effects.metadata.create_all(connection)
        for name, does, undoes in PAIRS:
            if name in self._names:
                do = Transactional(does, self.database, self.clock, self._effect(name))
                undo = Compensating(undoes, does, self.database, self.clock, self._back(name))
                self.rpc.serve([do.answer, undo.answer])

    async def sums(self) -> dict[str, int]:
        """Return how often each step has its effect."""
        query = sa.select(effects.c.step, sa.func.sum(effects.c.change).label("total")).group_by(effects.c.step)
        return await self.database.read(
            lambda connection: {row.step: int(row.total) for row in connection.execute(query)}
        )

    def _effect(self, name: str) -> Callable[[Transaction, Any], Booked]:
        def run(transaction: Transaction, _request: Any) -> Booked:
            self.trouble(name)
            added = transaction.connection.execute(effects.insert().values(step=name, change=1))
            transaction.after(lambda: self.committed.append(name))
            return Booked(number=int(added.lastrowid))

        return run

    def _back(self, name: str) -> Callable[[Transaction, Any, Booked], None]:
        def run(transaction: Transaction, _request: Any, _reply: Booked) -> None:
            self.trouble(f"-{name}")
            transaction.connection.execute(effects.insert().values(step=name, change=-1))

        return run
