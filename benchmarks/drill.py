"""A drill: a site of 10,000 cards is backed up and restored in every deployment and across, and compared each time.

`python -m benchmarks.drill [--cards N] [--conversations N]`. Seconds of each step, sizes of the files, and whether what
REST lists, the keys, the ledgers and the event logs are byte for byte the same afterwards.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.support.drill import Seen, fill, quiet, seen, to_services
from tests.support.valkey import Valkey

from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.backup import Whereabouts, back_up
from quickcomm.operate.restore import restore

WAYS: Final = (("serve", "serve"), ("serve", "services"), ("services", "services"), ("services", "serve"))


class Drill:
    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._before: Seen = {}

    async def run(self, cards: int, conversations: int) -> list[dict[str, Any]]:
        """Return a row for each way from one deployment into another."""
        sites = {"serve": Whereabouts(directory=DataDirectory(self._folder / "from-serve"))}
        await fill(sites["serve"].directory, cards, conversations)
        self._before = await seen(sites["serve"], "")
        await self._save(sites["serve"], "serve")
        first = DataDirectory(self._folder / "from-services")
        restore(self._folder / "serve.backup", first, quiet)
        sites["services"] = await to_services(first, self._url, "from-services")
        return [await self._way(sites[start], start, end) for start, end in WAYS]

    async def _way(self, site: Whereabouts, start: str, end: str) -> dict[str, Any]:
        name = f"{start}-to-{end}"
        began = time.perf_counter()
        size = await self._save(site, start)
        saved = time.perf_counter()
        directory = DataDirectory(self._folder / name)
        restore(self._folder / f"{start}.backup", directory, quiet)
        restored = time.perf_counter()
        back = Whereabouts(directory=directory)
        if end == "services":
            back = await to_services(directory, self._url, name)
        moved = time.perf_counter()
        found = await seen(back, name)
        return {
            "from": start,
            "to": end,
            "mb": round(size / 1e6, 1),
            "backup_s": round(saved - began, 2),
            "restore_s": round(restored - saved, 2),
            "move_s": round(moved - restored, 2),
            "items": sum(map(len, found.values())),
            "differ": [what for what, items in self._before.items() if items != found[what]],
        }

    async def _save(self, site: Whereabouts, name: str) -> int:
        file = self._folder / f"{name}.backup"
        return (await back_up(site, file, quiet, force=True, prefix=site.directory.path.name)).bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", type=int, default=10_000)
    parser.add_argument("--conversations", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        valkey = Valkey(Path(name) / "valkey")
        valkey.start()
        try:
            rows = asyncio.run(Drill(Path(name), valkey.url).run(given.cards, given.conversations))
        finally:
            valkey.stop()
    print(f"{'from':<10}{'to':<10}{'MB':>8}{'backup':>9}{'restore':>9}{'move':>9}{'items':>9}  byte-equal")
    for row in rows:
        times = "".join(f"{row[step]:>7.2f} s" for step in ("backup_s", "restore_s", "move_s"))
        same = "no: " + ", ".join(row["differ"]) if row["differ"] else "yes"
        print(f"{row['from']:<10}{row['to']:<10}{row['mb']:>8.1f}{times}{row['items']:>9,}  {same}")
    print(json.dumps({"cards": given.cards, "conversations": given.conversations, "ways": rows}))
    return 1 if any(row["differ"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
