"""Unit costs of this machine: what a second of speech, an utterance, a page or a process takes, as `UnitCosts` JSON.

`python -m benchmarks.units [--rounds 3] [--seconds 60] [--tiny]` (needs QUICKCOMM_SPEECH_DATA). Monolith and services,
both under `up`, take turns. Each round has three sites of each: one where nobody speaks (at rest, then with queries,
then with open silent channels), one with talkers, one with talkers and pages that show all captions. What an utterance
costs with and without a language model is measured in this process, with a fake model; the monolith's own share of it
is taken from its CPU under talk, and the rest counts for speech. GPU seconds are published ones, and say so.

Each figure is the median of the rounds, with the least and the most. `--tiny` is a trial: its figures are no result.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import structlog
import uvloop

from benchmarks.capacity import LEAD_S, Row, Site, connections, run_talkers, until, used
from benchmarks.house import FakeLlm, fake_llm, house
from benchmarks.load import Line, talk
from benchmarks.process import Usage
from benchmarks.rush import MODEL, Load, Queries, beside
from benchmarks.shapes import under_up
from benchmarks.talkers import room_noise
from quickcomm.capacity.model.units import Deployment, Figure, Machine, Per, Resource, Unit, UnitCosts
from quickcomm.intelligence.adapters.sql_usage import TOKENS

DEPLOYMENTS: Final[tuple[Deployment, ...]] = ("monolith", "services")
SETTLE_S: Final = 3.0
HOUR_S: Final = 3_600.0
NAMES: Final = {"valkey": "store", "supervisor": "up", "operations": "up", "traffic": "up", "relay": "edge"}
"""Processes that are counted with others, or by what they are."""
BY_SPEECH: Final = frozenset({"monolith", "audio", "edge"})
"""What grows with the seconds of speech. Of the others, what grows with utterances."""
GPU_SOURCE: Final = (
    "github.com/arc53/llm-price-compass/issues/6: Llama 3 8B, vLLM, two A10G: 2,204 tokens/s read, 442 written. "
    "Low and median: by the tokens written, as if those read were cached; high: by all tokens"
)
READ_S, WRITTEN_S, GPUS = 2_203.64, 441.76, 2
Key = tuple[str, Per, Resource]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    seconds: float
    lead: float
    talkers: int
    pages: int
    rooms: int
    queries: float
    utterances: int
    """Given to intelligence and a dashboard in this process."""


FULL: Final = Plan(seconds=60.0, lead=LEAD_S, talkers=16, pages=20, rooms=200, queries=50.0, utterances=600)
TINY: Final = Plan(seconds=8.0, lead=6.0, talkers=2, pages=2, rooms=10, queries=10.0, utterances=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """A site where nobody speaks: cores by part at rest, with queries, with silent channels; megabytes by part."""

    rest: Mapping[str, float]
    queries: Mapping[str, float]
    rooms: Mapping[str, float]
    memory: Mapping[str, float]
    rooms_memory: Mapping[str, float]
    processes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """Of one utterance, in this process: CPU seconds with a dashboard, what a model adds to that, and its tokens."""

    local: float
    model: float
    tokens_in: float
    tokens_out: float


async def quiet(deployment: Deployment, plan: Plan) -> Quiet:
    async with under_up(deployment)(plan.rooms) as place, connections() as client:
        await asyncio.sleep(SETTLE_S)
        rest, memory = await watched(place, plan.seconds)
        async with beside(Load(name="queries", queries=plan.queries), Queries())(place, client):
            await asyncio.sleep(SETTLE_S)
            queries, _ = await watched(place, plan.seconds)
        async with open_rooms(place, plan.rooms):
            rooms, rooms_memory = await watched(place, plan.seconds)
        return Quiet(
            rest=rest,
            queries=queries,
            rooms=rooms,
            memory=memory,
            rooms_memory=rooms_memory,
            processes={name: len(pids) for name, pids in place.parts.items()},
        )


async def watched(place: Site, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Return the cores that each part takes over so many seconds, and its megabytes at the end."""
    before: dict[str, Usage] = used(place)
    await asyncio.sleep(seconds)
    after = used(place)
    cores = {name: after[name].since(before[name]).cpu_s / seconds for name in after}
    return cores, {name: each.rss_mb for name, each in after.items()}


@asynccontextmanager
async def open_rooms(place: Site, count: int) -> AsyncIterator[None]:
    """Have so many silent channels open; entered when their noise floors have settled."""
    noise = room_noise(20.0)
    rooms = [Line(f"room-{index}", np.roll(noise, 11_200 * index), endless=True) for index in range(count)]
    async with connections() as client, asyncio.TaskGroup() as tasks:
        begin, stop = time.monotonic() + 2.0 + count / 200, asyncio.Event()
        for index, line in enumerate(rooms):
            tasks.create_task(talk(client, place.url, place.key(index), line, begin + (index % 100) / 1_000, stop))
        await until(begin + 15.0)
        yield
        stop.set()


async def talking(deployment: Deployment, plan: Plan, pages: int) -> Row:
    load = Load(name="pages", pages=pages)
    start = under_up(deployment)
    return await run_talkers(plan.talkers, plan.seconds, lead=plan.lead, start=start, beside=beside(load, Queries()))


async def understood(plan: Plan) -> Understood:
    """Measure an utterance in this process. Publishing transcripts and taking in results is counted, too."""
    local, _ = await _one_utterance(plan, nullcontext(None))
    model, tokens = await _one_utterance(plan, fake_llm(**MODEL))
    return Understood(local=local, model=max(0.0, model - local), tokens_in=tokens[0], tokens_out=tokens[1])


async def _one_utterance(
    plan: Plan, model: AbstractAsyncContextManager[FakeLlm | None]
) -> tuple[float, tuple[float, float]]:
    """Return CPU seconds and tokens an utterance."""
    async with model as fake, house(None if fake is None else fake.url) as here:
        await here.answered(await here.talk(10.0, min(20.0, plan.utterances / 20)))
        began, before = time.process_time(), _tokens()
        said = await here.talk(20.0, plan.utterances / 20)
        await here.answered(said)
        spent = [(after - old) / len(said) for after, old in zip(_tokens(), before, strict=True)]
        return (time.process_time() - began) / len(said), (spent[0], spent[1])


def _tokens() -> tuple[float, float]:
    found = {
        each.labels["kind"]: each.value
        for family in TOKENS.collect()
        for each in family.samples
        if each.name.endswith("_total")
    }
    return found.get("prompt", 0.0), found.get("completion", 0.0)


def costs(
    deployment: Deployment, plan: Plan, still: Quiet, talks: tuple[Row, Row], each: Understood
) -> dict[Key, float]:
    """Return what one round found. `talks`: without and with pages."""
    found: defaultdict[Key, float] = defaultdict(float)
    alone, with_pages = talks
    speech = sum(alone.parts.values()) / alone.cpu
    utterances = alone.utterances / plan.seconds

    def add(part: str, per: Per, resource: Resource, value: float) -> None:
        found[NAMES.get(part, part), per, resource] += max(0.0, value)

    for part, rest in still.rest.items():
        count = still.processes[part]
        add(part, "process", "memory_mb", still.memory[part] / count)
        add(part, "process_h", "cpu_s", rest * HOUR_S / count)
        add(part, "silent_channel_h", "cpu_s", (still.rooms[part] - rest) * HOUR_S / plan.rooms)
        add(part, "conversation", "memory_mb", (still.rooms_memory[part] - still.memory[part]) / plan.rooms)
        add(part, "query", "cpu_s", (still.queries[part] - rest) / plan.queries)
        add(part, "page_h", "cpu_s", (with_pages.parts[part] - alone.parts[part]) * HOUR_S / plan.pages)
        grown = alone.parts[part] - rest
        if part == "monolith":
            grown -= utterances * each.local
            add(part, "utterance_local", "cpu_s", each.local)
        if part in BY_SPEECH:
            add(part, "speech_s", "cpu_s", grown / speech)
        else:
            add(part, "utterance_local", "cpu_s", grown / utterances)
    asks = "monolith" if deployment == "monolith" else "intelligence"
    add(asks, "utterance_model", "cpu_s", each.model)
    add(asks, "utterance_model", "tokens_in", each.tokens_in)
    add(asks, "utterance_model", "tokens_out", each.tokens_out)
    return dict(found)


def units(rounds: Sequence[Mapping[Key, float]]) -> Iterator[Unit]:
    """Yield the median of the rounds with its spread, and the published seconds of a GPU."""
    for key in dict.fromkeys(key for each in rounds for key in each):
        values = [round(each.get(key, 0.0), 6) for each in rounds]
        if max(values) > 0:
            module, per, resource = key
            figure = Figure(median=statistics.median(values), low=min(values), high=max(values), runs=len(values))
            yield Unit(module=module, per=per, resource=resource, figure=figure)
        if key[1:] == ("utterance_model", "tokens_out"):
            read = statistics.median(each.get((key[0], "utterance_model", "tokens_in"), 0.0) for each in rounds)
            written = statistics.median(values)
            yield Unit(module=key[0], per="utterance_model", resource="gpu_s", figure=_published(read, written))


def _published(read: float, written: float) -> Figure:
    cached, whole = GPUS * written / WRITTEN_S, GPUS * (read + written) / (READ_S + WRITTEN_S)
    low, high = sorted((round(cached, 4), round(whole, 4)))
    return Figure(median=low, low=low, high=high, origin="published", source=GPU_SOURCE)


def machine() -> Machine:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(cpu=names[0] if names else "unknown", cores=os.cpu_count() or 1, memory_mb=memory // 10**6)


def measure(plan: Plan, rounds: int) -> UnitCosts:
    found: dict[Deployment, list[dict[Key, float]]] = {deployment: [] for deployment in DEPLOYMENTS}
    for number in range(rounds):
        each = uvloop.run(understood(plan))
        print(f"round {number + 1}: {each}", flush=True)
        for deployment in DEPLOYMENTS:
            still = asyncio.run(quiet(deployment, plan))
            talks = asyncio.run(talking(deployment, plan, 0)), asyncio.run(talking(deployment, plan, plan.pages))
            one = costs(deployment, plan, still, talks, each)
            found[deployment].append(one)
            for (module, per, resource), value in one.items():
                print(f"{deployment:10}{module:14}{per:18}{resource:12}{value:12.5f}", flush=True)
    return UnitCosts(
        machine=machine(),
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        deployments={deployment: tuple(units(each)) for deployment, each in found.items()},
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--tiny", action="store_true", help="a trial: its figures are no result")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    plan = TINY if options.tiny else FULL
    if options.seconds:
        plan = replace(plan, seconds=options.seconds)
    print(json.dumps(msgspec.to_builtins(measure(plan, options.rounds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
