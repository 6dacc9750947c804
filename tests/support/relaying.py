"""The session relay in the test's own process, before a scripted owner."""

import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.support.scripted import Part, Refuse, ScriptedServer, scripted
from tests.support.twilio import TOKEN

from quickcomm.audio.model.settings import AudioSettings, TwilioSettings
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.http import create_app
from quickcomm.kernel.keys import Authenticator, KeySettings
from quickcomm.kernel.keys.sql import SqlKeys
from quickcomm.kernel.runtime.part import Part as ProcessPart
from quickcomm.kernel.storage import Database
from quickcomm.relay.assembly import relay
from quickcomm.relay.settings import RelaySettings


class Relaying:
    """`url`: of the relay. `owner`: what stands for the edge and the sides behind it."""

    def __init__(self, url: str, key: str, part: ProcessPart, owner: ScriptedServer, clock: FakeClock) -> None:
        self.url = url
        self.key = key
        self.part = part
        self.owner = owner
        self.clock = clock

    async def held(self) -> int:
        """How many bytes the relay holds."""
        return int((await self.part.status())["held_bytes"])


@asynccontextmanager
async def relaying(*parts: Part | Refuse, **settings: Any) -> AsyncGenerator[Relaying]:
    """Have the relay connect to one part of the script after the other. It waits little before it comes again."""
    folder = Path(tempfile.mkdtemp(prefix="qc-relay-"))  # short: a socket's path has room for 107 bytes
    clock = FakeClock(pauses=0.05)
    database = Database(folder / "keys.sqlite")
    database.open()
    keys = SqlKeys(database, clock)
    keys.migrate()
    key = (await keys.create("ingest")).key
    own = RelaySettings(**{"drain_s": 0.0, **settings})
    audio = AudioSettings(twilio=TwilioSettings(auth_token=TOKEN))
    async with scripted(*parts, socket=folder / "inner.sock") as owner:
        authenticator = Authenticator(keys, clock, KeySettings(failures_burst=1_000.0))
        part = relay(str(folder / "inner.sock"), own, audio, authenticator, clock)
        runner = web.AppRunner(create_app(part.routes), shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield Relaying(f"http://127.0.0.1:{runner.addresses[0][1]}", key, part, owner, clock)
        finally:
            await part.close()
            await runner.cleanup()
            await database.aclose()
            shutil.rmtree(folder)
