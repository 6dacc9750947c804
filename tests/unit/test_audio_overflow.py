"""A service without room: its client is led to the other side once the edge has a route there, or refused at once."""

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.test_audio_share import Followed, routes

from quickcomm.audio.service.hand_over import FRESH_S, Receivers
from quickcomm.audio.service.overflow import MOST, Overflow
from quickcomm.audio.service.share import Share
from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.link import Room
from quickcomm.contracts.routes import MONOLITH, SERVICE, Side
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import UnavailableError
from quickcomm.kernel.messaging.live import Peer

MONOLITH_PEER = Peer(module="monolith", name="monolith")
OTHER = Peer(module="audio", name="audio-2")


class Site:
    """A controller that gives the monolith what it is asked for, and an edge that has its routes a moment later."""

    def __init__(
        self, side: Side = SERVICE, *, moves: bool = True, answers: bool = True, limits: float = 100.0
    ) -> None:
        self.clock = FakeClock(pauses=0.0, limits=limits)
        self.followed = Followed(routes(4, BUCKETS), in_force=4)
        self.share = Share(side, self.followed if moves else None)
        self.receivers = Receivers(self.share, self.clock)
        self.overflow = Overflow(self.share, self.receivers, self.clock, self.ask)
        self.asked: list[str] = []
        self.has_room(MONOLITH_PEER, 10)
        self._answers = answers

    def has_room(self, peer: Peer, room: int) -> None:
        self.receivers.told(Room(conversations=room), peer)

    async def ask(self, conversation_id: str) -> None:
        self.asked.append(conversation_id)
        if not self._answers:
            raise UnavailableError("The controller is away.")
        own = self.followed.routes.of("audio").overrides
        version = self.followed.routes.version + 1
        self.followed.routes = routes(version, BUCKETS, {**own, conversation_id: MONOLITH})

    def is_in_force(self) -> None:
        self.followed.in_force = self.followed.routes.version

    async def leads_back(self, name: str = "c-1") -> bool:
        async with asyncio.timeout(30):
            return await self.overflow.leads_back(name, "desk")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_client_is_refused_once_the_edge_sends_it_to_the_other_side() -> None:
    site = Site()
    led = asyncio.create_task(site.leads_back())
    await until(lambda: site.share.is_apart("c-1"))
    assert not led.done(), "else it would come to this door again"
    site.is_in_force()
    assert await led
    assert site.asked == ["c-1"]
    assert site.share.gives_up("c-1", "desk")
    assert await site.leads_back(), "who comes late is told the same, and nobody is asked again"
    assert site.asked == ["c-1"]


async def test_none_goes_back_and_forth() -> None:
    """What was given to this side by name is not asked for."""
    site = Site()
    site.followed.routes = routes(5, BUCKETS, {"c-1": SERVICE})
    site.is_in_force()
    assert not await site.leads_back()
    back = Site(MONOLITH)
    back.followed.routes = routes(5, BUCKETS, {"c-1": MONOLITH})
    back.is_in_force()
    assert not await back.leads_back()
    assert site.asked == back.asked == []


@pytest.mark.parametrize("why", ["both are full", "the other side is silent", "another process has room", "no move"])
async def test_nobody_is_asked_where_that_would_not_help(why: str) -> None:
    site = Site(moves=why != "no move")
    if why == "both are full":
        site.has_room(MONOLITH_PEER, 0)
    elif why == "the other side is silent":
        site.clock.advance(FRESH_S + 1)
    elif why == "another process has room":
        site.has_room(OTHER, 3)
    assert not await site.leads_back()
    assert site.asked == []
    if why == "another process has room":
        site.has_room(OTHER, 0)
        led = asyncio.create_task(site.leads_back())
        await until(lambda: site.share.is_apart("c-1"))
        site.is_in_force()
        assert await led


async def test_only_so_many_are_kept_waiting() -> None:
    site = Site(limits=1_000.0)
    waiting = [asyncio.create_task(site.leads_back(f"c-{number}")) for number in range(MOST)]
    await until(lambda: len(site.asked) == MOST)
    assert not await site.leads_back("one-more")
    assert "one-more" not in site.asked
    site.is_in_force()
    assert await asyncio.gather(*waiting) == [True] * MOST


async def test_a_client_is_refused_as_before_where_no_route_comes_in_time() -> None:
    assert not await Site(limits=0.01).leads_back(), "the edge has no route yet"
    assert not await Site(answers=False).leads_back()
