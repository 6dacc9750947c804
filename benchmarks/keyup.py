"""Push-to-talk: how soon a transmission is a card once its key was let go, and how many utterances come of it.

`python -m benchmarks.keyup [--rounds 8] [--gateways 6]`.

*emergency*: one radio sends the shift's emergency at live pace in messages of 20 ms, cut hard at the last sample, then
nothing. Time from the last sample until the critical card is at a page. *gateways*: as many radios at once, each with
a transmission a round and nothing between them; time from the last sample until the utterance is told to the radio.
Each without `flush` and with it, taking turns.

Exit status 0 if all is within the aims (emergency ≤ 2.0 s, with flush ≤ 1.2 s, at the 95th percentile) and each
transmission is one utterance.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
from tests.support.onlooker import Onlooker, onlooking
from tests.support.server import Server
from tests.support.shapes import running
from tests.support.talk import RATE, Pcm, decoded
from tests.support.wire import Wire, connected, new_id

AIMS_S: Final = {"without flush": 2.0, "with flush": 1.2}
MESSAGE: Final = RATE // 50
PAUSE_S: Final = 3.0
SHIFT: Final = Path(__file__).parents[1] / "src/quickcomm/demo_shift"
KEEN: Final = 0.05
"""Cut a little inside what the shift calls the end: nothing is to follow the last sound."""


def transmissions() -> tuple[Pcm, list[Pcm]]:
    """The emergency, and all others of the shift that are short, each cut hard at both ends."""
    shift = json.loads((SHIFT / "shift.json").read_text())
    critical: list[Pcm] = []
    others: list[Pcm] = []
    for channel in shift["channels"]:
        sound = decoded(SHIFT / channel["file"])
        for said in channel["utterances"]:
            part = sound[round(said["start_s"] * RATE) : round((said["end_s"] - KEEN) * RATE)]
            urgent = any(insight["urgency"] == "critical" for insight in said["insights"])
            (critical if urgent else others).append(part)
    return critical[0], others


async def key(wire: Wire, pcm: Pcm, at: int) -> tuple[int, float]:
    """Send a transmission as it is spoken; returns the offset behind it, and when its last sample went out."""
    began = time.monotonic()
    for start in range(0, len(pcm), MESSAGE):
        part = pcm[start : start + MESSAGE]
        await asyncio.sleep(max(0.0, began + (start + len(part)) / RATE - time.monotonic()))
        await wire.socket.send_bytes(part.tobytes())
    return at + len(pcm), time.monotonic()


async def emergency(server: Server, onlooker: Onlooker, pcm: Pcm, *, flush: bool) -> float:
    conversation = new_id("emergency")
    async with connected(server.url, server.key(), conversation) as wire:
        await wire.until("ready")
        offset, let_go = await key(wire, pcm, 0)
        if flush:
            await wire.say(type="flush", offset=offset)

        def there(one: Onlooker) -> bool:
            cards = [card for card in one.cards.values() if card["conversation_id"] == conversation]
            return any(insight["urgency"] == "critical" for card in cards for insight in card["insights"])

        await onlooker.until(there)
        return time.monotonic() - let_go


async def gateway(server: Server, sounds: list[Pcm], *, flush: bool) -> tuple[int, list[float]]:
    """How many utterances came of its transmissions, and after how long each came."""
    let_go: list[float] = []
    came: list[float] = []

    async def listen(wire: Wire) -> None:
        while (event := await wire.hear()) is not None:
            if event["type"] == "utterance":
                came.append(time.monotonic())

    async with connected(server.url, server.key(), new_id("gateway")) as wire:
        await wire.until("ready")
        listening = asyncio.create_task(listen(wire))
        offset = 0
        for pcm in sounds:
            offset, at = await key(wire, pcm, offset)
            let_go.append(at)
            if flush:
                await wire.say(type="flush", offset=offset)
            await asyncio.sleep(PAUSE_S)
        await wire.say(type="end")
        await listening
    return len(came), [there - at for at, there in zip(let_go, came, strict=False)]


def figures(waits: list[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(waits, at)), 2) for name, at in (("p50", 50), ("p95", 95), ("max", 100))}


async def measure(rounds: int, gateways: int) -> dict[str, object]:
    critical, others = transmissions()
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
        async with onlooking(server) as onlooker:
            waits: dict[str, list[float]] = {name: [] for name in AIMS_S}
            for _ in range(rounds):
                for name in AIMS_S:
                    waits[name].append(await emergency(server, onlooker, critical, flush=name == "with flush"))
            found["emergency"] = {name: figures(all_) for name, all_ in waits.items()}
        for name in AIMS_S:
            parts = [
                [others[(number + 5 * turn) % len(others)] for turn in range(rounds)] for number in range(gateways)
            ]
            done = await asyncio.gather(*(gateway(server, part, flush=name == "with flush") for part in parts))
            found[f"gateways {name}"] = {
                "transmissions": rounds * gateways,
                "utterances": sum(count for count, _ in done),
                **figures([wait for _, all_ in done for wait in all_]),
            }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--gateways", type=int, default=6)
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds, options.gateways))
    emergencies = found["emergency"]
    assert isinstance(emergencies, dict)
    good = all(emergencies[name]["p95"] <= aim for name, aim in AIMS_S.items())
    for name, row in emergencies.items():
        print(f"emergency {name:15} p50 {row['p50']:.2f} s · p95 {row['p95']:.2f} s · aim {AIMS_S[name]} s")
    for name in AIMS_S:
        row = found[f"gateways {name}"]
        assert isinstance(row, dict)
        good &= row["utterances"] == row["transmissions"]
        print(
            f"gateways {name:16} {row['transmissions']} transmissions → {row['utterances']} utterances"
            f" · p50 {row['p50']:.2f} s · p95 {row['p95']:.2f} s"
        )
    print(json.dumps(found))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
