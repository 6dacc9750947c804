"""What a connection hears: the log in order, the newest of the rest, and a proper end."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.ports import StoredEvent
from quickcomm.audio.service.outlet import MAX_NOTES, RECENT, Outlet, Recent


def event(seq: int) -> StoredEvent:
    return StoredEvent(seq=seq, utterance_id=f"u{seq}", payload=f'{{"seq":{seq}}}')


class Log:
    """A log that gives pages of two."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    async def __call__(self, after: int) -> list[StoredEvent]:
        return [event(seq) for seq in range(after + 1, min(self.last, after + 2) + 1)]


async def rest(messages: AsyncIterator[str | int]) -> list[object]:
    async with asyncio.timeout(10):
        return [item if isinstance(item, int) else msgspec.json.decode(item) async for item in messages]


async def test_what_was_missed_comes_first_and_in_order() -> None:
    outlet = Outlet(2, Log(7))
    outlet.ack(512)
    outlet.note({"type": "partial"})
    outlet.close(1000, {"type": "ended"})
    assert await rest(outlet.messages()) == [
        *({"seq": seq} for seq in range(3, 8)),
        {"type": "ack", "offset": 512},
        {"type": "partial"},
        {"type": "ended"},
        1000,
    ]


async def test_only_the_newest_ack_counts() -> None:
    outlet = Outlet(0, Log())
    for offset in (512, 1_024, 2_048):
        outlet.ack(offset)
    outlet.close(1000)
    assert await rest(outlet.messages()) == [{"type": "ack", "offset": 2_048}, 1000]


async def test_a_slow_client_costs_no_memory_and_loses_the_oldest_notes() -> None:
    outlet = Outlet(0, Log())
    for number in range(MAX_NOTES + 10):
        outlet.note({"n": number})
    outlet.close(1000)
    heard = await rest(outlet.messages())
    assert heard == [*({"n": number} for number in range(10, MAX_NOTES + 10)), 1000]


async def test_the_first_farewell_counts() -> None:
    outlet = Outlet(0, Log())
    outlet.close(1008, {"type": "error"})
    outlet.close(1000, {"type": "ended"})
    assert await rest(outlet.messages()) == [{"type": "error"}, 1008]


async def test_new_events_wake_a_waiting_client() -> None:
    log = Log()
    outlet = Outlet(0, log)
    messages = outlet.messages()
    waiting = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0)
    assert not waiting.done()
    log.last = 3
    outlet.wake()
    assert await asyncio.wait_for(waiting, 10) == '{"seq":1}'
    outlet.close(1000)
    assert await rest(messages) == [{"seq": 2}, {"seq": 3}, 1000]


async def test_a_log_that_fails_is_the_connections_end() -> None:
    async def broken(_: int) -> list[StoredEvent]:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await rest(Outlet(0, broken).messages())


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
