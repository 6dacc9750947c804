"""A thousand open channels in which nobody speaks: what it costs to listen.

`python -m benchmarks.rooms [--rooms 1000] [--seconds 60]`: quiet room noise in messages of 100 ms on every channel.
Measured after 15 s, when the noise floors have settled; memory against the server before anybody had connected.
"""

import argparse
import asyncio
import json
import sys
import time

import numpy as np

from benchmarks.capacity import all_used, connections, site, until
from benchmarks.load import Line, talk
from benchmarks.talkers import RATE, room_noise

LEAD_S = 15.0


async def measure(count: int, seconds: float) -> dict[str, float]:
    noise = room_noise(20.0)
    rooms = [Line(f"room-{index}", np.roll(noise, 11_200 * index), endless=True) for index in range(count)]
    async with site(count) as place, connections() as client:
        idle = all_used(place)
        async with asyncio.TaskGroup() as tasks:
            begin, stop = time.monotonic() + 5.0 + count / 200, asyncio.Event()
            for index, line in enumerate(rooms):
                at = begin + (index % 100) / 1000
                tasks.create_task(talk(client, place.url, place.key(index), line, at, stop))
            await until(begin + LEAD_S)
            before = all_used(place)
            await until(begin + LEAD_S + seconds)
            after = all_used(place)
            behind = max((line.sent - line.acked) / RATE for line in rooms)
            stop.set()
    return {
        "rooms": count,
        "cores": round(after.since(before).cpu_s / seconds, 3),
        "above_idle_mb": round(after.rss_mb - idle.rss_mb, 1),
        "utterances": sum(len(line.heard) for line in rooms),
        "furthest_ack_behind_s": round(behind, 1),
        "generator_late_s": round(max(line.late_by for line in rooms), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    result = asyncio.run(measure(options.rooms, options.seconds))
    for name, value in result.items():
        print(f"{name:24}{value:>10}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
