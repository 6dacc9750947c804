"""A page that changes sides misses nothing of what is being said: both sides go on hearing it, and tell it what was."""

import asyncio
import json
from typing import Any

import msgspec
from aiohttp import WSCloseCode

from quickcomm.contracts.captions import Caption
from quickcomm.contracts.link import EVERYTHING
from quickcomm.dashboard.adapters.hub import KEPT_S, Hub, Subscriber
from quickcomm.kernel.clock import FakeClock

SAID = Caption(
    site="main", conversation_id="c", channel="lobby", speaker=0, start_offset=9, text="coffee", utterance_id="u"
)


async def told(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Return all that waits for a page."""
    subscriber.put("end")
    found = []
    while (text := await subscriber.get()) != "end":
        assert text is not None
        found.append(json.loads(text))
    while subscriber._captions:
        text = await subscriber.get()
        assert text is not None
        found.append(json.loads(text))
    return found


async def test_what_was_said_last_is_told_to_a_page_that_comes_from_the_other_side() -> None:
    clock = FakeClock()
    hub = Hub(10, 10, clock)
    hub.caption(SAID)
    hub.caption(msgspec.structs.replace(SAID, text="a coffee spill", final=True))
    hub.caption(msgspec.structs.replace(SAID, site="elsewhere", conversation_id="d"))
    [caption] = await told(hub.join("main"))
    assert (caption["type"], caption["text"], caption["final"]) == ("caption", "a coffee spill", True)
    clock.advance(KEPT_S + 1)
    assert await told(hub.join("main")) == []


async def test_audio_goes_on_for_a_page_that_is_on_its_way_to_the_other_side() -> None:
    clock = FakeClock()
    hub = Hub(10, 10, clock)
    heard: list[dict[str, tuple[str, ...]]] = []
    hub.on_watching(lambda: heard.append(hub.watching().sites))
    moved, gone = hub.join("main"), hub.join("hotel-b")
    moved.dismiss(WSCloseCode.SERVICE_RESTART, "Another server shows this page now.")
    hub.leave(moved)
    hub.leave(gone)
    assert heard[-1] == {"main": (EVERYTHING,)}
    hub.tend()
    assert hub.watching().sites == {"main": (EVERYTHING,)}
    assert hub.empty
    clock.advance(KEPT_S)
    hub.tend()
    assert heard[-1] == {}
    await asyncio.wait_for(hub.vacated(), 1)
