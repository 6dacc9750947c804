"""Audio in the shadow hears real speech as well: a gate that passes by itself, and a client that notices nothing."""

import asyncio
import json
import os
import signal
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_audio_moves import sessions
from tests.e2e.test_check import check
from tests.e2e.test_migrate import Operator
from tests.support.resuming import assert_as_undisturbed, assert_listed_once, stream
from tests.support.server import EVENTUALLY_S
from tests.support.talk import Talk

from quickcomm.contracts.routes import MONOLITH, SERVICE

SETTINGS: Final = {
    "QUICKCOMM_AUDIO_SHADOW_SHARE": "1",
    "QUICKCOMM_TRAFFIC_CONFIDENCE": "0.8",
    "QUICKCOMM_TRAFFIC_SILENT_S": "600",  # it is stopped for a while
    "QUICKCOMM_TRAFFIC_QUEUE_AGE_S": "600",
    "QUICKCOMM_TRAFFIC_OLDEST_UNANSWERED_S": "600",
}
LINES: Final = 2
Json = dict[str, Any]


async def audio(operator: Operator) -> Json:
    found: Json = json.loads(await operator.migrate("status", "--json"))["modules"][2]
    return found


async def until_it_passes(operator: Operator) -> Json:
    found: Json = {}
    try:
        async with asyncio.timeout(2 * EVENTUALLY_S):
            while (found := await audio(operator))["gate"] != "pass":  # noqa: ASYNC110 - the controller tells nobody
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(found) from None
    return found


@pytest.mark.long
async def test_it_leaves_the_shadow_without_force(new_site: NewSite, talk: Talk) -> None:
    site = new_site("--deployment", "monolith", **SETTINGS)
    await asyncio.to_thread(site.start)
    operator, key = Operator(site), await asyncio.to_thread(site.key)
    undisturbed = await stream(site.url, key, talk.wire)
    assert "shadow" in await operator.migrate("start", "audio", "--force")
    assert "samples are missing" in await operator.migrate("step", "audio", status=1)

    pid = (await asyncio.to_thread(site.process, "audio")).pid
    os.kill(pid, signal.SIGSTOP)
    stopped = await stream(site.url, key, talk.wire)
    os.kill(pid, signal.SIGCONT)
    assert_as_undisturbed(stopped, undisturbed)

    all_heard = await asyncio.gather(*(stream(site.url, key, talk.wire, paced=True) for _ in range(LINES)))
    for heard in all_heard:
        assert_as_undisturbed(heard, undisturbed)
        await assert_listed_once(site, heard)
    found = (await until_it_passes(operator))["heard"]
    assert found["utterances"] >= 7
    assert found["wrong"] <= 0.1 * found["words"]
    assert await sessions(site) == {MONOLITH: 0, SERVICE: 0}, "nothing that the shadow heard is a conversation of it"
    assert "heard on both sides" in await operator.migrate("status")
    assert "canary" in await operator.migrate("step", "audio")
    findings, _ = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
    assert findings == []
