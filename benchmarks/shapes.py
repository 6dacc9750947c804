"""Sites under `quickcomm up`, as benchmarks want them: a shape, tuned, with all its processes counted."""

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.server import quickcomm
from tests.support.site import Site as Topology

from benchmarks.capacity import Place, Site, new_keys

UNLIMITED: Final = {
    "QUICKCOMM_EDGE_REQUESTS_PER_SECOND": "1000000",
    "QUICKCOMM_EDGE_REQUESTS_BURST": "1000000",
    "QUICKCOMM_KEYS_REQUESTS_PER_SECOND": "1000000",
    "QUICKCOMM_KEYS_REQUESTS_BURST": "1000000",
}
"""All load comes from one address, with few keys: what protects a site from that must not be what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """`settings`: environment variables. `processes`: so many of a module; modules that are not there are left out."""

    settings: Mapping[str, str] = field(default_factory=dict)
    processes: Mapping[str, int] = field(default_factory=dict)


TUNED: Final[Mapping[str, Tuning]] = {"monolith": Tuning(), "services": Tuning()}
"""What serves each shape best on two cores."""


@contextmanager
def topology(shape: str, tuning: Tuning = TUNED["monolith"], *flags: str) -> Iterator[Topology]:
    """A running one, all of which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        made = Topology(Path(folder) / "data", "--shape", shape, *flags, **UNLIMITED, **tuning.settings)
        try:
            made.start()
            there = {row["module"] for row in made.status()}
            for module, count in tuning.processes.items():
                if module in there and count > 1:
                    quickcomm("scale", f"{module}={count}", "--data-dir", str(made.data_dir), timeout=600)
            made.wait_ready()
            yield made
        finally:
            made.make_sure()


def under_up(shape: str, tuning: Tuning = TUNED["monolith"], *flags: str) -> Place:
    """`flags`: for `quickcomm up`."""

    @asynccontextmanager
    async def start(talkers: int) -> AsyncIterator[Site]:
        around = topology(shape, tuning, *flags)
        made = await asyncio.to_thread(around.__enter__)
        try:
            rows = await asyncio.to_thread(made.status)
            ingest, read = await new_keys(made.data_dir, talkers)
            parts: defaultdict[str, list[int]] = defaultdict(list)
            for row in rows:
                parts[row["module"]].append(row["pid"])
            yield Site(made.url, made.data_dir, parts, ingest, read)
            after = await asyncio.to_thread(made.status)
            assert [row["pid"] for row in after] == [row["pid"] for row in rows], "none was started anew"
        finally:
            await asyncio.to_thread(around.__exit__, None, None, None)

    return start
