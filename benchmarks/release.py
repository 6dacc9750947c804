"""Another release of intelligence takes the place of the service while people talk, and one is taken back.

`python -m benchmarks.release [--talkers 8] [--share 50] [--rollbacks 3]` (needs QUICKCOMM_SPEECH_DATA): a site whose
intelligence has left the monolith, real speech in real time. `quickcomm deploy` brings a copy of the tree with another
version up, with `--share` of the conversations first; each step waits for its gate. Then others are brought to
half, and taken back. Told: seconds from the command to the shadow, from the first share to all of it, to the end of the
former process; from `--rollback` until the service has all of it in force, and until the release is gone; what was
lost, doubled, or answered twice.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from tests.support.kills import Toll, count, seen_everywhere, watching
from tests.support.releasing import Checkout
from tests.support.resuming import Heard, stream
from tests.support.server import quickcomm
from tests.support.site import Site

from benchmarks.migrate import PAUSE_S, SETTINGS, Talkers
from benchmarks.mover import Cards, Json, Mover
from benchmarks.shapes import Tuning, topology
from benchmarks.talkers import talk
from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.routes import SERVICE

NAME: Final = "intelligence"
LOOK_S: Final = 0.1
LENGTHS_S: Final = (20.0, 40.0)
"""Of conversations, in turn: short ones, so that there are some at each share."""
HALF: Final = ("step", NAME, "--force")
WITHIN_S: Final = 600.0


class Timeline:
    """When a module first was at each stage, and on which sides; read off the controller ten times a second."""

    def __init__(self, mover: Mover) -> None:
        self._mover = mover
        self.stages: list[tuple[float, str, Json]] = []
        """Monotonic seconds, the stage, and the module as it was."""

    async def watch(self) -> None:
        while True:
            found = await self._mover.module(NAME)
            stage = f"{found['mode']} {found['weight'] * 100 / BUCKETS:g} %"
            if found["mode"] != "?" and (not self.stages or self.stages[-1][1] != stage):
                self.stages.append((time.monotonic(), stage, found))
            await asyncio.sleep(LOOK_S)

    def since(self, began: float) -> dict[str, float]:
        """Return seconds from then to each stage."""
        return {stage: round(at - began, 1) for at, stage, _ in self.stages if at >= began}


async def command(site: Site, *words: str) -> tuple[float, str]:
    """Run a command about the site; return how long it took, and what it said."""
    began = time.monotonic()
    said = await asyncio.to_thread(quickcomm, *words, "--data-dir", str(site.data_dir), timeout=WITHIN_S)
    return round(time.monotonic() - began, 2), said.strip().splitlines()[-1]


async def deployed(site: Site, timeline: Timeline, release: Checkout, share: float) -> Json:
    """Deploy a release by its gates, to the end."""
    began = time.monotonic()
    took_s, said = await command(site, "deploy", NAME, *release.flags, "--share", f"{share:g}")
    stages = timeline.since(began)
    first = next((at for stage, at in stages.items() if stage.startswith("canary")), stages.get("full 100 %", took_s))
    return {
        "said": said,
        "stages_s": stages,
        "command_to_shadow_s": stages.get("shadow 0 %"),
        "canary_to_full_s": round(stages["full 100 %"] - first, 1),
        "command_to_end_s": took_s,
    }


async def taken_back(site: Site, mover: Mover, release: Checkout) -> Json:
    """Bring a release to half of the conversations, and take it back."""
    await command(site, "deploy", NAME, *release.flags, "--by-hand", "--share", "50")
    await command(site, "migrate", *HALF)
    await mover.calm()
    began = time.monotonic()
    took_s, _ = await command(site, "deploy", NAME, "--rollback")
    while (await mover.module(NAME))["mode"] != "retired":  # noqa: ASYNC110 - the controller tells nobody
        await asyncio.sleep(LOOK_S)
    return {"in_force_s": took_s, "gone_s": round(time.monotonic() - began, 2)}


async def measure(site: Site, options: argparse.Namespace, folder: Path) -> Json:
    lengths = (LENGTHS_S[each % len(LENGTHS_S)] for each in range(options.talkers))
    talks = [talk(each, seconds, PAUSE_S) for each, seconds in enumerate(lengths)]
    key = await asyncio.to_thread(site.key)
    undisturbed: list[Heard] = await asyncio.gather(*(stream(site.url, key, each.samples.tobytes()) for each in talks))
    mover, over, people = Mover(site, options.pause, Cards()), asyncio.Event(), Talkers(site, talks, undisturbed)
    for words in (("start", NAME, "--force"), ("promote", NAME, "--force"), ("step", NAME, "--force")):
        await mover.command(*words)
    timeline = Timeline(mover)
    async with AsyncExitStack() as stack:
        cards = await stack.enter_async_context(watching(site))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        looking = tasks.create_task(timeline.watch())
        talking = tasks.create_task(people.run(over))
        feeling = tasks.create_task(people.feel())
        await mover.calm()
        there = await deployed(site, timeline, Checkout(folder / "next"), options.share)
        back = [
            await taken_back(site, mover, Checkout(folder / f"back{number}", f"0.3.{number}"))
            for number in range(options.rollbacks)
        ]
        over.set()
        await talking
        feeling.cancel()
        looking.cancel()
        toll = Toll(seed=0, kills={})
        for now, calm in people.heard:
            count(toll, now, calm)
        await seen_everywhere(site, toll, [now for now, _ in people.heard], cards)
    return {
        "deploy": there,
        "rollback_in_force_s": [each["in_force_s"] for each in back],
        "rollback_gone_s": [each["gone_s"] for each in back],
        "conversations": toll.conversations,
        "utterances": toll.utterances,
        "faults": toll.faults,
        "stalls_of_the_clients_s": sorted(people.stalls)[-5:],
        "side_at_the_end": (await mover.module(NAME)).get("candidate", SERVICE),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talkers", type=int, default=8)
    parser.add_argument("--bake", type=float, default=0.0, help="seconds at each stage at least")
    parser.add_argument("--rollbacks", type=int, default=3)
    parser.add_argument("--pause", type=float, default=5.0, help="seconds at half before it is taken back")
    parser.add_argument("--share", type=float, default=50.0, help="per cent that it gets first")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the gates: fewer samples with less")
    options = parser.parse_args()
    settings = SETTINGS | {
        "QUICKCOMM_TRAFFIC_BAKE_S": str(options.bake),
        "QUICKCOMM_TRAFFIC_CONFIDENCE": str(options.confidence),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        topology("monolith", Tuning(settings=settings)) as site,
    ):
        rows: dict[str, Any] = asyncio.run(measure(site, options, Path(folder)))
    for name, value in rows.items():
        print(f"{name:28} {json.dumps(value) if isinstance(value, dict | list) else value}")
    print(json.dumps({"what": "release", **vars(options), **rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
