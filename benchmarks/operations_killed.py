"""Operations over services under `kill -9` and faults of the network, while people talk: half-done, or done twice.

`python -m benchmarks.operations_killed [--operations 200] [--talkers 6] [--kills 30] [--faults 60] [--seconds 0]
[--seed N] [--shape services] [--planted DEFECT]`: so many conversations are closed, utterances corrected, tasks
dispatched and conversations erased, at random moments, each asked for over REST until it rests. Meanwhile any process
is killed, the store too; connections to the store and between services are slow, frozen, reset or refused, for 0.2 to 8
s each; and the receiver of notices fails, hangs up, says nothing or refuses. Afterwards all is mended, and it is
counted what is not whole: half-done, doubled, found by `quickcomm check`; of the talkers what was lost or doubled. What
a client was not told of its insights before its conversation ended (`audio.answer_wait_s`) is told as `unanswered`;
REST must have all of it. `--seed` repeats one. `--planted`: a defect in the steps (`wrong_steps`), which has to be
found: exit status 1.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from tests.support.between import Faults, before_store, between_services, planned
from tests.support.kills import Killer, Toll, count, listed_once
from tests.support.operated import Outcome, Proof
from tests.support.operating import Asker, client, material
from tests.support.receiver import HANGS_UP, SAYS_NOTHING, SECRET, Got, Kind, Receiver, receiving
from tests.support.resuming import Heard, stream
from tests.support.site import Site
from tests.support.valkey import Valkey

from benchmarks.shapes import Tuning, topology
from benchmarks.talkers import talk

Json = dict[str, Any]
TALK_S: Final = 40.0
SECONDS_EACH: Final = 3.0
"""Without `--seconds`, for each operation of a kind."""
NOTICES: Final = {
    "QUICKCOMM_OPERATIONS_WEBHOOK_SECRET": SECRET,
    "QUICKCOMM_OPERATIONS_WEBHOOK_TIMEOUT_S": "2",
    "QUICKCOMM_OPERATIONS_WEBHOOK_WITHIN_S": "20",
}
WRONG_STEPS: Final = Path(__file__).parent / "wrong_steps"
DEFECTS: Final = ("no-key", "undo-twice")
LOST_REPLIES: Final = "lost-replies"
"""No defect: each third reply of a step is lost."""
GONE, REFUSED = 0.08, 0.05
"""Shares of tasks whose notices are never taken, or refused for good."""
TROUBLE: Final[tuple[tuple[float, Kind], ...]] = ((0.2, 500), (0.1, HANGS_UP), (0.1, SAYS_NOTHING))
"""Answers to an attempt, with the chance of each."""


class Moody:
    """Chooses the answers of the receiver of notices. `taken`: ids of those it has accepted: none is refused later."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._chance = random.Random(f"receiver {seed}")  # noqa: S311 - to be repeated, not to be secret
        self.taken: set[str] = set()

    def __call__(self, got: Got) -> Kind:
        fate = random.Random(f"{self._seed} {got.data['assignee']}").random()  # noqa: S311 - as above
        if got.id not in self.taken and fate < GONE:
            return 500
        if got.id not in self.taken and fate < GONE + REFUSED:
            return 410
        left = self._chance.random()
        for share, kind in TROUBLE:
            if left < share:
                return kind
            left -= share
        self.taken.add(got.id)
        return 204


@asynccontextmanager
async def whole_site(
    options: argparse.Namespace, receiver: Receiver, folder: Path
) -> AsyncIterator[tuple[Site, Valkey, Faults]]:
    """Give a running site, its store, and what makes the wires between all of them fail."""
    planted = {"PYTHONPATH": str(WRONG_STEPS), "BENCH_PLANTED": options.planted} if options.planted else {}
    store = Valkey(folder / "store", "always", maxmemory_policy="noeviction", aof_use_rdb_preamble="no")
    await asyncio.to_thread(store.start)
    try:
        async with before_store(store.port, folder) as wires:
            settings = {**NOTICES, **planted, "QUICKCOMM_OPERATIONS_WEBHOOK_URL": receiver.url}
            around = topology(options.shape, Tuning(settings=settings), "--redis-url", f"unix://{folder}/{{user}}.sock")
            site = await asyncio.to_thread(around.__enter__)
            try:
                async with between_services(site.layout.root) as sockets:
                    yield site, store, Faults(wires, sockets.proxies)
            finally:
                await asyncio.to_thread(around.__exit__, None, None, None)
    finally:
        store.stop()


class People:
    """Talk in real time, over and over, and hear what a calm site tells them."""

    def __init__(self, site: Site, talkers: int) -> None:
        self._site = site
        self._sounds = [talk(number, TALK_S).samples.tobytes() for number in range(talkers)]
        self._undisturbed: list[Heard] = []
        self.heard: list[Heard] = []

    async def _say(self, *, paced: bool) -> list[Heard]:
        key = await asyncio.to_thread(self._site.key)
        return await asyncio.gather(*(stream(self._site.url, key, sound, paced=paced) for sound in self._sounds))

    async def rehearse(self) -> None:
        """Hear what comes of it undisturbed."""
        self._undisturbed = await self._say(paced=False)

    async def talk(self, over: asyncio.Event) -> Toll:
        """Talk until it is over; return what became of the words."""
        toll = Toll(seed=0, kills={})
        while self._sounds and not over.is_set():
            for now, before in zip(await self._say(paced=True), self._undisturbed, strict=True):
                count(toll, now, before)
                self.heard.append(now)
        return toll


def said(line: str, began: float) -> None:
    print(f"  {time.monotonic() - began:6.1f} s  {line}", file=sys.stderr, flush=True)


async def killed(options: argparse.Namespace) -> tuple[Outcome, Json]:
    """Return what became of the operations, and the rest of what is told."""
    began, seconds = time.monotonic(), options.seconds or SECONDS_EACH * options.operations
    moody = Moody(options.seed)
    with tempfile.TemporaryDirectory(prefix="qc-") as name:
        async with receiving() as receiver, whole_site(options, receiver, Path(name)) as (site, store, faults):
            receiver.choose = moody
            wanted = await material(site, options.operations)
            people = People(site, options.talkers)
            await people.rehearse()
            said(f"{len(wanted)} conversations are said", began)

            def kill_store() -> None:
                store.kill()
                store.start()

            killer = Killer(site, options.seed, patient=False, others={"valkey": kill_store})
            async with client(site) as session:
                asker, over = Asker(session, options.seed), asyncio.Event()
                async with asyncio.TaskGroup() as tasks:
                    talking = tasks.create_task(people.talk(over))
                    asking = tasks.create_task(asker.all(wanted, seconds))
                    async with asyncio.TaskGroup() as trouble:
                        trouble.create_task(killer.run(options.kills, seconds))
                        trouble.create_task(faults.run(planned(options.faults, seconds, options.seed)))
                    left = Counter(asked.kind for asked in wanted if not asked.status)
                    said(f"all is mended; still at work: {dict(left)}", began)
                    asker.mended.set()
                    await asking
                    over.set()
                said(f"all that was asked for rests; people have said {talking.result().utterances} utterances", began)
                await asyncio.to_thread(site.wait_ready)
                await asker.until_all_rest()
                rested_s = time.monotonic() - began
                await listed_once(site, talking.result(), people.heard)
                proof = Proof(site, asker, receiver, moody.taken)
                outcome = await proof.of(wanted, [site.data_dir.parent, Path(name)])
                notices = {"attempts": len(receiver.got), "ids": len(receiver.ids), "taken": len(moody.taken)}
    return outcome, {
        "seed": options.seed,
        "seconds": round(rested_s),
        "kills": dict(sorted(killer.killed.items())),
        "faults_of_wires": dict(sorted(faults.had.items())),
        "notices": notices,
        "answers_that_failed": dict(asker.failed.most_common()),
        "utterances": talking.result().utterances,
        "unanswered": talking.result().unanswered,
        "talkers_faults": {name: found for name, found in talking.result().faults.items() if name != "unanswered"},
    }


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=200, help="of each of the four kinds")
    parser.add_argument("--talkers", type=int, default=6)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--faults", type=int, default=60, help="of the wires between processes")
    parser.add_argument("--seconds", type=float, default=0.0, help="over which all of it is spread; 0: by operations")
    parser.add_argument("--shape", default="services")
    parser.add_argument(
        "--planted", choices=(LOST_REPLIES, *DEFECTS), help="a defect in the steps, which has to be found"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    return parser.parse_args(arguments)


def main() -> int:
    options = parsed()
    outcome, rest = asyncio.run(killed(options))
    columns = ("asked", "done", "compensated", "parked", "resumed", "asked_again", "operations")
    print("".join([f"{'':10}", *(f"{name:>13}" for name in columns)]))
    for kind, row in outcome.kinds.items():
        print("".join([f"{kind:10}", *(f"{row[name]:>13}" for name in columns)]))
    print(f"kills: {', '.join(f'{name} {number}' for name, number in rest['kills'].items())}; seed {options.seed}")
    print(f"wires: {', '.join(f'{name} {number}' for name, number in rest['faults_of_wires'].items())}")
    print(f"answers that failed: {rest['answers_that_failed']}")
    print(f"notices: {rest['notices']}; talkers: {rest['talkers_faults'] or 'nothing lost or doubled'}")
    for name in outcome.faults:
        print("\n".join([f"{name}:", *(f"  {each}" for each in getattr(outcome, name))]))
    print(f"half-done {len(outcome.half_done)}, doubled {len(outcome.doubled)}, found {len(outcome.check)}")
    print(json.dumps({**msgspec.to_builtins(outcome), **rest}))
    return 1 if outcome.faults or rest["talkers_faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
