"""The door of audio while it moves: each conversation is let in by one side, and a client always finds it."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.service.share import ElsewhereError, Share
from quickcomm.contracts.audio_socket import CONVERSATION_ID
from quickcomm.contracts.identity import BUCKETS, bucket
from quickcomm.contracts.routes import MONOLITH, SERVICE, ModuleRoute, Routes, Side

SIDES: Final[tuple[Side, ...]] = (MONOLITH, SERVICE)
ids = st.from_regex(re.compile(CONVERSATION_ID.pattern, re.ASCII), fullmatch=True)
weights = st.integers(0, BUCKETS)


def routes(
    version: int, weight: int, overrides: dict[str, Side] | None = None, channels: dict[str, Side] | None = None
) -> Routes:
    route = ModuleRoute(mode="canary", weight=weight, overrides=overrides or {}, channels=channels or {})
    return Routes(version=version, modules={"audio": route})


class Followed:
    """Routes that a process follows, and those that are in the store by now."""

    def __init__(self, followed: Routes, in_force: int, stored: Routes | None = None) -> None:
        self.routes = followed
        self.in_force = in_force
        self._stored = stored or followed
        self.asked = 0

    async def known(self) -> Routes:
        return self._stored

    async def catch_up(self) -> Routes:
        self.asked += 1
        self.routes = self._stored
        return self.routes

    def on_change(self, act: Callable[[], Awaitable[None]]) -> None:
        raise AssertionError(act)


async def lets_in(share: Share, conversation_id: str, sent_by: int | None) -> bool:
    try:
        await share.check(conversation_id, sent_by)
    except ElsewhereError:
        return False
    return True


@given(ids, weights)
async def test_one_side_lets_a_conversation_in_that_the_edge_sends_by_the_same_routes(name: str, weight: int) -> None:
    followed = Followed(routes(3, weight), in_force=3)
    let_in = [side for side in SIDES if await lets_in(Share(side, followed), name, 3)]
    assert let_in == [SERVICE if bucket("audio", name) < weight else MONOLITH]


@given(ids, weights, weights, st.sampled_from([3, 4]))
async def test_whoever_the_edge_sends_a_client_to_lets_it_in_until_the_edge_has_newer_routes(
    name: str, old: int, new: int, follows: int
) -> None:
    """The edge has version 3, the store 4."""
    edge, store = routes(3, old), routes(4, new)
    for side in SIDES:
        share = Share(side, Followed(store if follows == 4 else edge, in_force=3, stored=store))
        if edge.side("audio", name) == side:
            assert await lets_in(share, name, 3)
            assert not share.gives_up(name)


@given(ids, weights, weights)
async def test_a_process_that_is_behind_the_edge_looks_before_it_refuses(name: str, old: int, new: int) -> None:
    store = routes(4, new)
    for side in SIDES:
        followed = Followed(routes(3, old), in_force=3, stored=store)
        assert await lets_in(Share(side, followed), name, 4) == (store.side("audio", name) == side)
        assert followed.asked == 1


async def test_a_request_that_was_on_its_way_when_the_edge_changed_is_refused() -> None:
    share = Share(MONOLITH, Followed(routes(4, BUCKETS), in_force=4))
    assert not await lets_in(share, "c-1", 3)
    assert not await lets_in(share, "c-1", None), "without an edge, by what this process knows"


def test_a_conversation_is_given_up_once_the_edge_sends_its_client_elsewhere() -> None:
    followed = Followed(routes(4, BUCKETS), in_force=3)
    share = Share(MONOLITH, followed)
    assert (share.has("c-1"), share.gives_up("c-1")) == (False, False)
    followed.in_force = 4
    assert share.gives_up("c-1")
    assert not Share(SERVICE, followed).gives_up("c-1")
    followed.routes = routes(4, BUCKETS, {"c-1": MONOLITH})
    assert not share.gives_up("c-1")


async def test_a_channel_has_its_side_and_a_conversation_on_it_may_have_another() -> None:
    followed = Followed(routes(4, BUCKETS, {"c-1": SERVICE}, {"desk": MONOLITH}), in_force=4)
    monolith, service = Share(MONOLITH, followed), Share(SERVICE, followed)
    for name, channel, expected in (
        ("c-1", "desk", SERVICE),
        ("c-2", "desk", MONOLITH),
        ("c-2", "pool", SERVICE),
        ("c-2", "", SERVICE),
    ):
        for share in (monolith, service):
            is_own = share.side == expected
            assert (share.has(name, channel), share.gives_up(name, channel)) == (is_own, not is_own)
            if is_own:
                await share.check(name, 4, channel)
            else:
                with pytest.raises(ElsewhereError):
                    await share.check(name, 4, channel)
    assert (service.is_apart("c-1"), service.is_apart("c-2")) == (True, False)


async def test_where_nothing_moves_everything_is_let_in_and_nothing_given_up() -> None:
    share = Share()
    assert await lets_in(share, "c-1", 7)
    await share.check_any(7)
    assert (share.has("c-1"), share.gives_up("c-1"), share.own_id("c-1")) == (True, False, "c-1")


@given(ids, st.integers(1, BUCKETS - 1).filter(lambda weight: 100 <= weight <= BUCKETS - 100))
def test_a_call_gets_an_id_of_the_share_of_the_side_that_it_came_to(name: str, weight: int) -> None:
    for side in SIDES:
        share = Share(side, Followed(routes(1, weight), in_force=1))
        own = share.own_id(name)
        assert share.has(own)
        assert own == name or own.startswith(f"{name}.")
        assert own == share.own_id(name), "the same stream finds its conversation again"


async def test_a_call_is_let_in_where_there_is_a_share_at_all() -> None:
    empty: list[tuple[int, Side]] = [(0, SERVICE), (BUCKETS, MONOLITH)]
    for weight, side in empty:
        with pytest.raises(ElsewhereError):
            await Share(side, Followed(routes(4, weight), in_force=4)).check_any(4)
        older = Share(side, Followed(routes(4, weight), in_force=3))
        await older.check_any(3)
        assert older.own_id("call") == "call"
    for side in SIDES:
        await Share(side, Followed(routes(4, 1), in_force=4)).check_any(4)
