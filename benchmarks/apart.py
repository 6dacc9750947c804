"""Whether the services leave each other alone: what rush hour, a model that hangs, and a restart do to the talk.

`python -m benchmarks.apart [NAME …] [--talkers 16] [--seconds 60] [--rounds 2] [--processes audio=2] [--quick]` (needs
QUICKCOMM_SPEECH_DATA) with names out of:

*calm*: audio p95 in rush hour ÷ with nothing but the talk, taking turns (aim ≤ 1.1); and ÷ with one page that has all
captions, as a manager's has: for captions the engine decodes what is not finished, whether one looks or fifty.
*hang*: the language model hangs for a minute in rush hour: audio p95 meanwhile ÷ before (aim ≤ 1.05), what stayed
unclassified (aim 0), and how soon all that was degraded is renewed.
*restart*: `quickcomm restart` of the module that hears, in the middle of the talk: what is lost or doubled (aim 0),
and acks. An ack comes at the end of an utterance at the earliest, so beside the longest pause between two (aim ≤ 2 s)
there is the same of an undisturbed run of the same sound, and by how much any ack came later than there.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp
import msgspec
from tests.support.kills import Toll, count
from tests.support.resuming import Heard, stream
from tests.support.server import quickcomm
from tests.support.site import Site as Topology

from benchmarks.capacity import LEAD_S, TAIL_S, Site, connections, lines, run_talkers, talks_of, until
from benchmarks.house import FakeLlm, fake_llm
from benchmarks.load import Line, percentile, talk
from benchmarks.rush import AUDIO, MODEL, RUSH, WATCHED, Load, Queries, beside
from benchmarks.shapes import TUNED, Tuning, topology, under_up
from benchmarks.talkers import talk as stream_of
from quickcomm.client.audio_client import Event
from quickcomm.contracts.audio_socket import Ack

SETTLE_S: Final = 5.0
RENEWED_WITHIN_S: Final = 180.0
HEARS: Final = ("audio", "monolith")
"""Modules that hear; the first that there is."""
Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    shape: str
    talkers: int
    seconds: float
    lead: float
    rounds: int
    processes: Mapping[str, int] = field(default_factory=dict)

    @property
    def tuning(self) -> Tuning:
        return replace(TUNED[self.shape], processes=self.processes)


# -- rush hour ---------------------------------------------------------------------------------------------------------


async def calm(plan: Plan) -> Result:
    loads = (AUDIO, WATCHED, RUSH)
    found: dict[str, list[float]] = {load.name: [] for load in loads}
    cards: dict[str, list[float]] = {load.name: [] for load in loads}
    for _ in range(plan.rounds):
        for load in loads:
            async with _model(load) as (_, flags):
                row = await run_talkers(
                    plan.talkers,
                    plan.seconds,
                    lead=plan.lead,
                    start=under_up(plan.shape, plan.tuning, *flags),
                    beside=beside(load, Queries()),
                )
            found[load.name].append(round(row.p95, 3))
            cards[load.name].append(round(row.card_p95, 3))
    typical = {name: statistics.median(each) for name, each in found.items()}
    return {
        "audio_p95_s": found,
        "card_p95_s": cards,
        "rush_over_calm": round(typical[RUSH.name] / typical[AUDIO.name], 3),
        "rush_over_watched": round(typical[RUSH.name] / typical[WATCHED.name], 3),
    }


# -- a model that hangs ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Board:
    """What a page has: utterances that are classified, those that are degraded now, and when others were made good."""

    classified: set[str] = field(default_factory=set)
    degraded: set[str] = field(default_factory=set)
    made_good: dict[str, float] = field(default_factory=dict)

    def note(self, card: dict[str, Any], now: float) -> None:
        name, insights = card["utterance_id"], card["insights"]
        if not insights:
            return
        self.classified.add(name)
        if any(one["degraded"] for one in insights):
            self.degraded.add(name)
        elif name in self.degraded:
            self.degraded.discard(name)
            self.made_good[name] = now

    async def watch(self, client: aiohttp.ClientSession, place: Site) -> None:
        headers = {"Authorization": f"Bearer {place.read}"}
        async with client.ws_connect(f"{place.url}/v1/live", headers=headers, max_msg_size=0) as page:
            async for message in page:
                if message.type is aiohttp.WSMsgType.TEXT and '"type":"card"' in message.data[:20]:
                    self.note(msgspec.json.decode(message.data)["card"], time.monotonic())


async def hang(plan: Plan) -> Result:
    speakers = lines(talks_of(plan.talkers, plan.lead + 3 * plan.seconds + TAIL_S))
    board, queries = Board(), Queries()
    async with _model(RUSH) as (fake, flags):
        assert fake is not None
        start = under_up(plan.shape, plan.tuning, *flags)
        async with (
            start(plan.talkers) as place,
            connections() as client,
            beside(RUSH, queries)(place, client),
            asyncio.TaskGroup() as tasks,
        ):
            page = tasks.create_task(board.watch(client, place))
            begin, stop = time.monotonic() + 2.0, asyncio.Event()
            talking = [
                tasks.create_task(talk(client, place.url, place.key(number), line, begin + number / 50, stop))
                for number, line in enumerate(speakers)
            ]
            moments = [begin + plan.lead + number * plan.seconds for number in range(4)]
            await until(moments[1])
            await fake.be(hang=1.0)
            await until(moments[2])
            await fake.be(hang=0.0)
            back = time.monotonic()
            await asyncio.gather(*talking)
            said = {one.utterance_id for line in speakers for one in line.heard}
            await _becomes(lambda: said <= board.classified, within_s=30.0)
            await _becomes(lambda: not board.degraded, within_s=RENEWED_WITHIN_S)
            page.cancel()
    before, during, after = (_p95(speakers, *each) for each in itertools.pairwise(moments))
    return {
        "audio_p95_before_s": before,
        "audio_p95_while_it_hangs_s": during,
        "audio_p95_after_s": after,
        "hanging_over_before": round(during / before, 3),
        "utterances": len(said),
        "unclassified": len(said - board.classified),
        "degraded": len(board.degraded) + len(board.made_good),
        "not_renewed": len(board.degraded),
        "last_renewed_after_s": round(max(board.made_good.values(), default=back) - back, 1),
        **queries.told(),
    }


def _p95(speakers: Sequence[Line], since: float, before: float) -> float:
    heard = [one.latency_s for line in speakers for one in line.heard if since <= one.ended_at < before]
    return round(percentile(heard, 0.95), 3)


async def _becomes(holds: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:  # noqa: ASYNC110 - the page tells nobody
        await asyncio.sleep(0.05)
    return holds()


# -- a restart ---------------------------------------------------------------------------------------------------------


class Acks:
    """Acks of one talker: seconds from the first word, and up to where."""

    def __init__(self) -> None:
        self._began = 0.0
        self.came: list[tuple[float, int]] = []

    def __call__(self, event: Event) -> None:
        self._began = self._began or time.monotonic()
        if isinstance(event, Ack):
            self.came.append((time.monotonic() - self._began, event.offset))

    @property
    def longest_gap_s(self) -> float:
        times = [0.0, *(at for at, _ in self.came)]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)

    def late_by_s(self, undisturbed: "Acks") -> float:
        """How much later than there anything was acknowledged, at worst."""
        worst = 0.0
        for at, offset in undisturbed.came:
            reached = min((time_ for time_, acked in self.came if acked >= offset), default=float("inf"))
            worst = max(worst, reached - at)
        return worst


async def restart(plan: Plan) -> Result:
    sounds = [stream_of(number, plan.lead + plan.seconds).samples.tobytes() for number in range(plan.talkers)]
    around = topology(plan.shape, plan.tuning)
    site = await asyncio.to_thread(around.__enter__)
    try:
        rows = await asyncio.to_thread(site.status)
        module = next(name for name in HEARS if any(row["module"] == name for row in rows))
        before, still = await _all_talk(site, sounds)
        after, moved = await _all_talk(site, sounds, lambda: _restarted(site, module, plan.lead))
        fresh = await asyncio.to_thread(site.status)
    finally:
        await asyncio.to_thread(around.__exit__, None, None, None)
    toll = Toll(seed=0, kills={})
    for now, then in zip(after, before, strict=True):
        count(toll, now, then)
    kept = {row["pid"] for row in rows if row["module"] == module} & {row["pid"] for row in fresh}
    pairs = list(zip(moved, still, strict=True))
    return {
        "module": module,
        "processes": sum(row["module"] == module for row in rows),
        "replaced": not kept,
        "utterances": toll.utterances,
        "faults": toll.faults,
        "longest_ack_gap_s": round(max(acks.longest_gap_s for acks in moved), 2),
        "undisturbed_ack_gap_s": round(max(acks.longest_gap_s for acks in still), 2),
        "acks_late_by_s": round(max(now.late_by_s(then) for now, then in pairs), 2),
    }


async def _all_talk(
    site: Topology, sounds: Sequence[bytes], meanwhile: Callable[[], Awaitable[None]] | None = None
) -> tuple[list[Heard], list[Acks]]:
    key = await asyncio.to_thread(site.key)
    acks = [Acks() for _ in sounds]
    async with asyncio.TaskGroup() as tasks:
        talking = [
            tasks.create_task(stream(site.url, key, sound, told, paced=True))
            for sound, told in zip(sounds, acks, strict=True)
        ]
        if meanwhile is not None:
            await meanwhile()
    return [task.result() for task in talking], acks


async def _restarted(site: Topology, module: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await asyncio.to_thread(quickcomm, "restart", module, "--data-dir", str(site.data_dir), timeout=600)


# ----------------------------------------------------------------------------------------------------------------------

MEASURED: Final[dict[str, Callable[[Plan], Awaitable[Result]]]] = {"calm": calm, "hang": hang, "restart": restart}


@asynccontextmanager
async def _model(load: Load) -> AsyncIterator[tuple[FakeLlm | None, tuple[str, ...]]]:
    """The model of a load, and how to tell `up` of it."""
    if not load.model:
        yield None, ()
        return
    async with fake_llm(**MODEL) as fake:
        yield fake, ("--llm-url", fake.url)


async def _measured(name: str, plan: Plan) -> Result:
    return await MEASURED[name](plan)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MEASURED, []], help="all, if none is named")
    parser.add_argument("--talkers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", default="services", choices=sorted(TUNED))
    parser.add_argument("--processes", action="append", default=[], metavar="MODULE=N")
    parser.add_argument("--quick", action="store_true", help="a trial with few talkers: its figures are no result")
    options = parser.parse_args()
    more = {module: int(count) for module, _, count in (each.partition("=") for each in options.processes)}
    plan = Plan(
        shape=options.shape,
        talkers=options.talkers,
        seconds=options.seconds,
        lead=LEAD_S,
        rounds=options.rounds,
        processes=more,
    )
    if options.quick:
        plan = replace(plan, talkers=3, seconds=15.0, lead=SETTLE_S, rounds=1)
    results: dict[str, Result] = {}
    for name in options.names or MEASURED:
        results[name] = asyncio.run(_measured(name, plan))
        print(f"{name}:", flush=True)
        for key, value in results[name].items():
            print(f"  {key:28} {value}", flush=True)
    print(json.dumps({"quick": options.quick, "talkers": plan.talkers, **results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
