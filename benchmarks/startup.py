"""How long a warm `quickcomm serve` takes until it is ready: models and data directory prepared before."""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from quickcomm.operate.child import server

RUNS = 5


async def _once(folder: Path) -> float:
    began = time.perf_counter()
    async with server(folder / "data", 0, folder / "log"):
        return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(_once(Path(name)))  # prepares what is prepared once
        seconds = sorted(asyncio.run(_once(Path(name))) for _ in range(RUNS))
    print(f"ready after {statistics.median(seconds):.2f} s (median of {RUNS}; {seconds[0]:.2f} … {seconds[-1]:.2f})")
    print(json.dumps({"median_s": round(statistics.median(seconds), 3), "runs_s": [round(one, 3) for one in seconds]}))


if __name__ == "__main__":
    main()
