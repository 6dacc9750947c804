"""The direct link of an instance that understands: its state each second, and what a dashboard says of utterances."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.linked import Everything, Word, linked, served, until

from quickcomm.contracts.health import ClassifierHealth
from quickcomm.contracts.link import InstanceStatus
from quickcomm.contracts.timing import Latency
from quickcomm.intelligence.module import StatusLink
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.telemetry import Word as Said
from quickcomm.kernel.telemetry import set_tracing
from quickcomm.kernel.telemetry.off import NoTraces


class Traces(NoTraces):
    """What is heard of utterances."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def receipt(self, site: str, utterance_id: str, latency: Latency) -> None:
        del site, latency
        self.said.append(("receipt", utterance_id))

    def word(self, word: Said) -> None:
        self.said.append((word.why, word.utterance_id))


class Instance:
    def __init__(self) -> None:
        self.model = "llm"
        self.withdrawn = asyncio.Event()
        self.link = StatusLink(self._admit, lambda: InstanceStatus(classifier=ClassifierHealth(model=self.model)))

    def _admit(self, request: web.Request) -> Callable[[], Awaitable[None]]:
        Word().require(request, "dashboard")

        async def ended() -> None:
            await self.withdrawn.wait()

        return ended


@pytest.fixture
def traces() -> Iterator[Traces]:
    made = Traces()
    set_tracing(made)
    yield made
    set_tracing(None)


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "instances", lease_s=3_600)


async def test_its_state_comes_again_and_again(registry: DirectoryRegistry, tmp_path: Path) -> None:
    instance, told = Instance(), Everything()
    async with asyncio.timeout(30), served(instance.link.routes(), registry, tmp_path), linked(registry, told):
        assert (await told.statuses.get())[1].classifier.model == "llm"
        instance.model = "local"
        while (await told.statuses.get())[1].classifier.model != "local":
            pass


async def test_what_is_said_of_utterances_is_for_their_traces(
    registry: DirectoryRegistry, tmp_path: Path, traces: Traces
) -> None:
    instance, told = Instance(), Everything()
    async with served(instance.link.routes(), registry, tmp_path), linked(registry, told) as links:
        await told.statuses.get()
        links.receipt("main", "c", "c:0:1", Latency(total=1.0))
        links.keep_trace(Said(site="main", conversation_id="c", utterance_id="c:0:2", why="slow"))
        await until(lambda: traces.said == [("receipt", "c:0:1"), ("slow", "c:0:2")])


@pytest.mark.parametrize("end", ["stopping", "withdrawn"])
async def test_it_ends_when_the_instance_stops_or_the_token_is_withdrawn(
    registry: DirectoryRegistry, tmp_path: Path, end: str
) -> None:
    instance, told = Instance(), Everything()
    async with asyncio.timeout(30), served(instance.link.routes(), registry, tmp_path), linked(registry, told):
        await told.statuses.get()
        if end == "stopping":
            instance.link.close()
        else:
            instance.withdrawn.set()
        assert await told.losses.get() == "core-1"
