"""What a connection hears: the log in order, the newest of the rest, and a proper end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.service.event_log import RECENT, Recent
from quickcomm.audio.service.outlet import MAX_NOTES, Outlet
from quickcomm.contracts.audio_socket import Ack, DurableEvent, Ended, Insights, Late, ServerEvent
from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.insight import Insight

ENDED = Ended(ledger=Ledger())


def event(seq: int) -> Insights[Insight]:
    return Insights(seq=seq, utterance_id=f"u{seq}", insights=())


class Log:
    """A log that gives pages of two."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    async def __call__(self, after: int) -> list[DurableEvent]:
        return [event(seq) for seq in range(after + 1, min(self.last, after + 2) + 1)]


async def rest(outlet: Outlet, events: AsyncIterator[ServerEvent] | None = None) -> list[object]:
    """Return what the connection still sends, and why it ends."""
    async with asyncio.timeout(10):
        return [*[item async for item in events or outlet.events()], outlet.ended_by]


async def test_what_was_missed_comes_first_and_in_order() -> None:
    outlet = Outlet(2, Log(7))
    outlet.ack(512)
    outlet.note(Late(behind_ms=1))
    outlet.close(EndReason.ENDED, ENDED)
    assert await rest(outlet) == [
        *(event(seq) for seq in range(3, 8)),
        Ack(offset=512),
        Late(behind_ms=1),
        ENDED,
        EndReason.ENDED,
    ]


async def test_only_the_newest_ack_counts() -> None:
    outlet = Outlet(0, Log())
    for offset in (512, 1_024, 2_048):
        outlet.ack(offset)
    outlet.close(EndReason.ENDED)
    assert await rest(outlet) == [Ack(offset=2_048), EndReason.ENDED]


async def test_a_slow_client_costs_no_memory_and_loses_the_oldest_notes() -> None:
    outlet = Outlet(0, Log())
    for number in range(MAX_NOTES + 10):
        outlet.note(Late(behind_ms=number))
    outlet.close(EndReason.ENDED)
    heard = await rest(outlet)
    assert heard == [*(Late(behind_ms=number) for number in range(10, MAX_NOTES + 10)), EndReason.ENDED]


async def test_the_first_farewell_counts() -> None:
    outlet = Outlet(0, Log())
    outlet.close(EndReason.FENCED)
    outlet.close(EndReason.ENDED, ENDED)
    assert await rest(outlet) == [EndReason.FENCED]


async def test_new_events_wake_a_waiting_client() -> None:
    log = Log()
    outlet = Outlet(0, log)
    events = outlet.events()
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    assert not waiting.done()
    log.last = 3
    outlet.wake()
    assert await asyncio.wait_for(waiting, 10) == event(1)
    outlet.close(EndReason.ENDED)
    assert await rest(outlet, events) == [event(2), event(3), EndReason.ENDED]


async def test_a_log_that_fails_is_the_connections_end() -> None:
    async def broken(_: int) -> list[DurableEvent]:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await rest(Outlet(0, broken))


@given(first=st.integers(1, 5), order=st.permutations(range(8)), missing=st.integers(0, 20), after=st.integers(0, 14))
def test_recent_events_are_without_holes_or_not_given(first: int, order: list[int], missing: int, after: int) -> None:
    recent = Recent()
    kept = [first + index for index in order if index != missing]
    for seq in kept:
        recent.add(event(seq))
    found = recent.after(after)
    newer = sorted(seq for seq in kept if seq > after)
    if newer == list(range(after + 1, after + 1 + len(newer))):
        assert found == [event(seq) for seq in newer]
    else:
        assert found is None


def test_only_the_recent_are_kept() -> None:
    recent = Recent()
    for seq in range(1, RECENT + 11):
        recent.add(event(seq))
    assert recent.after(5) is None
    assert len(recent.after(10) or ()) == RECENT
    assert recent.after(RECENT + 10) == []
