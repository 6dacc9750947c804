"""A direct link to every instance that has something to tell: found by its lease, kept, opened again when it breaks."""

import asyncio
from collections import deque
from typing import Final, Protocol

import aiohttp
import msgspec
import structlog
from aiohttp import WSMsgType

from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.link import (
    LINK,
    Captioned,
    Committed,
    FellBehind,
    FromDashboard,
    FromInstance,
    InstanceStatus,
    KeepTrace,
    Receipt,
    Watching,
)
from quickcomm.contracts.timing import Latency
from quickcomm.kernel.discovery import Instance, Registry
from quickcomm.kernel.errors import MALFORMED, QuickCommError
from quickcomm.kernel.http import traced_client
from quickcomm.kernel.internal import Trust
from quickcomm.kernel.telemetry import Word

LOOK_EVERY_S: Final = 0.25
OPEN_WITHIN_S: Final = 2.0
SEND_WITHIN_S: Final = 5.0
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 2.0
HEARTBEAT_S: Final = 10.0
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_RECEIPTS: Final = 1_024

log = structlog.get_logger(__name__)
_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(FromInstance)


class Told(Protocol):
    """Who hears what the instances say. Nothing here waits."""

    def caption(self, caption: Caption) -> None: ...

    def behind(self, behind: Behind) -> None: ...

    def committed(self, committed: Committed) -> None: ...

    def status(self, instance: Instance, status: InstanceStatus) -> None: ...

    def lost(self, instance: Instance) -> None: ...


class _Line:
    """What one instance still has to hear."""

    def __init__(self, watching: Watching) -> None:
        self._watching: Watching | None = watching
        self._receipts: deque[Receipt | KeepTrace] = deque(maxlen=MAX_RECEIPTS)
        self._wake = asyncio.Event()

    def watching(self, watching: Watching) -> None:
        self._watching = watching
        self._wake.set()

    def receipt(self, receipt: Receipt | KeepTrace) -> None:
        self._receipts.append(receipt)
        self._wake.set()

    async def next(self) -> FromDashboard:
        while True:
            if self._watching is not None:
                watching, self._watching = self._watching, None
                return watching
            if self._receipts:
                return self._receipts.popleft()
            self._wake.clear()
            await self._wake.wait()


class Links:
    def __init__(self, registry: Registry, trust: Trust, modules: frozenset[str]) -> None:
        """`modules`: those whose instances have something to tell."""
        self._registry = registry
        self._trust = trust
        self._modules = modules
        self._known: set[Instance] = set()
        self._lines: dict[Instance, _Line] = {}
        self._watching = Watching()

    def watching(self, watching: Watching) -> None:
        """What somebody looks at from now on."""
        if watching != self._watching:
            self._watching = watching
            for line in self._lines.values():
                line.watching(watching)

    def receipt(self, site: str, conversation_id: str, utterance_id: str, latency: Latency) -> None:
        """To all: whoever has the conversation takes it."""
        receipt = Receipt(site=site, conversation_id=conversation_id, utterance_id=utterance_id, latency=latency)
        for line in self._lines.values():
            line.receipt(receipt)

    def keep_trace(self, word: Word) -> None:
        """To all: whoever had the utterance knows it."""
        said = KeepTrace(**msgspec.structs.asdict(word))
        for line in self._lines.values():
            line.receipt(said)

    async def run(self, told: Told) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for instance in self._found() - self._known:
                    self._known.add(instance)
                    tasks.create_task(self._keep(instance, told), name=f"link:{instance.name}")
                await asyncio.sleep(LOOK_EVERY_S)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _found(self) -> set[Instance]:
        return {instance for instance in self._registry.instances() if instance.module in self._modules}

    async def _keep(self, instance: Instance, told: Told) -> None:
        """For as long as it is found, and beyond that until it hangs up: it may have last words."""
        wait = FIRST_WAIT_S
        try:
            while instance in self._found():
                if await self._once(instance, told):
                    wait = FIRST_WAIT_S
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
        finally:
            self._known.discard(instance)

    async def _once(self, instance: Instance, told: Told) -> bool:
        """Open the link and serve it until it breaks; whether it was open."""
        opened = False
        connector = aiohttp.UnixConnector(instance.socket)
        try:
            async with aiohttp.ClientSession(connector=connector, trace_configs=traced_client()) as client:
                async with asyncio.timeout(OPEN_WITHIN_S):
                    socket = await client.ws_connect(
                        f"http://{instance.module}{LINK}",
                        headers=self._trust.headers(instance.module),
                        heartbeat=HEARTBEAT_S,
                        max_msg_size=MAX_MESSAGE_BYTES,
                    )
                opened = True
                log.info("link.opened", instance=instance.name)
                await self._serve(socket, instance, told)
        except* (aiohttp.ClientError, OSError, TimeoutError, QuickCommError) as errors:
            log.info("link.failed", instance=instance.name, error=str(errors.exceptions[0])[:200])
        return opened

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse, instance: Instance, told: Told) -> None:
        line = self._lines[instance] = _Line(self._watching)
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(_speak(socket, line), name=f"link:{instance.name}:speak")
                async for message in socket:
                    if message.type is WSMsgType.TEXT:
                        _hear(message.data, instance, told)
                speaking.cancel()
        finally:
            del self._lines[instance]
            told.lost(instance)
            await socket.close()
            log.info("link.closed", instance=instance.name)


async def _speak(socket: aiohttp.ClientWebSocketResponse, line: _Line) -> None:
    while True:
        message = await line.next()
        async with asyncio.timeout(SEND_WITHIN_S):
            await socket.send_str(_encode(message).decode())


def _hear(data: str, instance: Instance, told: Told) -> None:
    try:
        said = _decoder.decode(data)
    except MALFORMED as error:  # of another version, perhaps: what matters comes by the streams
        log.warning("link.malformed", error=str(error)[:200])
        return
    if isinstance(said, Captioned):
        told.caption(said.caption)
    elif isinstance(said, FellBehind):
        told.behind(said.behind)
    elif isinstance(said, Committed):
        told.committed(said)
    else:
        told.status(instance, said)
