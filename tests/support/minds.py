"""Real `quickcomm intelligence` processes without `up`: started, killed and asked by their own handles."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from tests.support.talking import spoken

from quickcomm.contracts.commands import Command, GetStatus
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.runtime.admin_socket import ask
from quickcomm.kernel.runtime.data_directory import admin_socket_of
from quickcomm.kernel.trust.directory import TrustDirectory

READY_S: Final = 240.0  # the first start of all trains the classifier
EVENTUALLY_S: Final = 60.0
POLL_S: Final = 0.02
Json = dict[str, Any]


class Mind:
    """One process. `start` again after `stop` or `kill`: same name, same sockets."""

    def __init__(self, folder: Path, name: str, flags: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self.socket = str(folder / f"{name}.sock")
        self._log = folder / f"{name}.log"
        self._flags = flags
        self._environment = {
            **os.environ,
            **environment,
            "QUICKCOMM_INSTANCE_NAME": name,
            "QUICKCOMM_INSTANCE_SOCKET": self.socket,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def launch(self, *program: str) -> None:
        command = program or (sys.executable, "-m", "quickcomm.cli.main")
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "intelligence", *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
            )

    async def ready(self) -> None:
        async with asyncio.timeout(READY_S):
            while not await self._answers():
                assert self._process is not None
                assert self._process.poll() is None, self.log[-6000:]
                await asyncio.sleep(POLL_S)

    async def ask(self, request: Command) -> list[Json]:
        return await ask(admin_socket_of(self.socket), request)

    async def until_state(self, state: str) -> Json:
        async with asyncio.timeout(EVENTUALLY_S):
            while (told := (await self.ask(GetStatus()))[0])["llm"]["state"] != state:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        return told

    async def until_logged(self, what: str) -> None:
        async with asyncio.timeout(EVENTUALLY_S):
            while what not in self.log:  # noqa: ASYNC110 - a log tells nobody
                await asyncio.sleep(POLL_S)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(EVENTUALLY_S)
        self._process = None

    def stop(self) -> int | None:
        """As `up` does; its exit status."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(EVENTUALLY_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    async def _answers(self) -> bool:
        with suppress(OSError, aiohttp.ClientError, QuickCommError):
            return bool(await self.ask(GetStatus()))
        return False


class House:
    """Processes on one store and one database, and what they publish. The store has no users."""

    def __init__(self, redis_url: str, database_url: str | None, *flags: str, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qc-"))
        self.bus = RedisBus(redis_url, SystemClock())
        self.found: list[InsightsFound] = []
        self.repeated: tuple[InsightsFound, ...] = ()
        """What came a second time, as it may around a crash: consumers drop it by id and revision."""
        self.minds: list[Mind] = []
        trust = TrustDirectory(self.folder / "trust")
        trust.ensure(["intelligence", "dashboard"])
        self._flags = ("--data-dir", str(self.folder / "data"), *flags)
        self._environment = {
            "QUICKCOMM_REDIS_URL": redis_url,
            "QUICKCOMM_INSTANCE_REGISTRY": str(self.folder / "instances"),
            "QUICKCOMM_TRUST_SERVICE": "intelligence",
            "QUICKCOMM_TRUST_DIRECTORY": str(self.folder / "trust"),
            **settings,
        }
        if database_url is not None:
            self._environment["QUICKCOMM_INTELLIGENCE_DATABASE_URL"] = database_url
        self._news = asyncio.Event()
        self._numbers: Counter[str] = Counter()

    def mind(self) -> Mind:
        """One more, not started."""
        made = Mind(self.folder, f"intelligence-{len(self.minds) + 1}", self._flags, self._environment)
        self.minds.append(made)
        return made

    async def say(self, *conversations: str) -> list[str]:
        """An utterance in each of them; their ids. All texts are different."""
        said = []
        for conversation in conversations:
            self._numbers[conversation] += 1
            utterance_id = f"{conversation}:0:{self._numbers[conversation]}"
            await self._say(conversation, self._numbers[conversation], self.text_of(utterance_id))
            said.append(utterance_id)
        return said

    async def say_again(self, said: Sequence[str]) -> list[str]:
        """The same words, each in a conversation of its own."""
        for utterance_id in said:
            await self._say(_again(utterance_id), 1, self.text_of(utterance_id))
        return [f"{_again(utterance_id)}:0:1" for utterance_id in said]

    def text_of(self, utterance_id: str) -> str:
        conversation, _, number = utterance_id.split(":")
        return f"Bring {number} towels to {conversation}"

    async def _say(self, conversation: str, number: int, text: str) -> None:
        message = spoken(number, text, conversation=conversation, channel=conversation)
        await self.bus.publish(TRANSCRIPTS, conversation, msgspec.json.encode(message))

    def of(self, utterance_id: str) -> list[InsightsFound]:
        return [found for found in self.found if found.utterance_id == utterance_id]

    def versions(self, said: Sequence[str]) -> set[str | None]:
        """The prompt versions that they were understood by, in their first revision."""
        return {one.prompt_version for found in self.found if found.utterance_id in said for one in found.insights}

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(EVENTUALLY_S):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def understood(self, said: Sequence[str]) -> None:
        await self.until(lambda: {found.utterance_id for found in self.found} >= set(said))

    async def listen(self) -> None:
        """Until cancelled."""
        await self.bus.subscribe(INSIGHTS, "test", self._take)

    async def aclose(self) -> None:
        for mind in self.minds:
            mind.stop()
        await self.bus.aclose()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _take(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            found = msgspec.json.decode(delivery.payload, type=InsightsFound)
            if all((each.utterance_id, each.revision) != (found.utterance_id, found.revision) for each in self.found):
                self.found.append(found)
            else:
                self.repeated = (*self.repeated, found)
        self._news.set()


def _again(utterance_id: str) -> str:
    return utterance_id.replace(":", "-")


@asynccontextmanager
async def house(
    redis_url: str, database_url: str | None, *flags: str, minds: int = 2, **settings: str
) -> AsyncIterator[House]:
    """With so many processes, ready."""
    async with AsyncExitStack() as stack:
        made = House(redis_url, database_url, *flags, **settings)
        stack.push_async_callback(made.aclose)
        started = [made.mind() for _ in range(minds)]
        for mind in started:
            mind.launch()
        for mind in started:
            await mind.ready()
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(made.listen())
            yield made
            listening.cancel()
