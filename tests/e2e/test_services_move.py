"""From the monolith to services on the same data directory: what was on the page stays, what is open goes on."""

import asyncio
import secrets

import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_crash import listed_once
from tests.e2e.test_up import refused
from tests.support.ports import free_port
from tests.support.server import quickcomm
from tests.support.site import Site
from tests.support.talk import Talk
from tests.support.wire import connected, converse, new_id, spans


@pytest.mark.long
async def test_a_site_becomes_services_in_the_middle_of_a_conversation(new_site: NewSite, talk: Talk) -> None:
    site = new_site()
    await asyncio.to_thread(site.start)
    key = site.key()
    before = await converse(site.url, key, talk.wire)
    await listed_once(site, before.conversation_id, before.heard)
    conversation, token = new_id(), secrets.token_urlsafe(32)
    _, start, stop = spans(before.heard)[-1]
    cut = (start + stop) // 2
    async with connected(site.url, key, conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * cut], 3_200)
        await wire.until("utterance")
        await asyncio.to_thread(site.down)
        await wire.until_closed()
    services = Site(site.data_dir, "--deployment", "services")
    try:
        await asyncio.to_thread(services.start)
        async with asyncio.timeout(60):  # who is told to come again comes again
            while services.ask("GET", f"/v1/conversations/{conversation}/audio", key).status == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        async with connected(services.url, key, conversation, resume_token=token, after_seq=wire.last_seq) as again:
            offset = (await again.until("ready"))["next_offset"]
            await again.send(talk.wire[2 * offset :], 3_200)
            await again.end()
        assert spans([*wire.heard, *again.heard]) == spans(before.heard)
        await listed_once(services, conversation, [*wire.heard, *again.heard])
        await listed_once(services, before.conversation_id, before.heard)
        first = before.of("utterance")[0]["utterance_id"]
        assert first in await asyncio.to_thread(quickcomm, "trace", first, "--data-dir", str(services.data_dir))
        await asyncio.to_thread(services.down)
    finally:
        await asyncio.to_thread(services.make_sure)
    said = await asyncio.to_thread(refused, "up", "--data-dir", str(site.data_dir), "--port", str(free_port()))
    assert "--deployment services" in said
