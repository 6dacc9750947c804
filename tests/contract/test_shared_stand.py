"""What processes of intelligence agree on about the model, on a real Valkey."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from tests.support.valkey import Valkey

from quickcomm.intelligence.adapters.shared_breaker import KEPT_MS, PROBES_MS, RedisStand
from quickcomm.intelligence.declaration import BREAKER_KEY
from quickcomm.intelligence.ports import Stand
from quickcomm.kernel.messaging.bus.redis_link import Link

OPEN = Stand(closed=False, why="The model does not answer: größer als 3 s.", since_ns=1_760_000_000_123_456_789)
_names = count(1)


class Group:
    def __init__(self, url: str) -> None:
        prefix = f"stand-{next(_names)}"
        self.one, self.two = RedisStand(url, prefix=prefix), RedisStand(url, prefix=prefix)
        self.link = Link(url)
        self.key = f"{prefix}:{BREAKER_KEY}"


@pytest.fixture
async def group(valkey: Valkey) -> AsyncIterator[Group]:
    made = Group(valkey.url)
    try:
        yield made
    finally:
        for each in (made.one, made.two, made.link):
            await each.aclose()


def numbered(stand: Stand, number: int) -> Stand:
    return Stand(closed=stand.closed, why=stand.why, since_ns=stand.since_ns, number=number)


async def test_what_changes_here_is_heard_there(group: Group) -> None:
    stand, probes = await group.one.exchange(Stand(), changed=False)
    assert (stand, probes) == (Stand(number=1), True)
    assert await group.two.exchange(Stand(), changed=False) == (Stand(number=1), False)
    stand, _ = await group.two.exchange(numbered(OPEN, 1), changed=True)
    assert stand == numbered(OPEN, 2)
    assert await group.one.exchange(Stand(number=1), changed=False) == (numbered(OPEN, 2), True)


async def test_who_comes_later_with_an_older_change_hears_the_newer_one(group: Group) -> None:
    await group.one.exchange(Stand(), changed=False)
    await group.one.exchange(numbered(OPEN, 1), changed=True)
    stand, _ = await group.two.exchange(Stand(number=1), changed=True)
    assert stand == numbered(OPEN, 2)


async def test_one_probes_until_it_is_heard_no_more(group: Group) -> None:
    assert (await group.one.exchange(Stand(), changed=False))[1]
    assert not (await group.two.exchange(Stand(), changed=False))[1]
    assert (await group.one.exchange(Stand(), changed=False))[1]
    ends = int(await group.link.call("HGET", group.key, "until"))
    await group.link.call("HSET", group.key, "until", ends - 2 * PROBES_MS)  # time passes
    assert (await group.two.exchange(Stand(), changed=False))[1]
    assert not (await group.one.exchange(Stand(), changed=False))[1]


async def test_it_is_forgotten_after_the_last_of_them(group: Group) -> None:
    await group.one.exchange(OPEN, changed=False)
    assert 0 < await group.link.call("PTTL", group.key) <= KEPT_MS
    await group.link.call("DEL", group.key)
    stand, _ = await group.two.exchange(Stand(number=7), changed=False)
    assert stand == Stand(number=8)
