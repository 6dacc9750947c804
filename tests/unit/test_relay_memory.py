"""The memory of a relay process, whatever its clients do."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from quickcomm.relay.held import Held

MOST = 1_000
EACH = 400
LEAST = 100
PIECE = 50
"""The most that a client adds before it asks again."""


@given(steps=st.lists(st.tuples(st.integers(0, 9), st.integers(1, PIECE), st.booleans()), max_size=300))
def test_neither_one_client_nor_all_have_more_than_they_may(steps: list[tuple[int, int, bool]]) -> None:
    held, own = Held(MOST, EACH), [0] * 10
    for client, amount, acked in steps:
        if acked:
            held.change(-own[client])
            own[client] = 0
        elif held.has_room(own[client], LEAST):
            held.change(amount)
            own[client] += amount
        assert held.total == sum(own)
        assert max(own) < EACH + PIECE
        assert held.total < MOST + len(own) * (LEAST + PIECE)


def test_a_client_has_its_least_however_full_it_is() -> None:
    held = Held(MOST, EACH)
    held.change(MOST)
    assert held.full
    assert held.has_room(LEAST - 1, LEAST)
    assert not held.has_room(LEAST, LEAST)


async def test_who_waits_is_woken_when_there_is_room_again() -> None:
    held, woken = Held(MOST, EACH), asyncio.Event()
    held.change(MOST)
    with held.woken(woken):
        held.change(1)
        assert not woken.is_set()
        held.change(-2)
        assert woken.is_set()
