"""`kill -9` at random moments of a shift, its clients resuming: what comes out is what comes out undisturbed."""

import asyncio
import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.conftest import NewServer
from tests.support.resuming import Heard, assert_as_undisturbed, assert_listed_once, assert_same_text, stream
from tests.support.server import Server
from tests.support.talk import RATE, decoded

from quickcomm.client.audio_client import Disconnected, Event
from quickcomm.contracts.audio_socket import Ack, Insights, Partial, Ready, Utterance

SHIFT: Final = Path(__file__).parents[2] / "src/quickcomm/demo_shift"
KINDS: Final[tuple[type[Event], ...]] = (Ack, Utterance, Insights, Partial, Ready)
MOST: Final = 12
"""So many events of a kind are let pass at most before the next kill."""


@cache
def shift() -> list[bytes]:
    """What is said on each channel of the sample shift."""
    channels = json.loads((SHIFT / "shift.json").read_text())["channels"]
    return [decoded(SHIFT / channel["file"]).tobytes() for channel in channels]


class Killer:
    """Kills the server at a random one of the events that its clients hear, and lets it come back; `kills` times."""

    def __init__(self, server: Server, kills: int, seed: int) -> None:
        self._server = server
        self._chance = random.Random(seed)  # noqa: S311 - a test
        self.left = kills
        self.killed_at: list[str] = []
        self._draw()

    def _draw(self) -> None:
        self._kind = self._chance.choice(KINDS)
        self._count = self._chance.randint(1, MOST)
        self._any = self._chance.randint(1, 5 * MOST)  # for kinds of which there are few

    def watch(self, event: Event) -> None:
        self._count -= isinstance(event, self._kind)
        self._any -= not isinstance(event, Disconnected)
        if self.left and (self._count <= 0 or self._any <= 0):
            self.left -= 1
            self.killed_at.append(type(event).__name__)
            self._server.kill()
            self._server.launch()
            self._draw()


async def together(server: Server, sounds: Sequence[bytes], killer: Killer | None = None) -> list[Heard]:
    key = server.key()
    watch = killer.watch if killer else lambda _: None
    async with asyncio.TaskGroup() as tasks:
        talking = [tasks.create_task(stream(server.url, key, sound, watch)) for sound in sounds]
    return [task.result() for task in talking]


async def killed(server: Server, sounds: Sequence[bytes], kills: int, seed: int) -> None:
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    server.key("read")
    undisturbed = await together(server, sounds)
    killer = Killer(server, kills, seed)
    while killer.left:
        heard = await together(server, sounds, killer)
        print(f"killed at {killer.killed_at}")  # noqa: T201
        await asyncio.to_thread(server.wait_ready)  # the last kill may have come with the last words
        for now, before in zip(heard, undisturbed, strict=True):
            assert sounds_of(server, now) == sounds_of(server, before)
            assert_as_undisturbed(now, before)
            await assert_listed_once(server, now)
        assert_same_text(heard, undisturbed)
    assert len(killer.killed_at) == kills


def sounds_of(server: Server, heard: Heard) -> dict[str, bytes]:
    """The recording of each utterance: what the speech engine got, to the sample."""
    folders = list((server.data_dir / "recordings").glob(f"*/c-{heard.conversation_id}"))
    assert len(folders) == 1
    found = {path.stem: path.read_bytes() for path in folders[0].glob("*.flac")}
    assert len(found) == len(heard.utterances)
    return found


async def test_a_shift_survives_three_kills(new_server: NewServer) -> None:
    sounds = [sound[: 2 * 45 * RATE] for sound in shift()[:2]]
    await killed(
        new_server(QUICKCOMM_STORAGE_RECORDINGS="true"), sounds, kills=3, seed=random.SystemRandom().randrange(2**32)
    )


@pytest.mark.long
async def test_a_shift_survives_fifty_kills(new_server: NewServer) -> None:
    sounds = [sound[: 2 * 75 * RATE] for sound in shift()]
    await killed(
        new_server(QUICKCOMM_STORAGE_RECORDINGS="true"), sounds, kills=50, seed=random.SystemRandom().randrange(2**32)
    )
