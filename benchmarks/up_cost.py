"""What `up` costs: CPU seconds per second of speech, monolith under `up` ÷ `serve`, the two taking turns.

`python -m benchmarks.up_cost [--talkers 16] [--seconds 60] [--rounds 2] [--shape monolith]`. Under `up` all processes
are counted: Envoy, Valkey, the supervisor, `up` itself and the modules. Aim: ≤ 1.10.
"""

import argparse
import asyncio
import json
import statistics
import sys
from typing import Final

from benchmarks.capacity import run_talkers, site, table
from benchmarks.shapes import under_up

AIM: Final = 1.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talkers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", default="monolith", help="of `up`")
    options = parser.parse_args()
    places = {"serve": site, "up": under_up(options.shape)}
    cost: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(options.rounds):
        for name, start in places.items():
            row = asyncio.run(run_talkers(options.talkers, options.seconds, start=start))
            cost[name].append(row.cpu)
            print(name)
            table([row])
            sys.stdout.flush()
    alone, up = statistics.median(cost["serve"]), statistics.median(cost["up"])
    ratio = round(up / alone, 4)
    print(f"CPU per second of speech: serve {alone:.4f}, up {up:.4f}, up ÷ serve {ratio:.3f} (aim ≤ {AIM})")
    print(json.dumps({"talkers": options.talkers, "shape": options.shape, **cost, "ratio": ratio}))
    return 0 if ratio <= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
