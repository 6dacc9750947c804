"""Several processes and one model: what one finds out holds for all, and one of them probes."""

import pytest

from quickcomm.intelligence.adapters.breaker import FAILURES, CircuitBreaker
from quickcomm.intelligence.ports import ModelError, ModelNotAllowedError, Stand
from quickcomm.intelligence.service.agreement import Agreement
from quickcomm.intelligence.service.guard import Guard
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.bus import BusUnavailableError


class Board:
    """Where they tell each other; may be away."""

    def __init__(self) -> None:
        self.stand: Stand | None = None
        self.prober: str | None = None
        self.away = False


class Shared:
    """A `SharedStand` on a board, with the rules of the real one."""

    def __init__(self, board: Board, name: str) -> None:
        self.board = board
        self.name = name

    async def exchange(self, mine: Stand, *, changed: bool) -> tuple[Stand, bool]:
        board = self.board
        if board.away:
            raise BusUnavailableError("The store is away.")
        known = board.stand.number if board.stand else 0
        if board.stand is None or (changed and mine.number >= known):
            board.stand = Stand(
                closed=mine.closed, why=mine.why, since_ns=mine.since_ns, number=max(known, mine.number) + 1
            )
        board.prober = board.prober or self.name
        return board.stand, board.prober == self.name

    async def aclose(self) -> None:
        pass


class Process:
    def __init__(self, board: Board, name: str) -> None:
        self.clock = FakeClock()
        self.guard = Guard(CircuitBreaker(), self.clock, budget_s=3.0)
        self.agreement = Agreement(self.guard, Shared(board, name))
        self.probed = 0
        self.down = True

    async def probe(self) -> None:
        self.probed += 1
        if self.down:
            raise ModelError("500")

    async def watched(self, rounds: int) -> None:
        """As long as it takes to look so many times whether it is back."""

        class OverError(Exception):
            pass

        left = rounds

        async def sleep(_seconds: float) -> None:
            nonlocal left
            if not left:
                raise OverError
            left -= 1

        with pytest.raises(OverError):
            await self.guard.watch(self.probe, sleep)

    def fails(self) -> None:
        for _ in range(FAILURES):
            self.guard.failed(ModelError("500"), self.clock.monotonic())


class Site:
    def __init__(self, processes: int = 2) -> None:
        self.board = Board()
        self.processes = [Process(self.board, str(number)) for number in range(processes)]

    async def exchange(self) -> None:
        for process in self.processes:
            await process.agreement.exchange()

    @property
    def available(self) -> list[bool]:
        return [process.guard.available for process in self.processes]


async def test_what_one_finds_out_holds_for_all() -> None:
    site = Site(3)
    await site.exchange()
    assert site.available == [True] * 3
    site.processes[1].fails()
    assert site.available == [True, False, True]
    await site.exchange()
    await site.exchange()
    assert site.available == [False] * 3
    states = [process.guard.state for process in site.processes]
    assert len({(state.why, state.since_ns) for state in states}) == 1
    assert states[0].state == "degraded"


async def test_one_probes_and_when_it_is_back_all_are() -> None:
    site = Site()
    one, two = site.processes
    await site.exchange()
    two.fails()
    await two.agreement.exchange()
    await site.exchange()
    await one.watched(3)
    await two.watched(3)
    assert (one.probed, two.probed) == (4, 0)
    one.down = False
    await _once(one)
    assert site.available == [True, False]
    await site.exchange()
    assert site.available == [True, True]
    assert [process.guard.well for process in site.processes] == [True, True]


async def test_who_probes_may_die_and_another_goes_on() -> None:
    site = Site()
    one, two = site.processes
    await site.exchange()
    one.fails()
    await site.exchange()
    site.board.prober = None  # its lease is over
    await two.agreement.exchange()
    two.down = False
    await _once(two)
    assert two.guard.available


async def test_while_the_store_is_away_each_acts_for_itself_and_tells_it_later() -> None:
    site = Site()
    one, two = site.processes
    await site.exchange()
    site.board.away = True
    two.fails()
    with pytest.raises(BusUnavailableError):
        await two.agreement.exchange()
    assert site.available == [True, False]
    site.board.away = False
    await two.agreement.exchange()
    await one.agreement.exchange()
    assert site.available == [False, False]


async def test_a_board_that_was_lost_is_written_anew_by_those_who_know() -> None:
    site = Site()
    one, two = site.processes
    await site.exchange()
    one.fails()
    await site.exchange()
    site.board.stand = None
    await two.agreement.exchange()
    await one.agreement.exchange()
    assert site.available == [False, False]


async def test_of_two_that_find_out_at_the_same_time_one_is_counted() -> None:
    site = Site()
    one, two = site.processes
    await site.exchange()
    one.fails()
    two.guard.failed(ModelNotAllowedError("The key is wrong."), two.clock.monotonic())
    await site.exchange()
    await site.exchange()
    assert site.available == [False, False]
    assert site.board.stand is not None
    assert site.board.stand.number == 2


async def _once(process: Process) -> None:
    """One look of who probes."""
    await process.guard._probe(process.probe)  # the loop around it waits for time
