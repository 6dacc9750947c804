"""A real `up --autoscale`: a burst gets a second process, and talkers go to it; later it goes, and nothing is lost."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewSite
from tests.support.resuming import assert_as_undisturbed, assert_listed_once, stream
from tests.support.server import quickcomm
from tests.support.site import Site
from tests.support.talk import Talk

from quickcomm.client.audio_client import Event
from quickcomm.contracts.audio_socket import Reconnect

Json = dict[str, Any]
SETTINGS: Final = {
    "QUICKCOMM_STT_WORKERS": "1",
    "QUICKCOMM_AUTOSCALE_TALKERS": "2",
    "QUICKCOMM_AUTOSCALE_AUDIO_MOST": "2",
}
WITHIN_S: Final = 600.0
LOOK_S: Final = 0.5


async def until(site: Site, holds: Callable[[Json, list[Json]], bool]) -> Json:
    """Look until it holds of what is told of audio, and of its processes; return what is told then."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        up, *rows = await asyncio.to_thread(site.status)
        found: Json = up["autoscale"].get("audio", {"wanted": 1})
        audio = [row for row in rows if row["module"] == "audio"]
        if holds(found, audio):
            return found
        assert time.monotonic() < deadline, (found, audio, site.log[-6000:])
        await asyncio.sleep(LOOK_S)


@pytest.mark.long
async def test_a_burst_is_shared_by_a_second_process_that_goes_when_it_is_over(new_site: NewSite, talk: Talk) -> None:
    site = new_site("--deployment", "services", "--autoscale", **SETTINGS)
    await asyncio.to_thread(site.start)
    key = await asyncio.to_thread(site.key)
    over, told = asyncio.Event(), list[Event]()
    said = [talk.wire * 20, talk.wire * 8, talk.wire * 8]
    async with asyncio.TaskGroup() as tasks:
        talking = [
            tasks.create_task(stream(site.url, key, sound, told.append, paced=True, stays=over)) for sound in said
        ]
        found = await until(site, lambda _, audio: len(audio) == 2 and all(row.get("sessions") for row in audio))
        assert (found["wanted"], found["least"], found["most"]) == (2, 1, 2)
        await until(site, lambda found, audio: len(audio) == 1 and found["wanted"] == 1)
        over.set()
    heard = [each.result() for each in talking]
    assert {event.reason for event in told if isinstance(event, Reconnect)} == {"handover", "drain"}
    assert site.log.count("autoscale.scaled") == 2
    assert "autoscale.not_scaled" not in site.log

    quickcomm("scale", "audio=2", "--data-dir", str(site.data_dir), timeout=240)
    await until(site, lambda found, audio: len(audio) == 2 and found.get("least") == 2)
    for now, sound in zip(heard, said, strict=True):
        assert_as_undisturbed(now, await stream(site.url, key, sound))
        await assert_listed_once(site, now)
