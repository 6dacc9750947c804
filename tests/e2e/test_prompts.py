"""A prompt is changed on a real server while somebody speaks: the next utterance has it, and no socket is touched."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import NewServer
from tests.support.llm import fake_llm
from tests.support.prompting import named, write
from tests.support.server import Server, quickcomm
from tests.support.talk import Talk
from tests.support.wire import Wire, connected, new_id

from quickcomm.intelligence.service.prompts import in_canary

Json = dict[str, Any]
RATE = 16_000
QUIET = bytes(2 * 3 * RATE)
SHORTER = named("shorter", system="Label this for $site.")


class Talking:
    """A conversation that goes on: it says the same again and again, on one connection."""

    def __init__(self, wire: Wire, talk: Talk) -> None:
        self._wire = wire
        self._pcm = talk.wire + QUIET
        self._sent = 0

    async def versions(self) -> set[str]:
        """Say it once more: the prompt versions of the insights it gets."""
        wire = self._wire
        before = {event["utterance_id"] for event in wire.of("utterance")}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wire.send(self._pcm, 6_400))
            self._sent += len(self._pcm) // 2
            await wire.until_acked(self._sent - 2 * RATE)
        new = {event["utterance_id"] for event in wire.of("utterance")} - before
        assert new
        while not new <= {event["utterance_id"] for event in wire.of("insights")}:
            await wire.until("insights")
        events = [event for event in wire.of("insights") if event["utterance_id"] in new]
        return {one["prompt_version"] for event in events for one in event["insights"]}


def prompts(server: Server, *arguments: str | Path, statuses: tuple[int, ...] = (0,)) -> list[Json]:
    told = quickcomm(
        "prompts", *map(str, arguments), "--json", "--data-dir", str(server.data_dir), statuses=statuses, timeout=120.0
    )
    return [json.loads(line) for line in told.splitlines()]


async def test_a_prompt_is_changed_while_somebody_speaks(new_server: NewServer, talk: Talk, tmp_path: Path) -> None:
    mine = write(tmp_path, "mine.toml", SHORTER)
    async with fake_llm() as fake:
        server = await asyncio.to_thread(new_server, "--llm-url", fake.url)

        async def run(*arguments: str | Path) -> Json:
            rows = await asyncio.to_thread(prompts, server, *arguments)
            return rows[0]

        built_in = (await run("list"))["id"]
        async with connected(server.url, server.key(), new_id()) as wire:
            await wire.until("ready")
            talking = Talking(wire, talk)
            assert await talking.versions() == {built_in}
            result = await run("evaluate", mine, "--limit", "6")
            assert result["comparison"]["candidate"]["failed"] == 0
            assert result["comparison"]["model"] == "fake-1"
            mine_id = result["prompt_id"]
            await run("deploy", mine_id)
            assert await talking.versions() == {mine_id}
            [system] = {call["messages"][0]["content"] for call in fake.calls[-1:]}
            assert system.startswith("Label this for ")
            await run("rollback")
            assert await talking.versions() == {built_in}
            ended = await wire.end()
            assert ended["ledger"]["gap"] == 0
            assert wire.of("reconnect") == []


@pytest.mark.long
async def test_a_canary_has_its_conversations_and_keeps_them_over_a_restart(
    new_server: NewServer, talk: Talk, tmp_path: Path
) -> None:
    mine = write(tmp_path, "mine.toml", SHORTER)
    names = [new_id() for _ in range(200)]
    within, without = (next(name for name in names if in_canary(name, 30) == side) for side in (True, False))
    async with fake_llm() as fake:
        server = await asyncio.to_thread(new_server, "--llm-url", fake.url)
        [row] = await asyncio.to_thread(prompts, server, "deploy", mine, "--canary", "30", "--force")
        assert row["forced"] is True

        async def versions(name: str) -> set[str]:
            async with connected(server.url, server.key(), name, channel=name) as wire:
                await wire.until("ready")
                found = await Talking(wire, talk).versions()
                await wire.end()
            return found

        assert await versions(within) == {row["prompt_id"]}
        assert await versions(without) == {row["against_id"]}
        await asyncio.to_thread(server.kill)
        listed = await asyncio.to_thread(prompts, server, "list")
        assert {(each["id"], each["weight"]) for each in listed} == {(row["prompt_id"], 30), (row["against_id"], 70)}
        await asyncio.to_thread(server.start)
        again = next(name for name in names if in_canary(name, 30) and name != within)
        assert await versions(again) == {row["prompt_id"]}
