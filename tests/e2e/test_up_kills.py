"""`kill -9` of every part of a topology while people talk: what comes out is what comes out undisturbed."""

import asyncio
import random
from functools import cache
from typing import Final

import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_kills import shift
from tests.support.kills import killed_over, parts
from tests.support.talk import RATE

SHAPES: Final = ("monolith", "services")


@cache
def sounds(count: int, seconds: int) -> list[bytes]:
    """Of so many talkers: the channels of the sample shift, each from a place of its own."""
    channels = shift()
    length = 2 * RATE * seconds
    return [channels[number % len(channels)][(number // len(channels)) * length :][:length] for number in range(count)]


async def survives(new_site: NewSite, shape: str, talkers: int, kills: int | None, seconds: float) -> None:
    """`kills`: each part once, if nothing is said."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    site = new_site("--deployment", shape)
    await asyncio.to_thread(site.start)
    there = await asyncio.to_thread(parts, site)
    kills = kills or len(there)
    toll = await killed_over(site, sounds(talkers, 30), (kills, seconds, seed))
    print(toll)  # noqa: T201
    assert sum(toll.kills.values()) == kills
    assert toll.kills.keys() <= there.keys()
    assert toll.utterances > 0
    assert toll.faults == {}


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES)
async def test_talk_survives_a_kill_of_each_part(new_site: NewSite, shape: str) -> None:
    await survives(new_site, shape, talkers=2, kills=None, seconds=15)


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES)
async def test_talk_survives_forty_kills_in_ten_minutes(new_site: NewSite, shape: str) -> None:
    await survives(new_site, shape, talkers=8, kills=40, seconds=600)
