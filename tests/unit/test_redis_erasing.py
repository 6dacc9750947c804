"""The append-only file of a store that is written anew: however the store fails meanwhile, it is done or said."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from quickcomm.kernel.messaging.bus import redis_erasing
from quickcomm.kernel.messaging.bus.port import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_erasing import LATER, RedisMessages
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError, Link
from quickcomm.kernel.messaging.bus.redis_names import Names


class Store:
    """Answers `BGREWRITEAOF` as it is told, and counts. `restarted`: it is started again while it writes."""

    def __init__(self, *outcomes: str | Exception) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0
        self.rewrites = 0
        self.is_away = False

    async def call(self, command: str, *_arguments: Any) -> Any:
        if command == "INFO":
            if self.is_away:
                raise BusUnavailableError("away")
            return {"aof_rewrites": str(self.rewrites), "aof_rewrite_in_progress": "0"}
        self.asked += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        self.rewrites = 0 if outcome == "restarted" else self.rewrites + 1
        return b"OK"


@pytest.mark.parametrize(
    ("outcomes", "asked", "gone"),
    [
        (("written",), 1, ""),
        (("restarted", "written"), 2, ""),
        ((BusUnavailableError("cut"), "written"), 2, ""),
        ((BusUnavailableError("no such command"),) * 3, 3, LATER),
        ((BusRefusedError("not you"),), 1, LATER),
    ],
)
async def test_the_file_is_written_anew_once_it_is_certain(
    monkeypatch: pytest.MonkeyPatch, outcomes: Sequence[str | Exception], asked: int, gone: str
) -> None:
    monkeypatch.setattr(redis_erasing, "AGAIN_S", 0.0)
    store = Store(*outcomes)
    assert await RedisMessages(cast("Link", store), Names()).write_file_anew() == gone
    assert store.asked == asked


async def test_a_store_that_is_away_is_said_so_that_it_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_erasing, "AGAIN_S", 0.0)
    store = Store()
    store.is_away = True
    with pytest.raises(BusUnavailableError):
        await RedisMessages(cast("Link", store), Names()).write_file_anew()
