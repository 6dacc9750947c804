"""A side of audio that is left: who is refused at its door, when it may be stopped, and what it gives back."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.support.hearing import ScriptedEngine, hall, request
from tests.unit.test_audio_share import Followed, routes

from quickcomm.audio.adapters.sql_sessions import MIGRATIONS
from quickcomm.audio.ingest.caller import Caller
from quickcomm.audio.ingest.reception import Reception
from quickcomm.audio.ingest.websocket import NativeSocket
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.module import Audio, Places
from quickcomm.audio.service.manager import Manager
from quickcomm.audio.service.share import Share
from quickcomm.contracts.evidence import MeasureAudio, Measured
from quickcomm.contracts.routes import HEADER, MONOLITH
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.storage import Database, migrate

if TYPE_CHECKING:
    from quickcomm.kernel.keys import Authenticator


async def valid() -> bool:
    return True


async def authenticate(_: web.Request) -> Caller:
    return Caller(site="main", key_id="k-1", still_valid=valid)


@asynccontextmanager
async def door(manager: Manager, share: Share) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    app = web.Application()
    app.router.add_get(NativeSocket.path, NativeSocket(Reception(manager, share=share), authenticate).handle)
    async with TestServer(app) as server, aiohttp.ClientSession() as client:
        yield client, str(server.make_url("/v1/conversations/c-1/audio"))


async def test_who_belongs_to_the_other_side_is_refused_before_the_upgrade(tmp_path: Path) -> None:
    share = Share(MONOLITH, Followed(routes(4, 10_000), in_force=4))
    async with hall(tmp_path / "site.sqlite") as here, door(here.manager, share) as (client, url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(url, headers={HEADER: "4"})
        assert (refused.value.status, here.manager.conversations) == (503, [])
        assert refused.value.headers is not None
        assert refused.value.headers["Retry-After"] == "1"
        async with client.get(url, headers={HEADER: "4"}) as answer:
            assert answer.status == 426, "what is no WebSocket is answered as ever"


async def test_a_client_says_that_it_cannot_resume(tmp_path: Path) -> None:
    async with hall(tmp_path / "site.sqlite") as here, door(here.manager, Share()) as (client, url):
        for query, resumes in (("?resume=no&resume_token=" + "t" * 32, False), ("?resume_token=" + "t" * 32, True)):
            async with client.ws_connect(f"{url}{query}", headers={HEADER: "not a number"}) as socket:
                assert (await socket.receive_json())["type"] == "ready"
                [talk] = here.manager.conversations
                assert talk.resumes == resumes


async def test_it_is_not_stopped_with_conversations_and_then_keeps_nothing(tmp_path: Path) -> None:
    """What stays in the process, as the routes that it follows, keeps no engine alive."""
    clock, database = SystemClock(), Database(tmp_path / "site.sqlite")
    database.open()
    bus = SqlBus(database, clock)
    bus.migrate()
    migrate(database.engine, "audio", MIGRATIONS)
    messaging, followed = Messaging.over(bus, clock), Followed(routes(1, 0), in_force=1)

    async def lived() -> "weakref.ref[ScriptedEngine]":
        engine = ScriptedEngine()
        audio = Audio(
            settings=AudioSettings(answer_wait_s=0.0),
            database=database,
            messaging=messaging,
            clock=clock,
            engine=engine,
            keys=cast("Authenticator", None),
            emergencies=EmergencyRules(load_pack().emergency),
            places=Places(routes=followed),
        )
        part = audio.part()
        messaging.connect(part)
        working = asyncio.create_task(audio.run())
        await asyncio.sleep(0)
        session = await audio._manager.open(request(), 0)
        followed.routes = routes(2, 10_000)
        followed.in_force = 2
        with pytest.raises(BusyError, match="1 conversations are still here"):
            await part.retire()
        [measure] = [handler for kind, handler in part.answers if kind is MeasureAudio]
        found = await measure(MeasureAudio())
        assert isinstance(found, Measured)
        assert (found.side, found.left, found.unbalanced, found.recent_not_back) == (MONOLITH, 1, 0, 0)
        session.conversation.end()
        async with asyncio.timeout(30):
            while audio._manager.conversations:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        await part.retire()
        await part.drain()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        messaging.disconnect(part)
        await part.close()
        return weakref.ref(engine)

    kept = await lived()
    for _ in range(3):  # what the loop is about to call is done first
        await asyncio.sleep(0.05)
        gc.collect()
    assert kept() is None
    await database.aclose()
