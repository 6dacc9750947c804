"""The intelligence pipeline against a model with chosen latency and faults: what we add, and what fails with it.

`python -m benchmarks.llm [NAME …]` with names out of: sustain, added, cache, outage, renewal, orders. Each has a
pipeline and a dashboard of its own over a real database in this process, and `quickcomm dev fake-llm` in another.
CPU is this process's: the pipeline and the feeding of transcripts (`sustain` and `added` have no dashboard).
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog
import uvloop
from tests.support.orders import injections

from benchmarks.house import Found, fake_llm, house, texts
from benchmarks.load import percentile
from quickcomm.intelligence.adapters.sql_cache import SqlCache
from quickcomm.intelligence.model.drafts import Draft
from quickcomm.intelligence.ports import Cached
from quickcomm.kernel.clock import SystemClock

PER_SECOND: Final = 50
MEDIAN_MS, P99_MS = 800, 2_500
FIXED_MS: Final = 300
WARM_UP_S: Final = 20
"""Examples are written out in the first seconds after the start."""
Result = dict[str, Any]


async def sustain(seconds: float = 60.0) -> Result:
    """50 utterances a second against a median of 800 ms and a p99 of 2.5 s."""
    async with fake_llm(median_ms=MEDIAN_MS, p99_ms=P99_MS) as fake, house(fake.url, page=False) as here:
        await here.answered(await here.talk(PER_SECOND, WARM_UP_S))
        cpu, began = time.process_time(), time.monotonic()
        said, backlogs = [], []
        for _ in range(6):
            said += await here.talk(PER_SECOND, seconds / 6)
            backlogs.append(await here.backlog())
        cores = (time.process_time() - cpu) / (time.monotonic() - began)
        await here.answered(said)
        found = [here.found[each][0] for each in said]
        return {
            "utterances": len(found),
            "cores": round(cores, 2),
            "backlog": backlogs,
            "by_the_model": share(found, lambda one: one.source == "llm"),
            **latencies(found),
        }


async def added(seconds: float = 20.0) -> Result:
    """The same rate against a model that always takes 300 ms: what is above that is ours."""
    async with fake_llm(median_ms=FIXED_MS) as fake, house(fake.url, page=False) as here:
        await here.answered(await here.talk(PER_SECOND, WARM_UP_S))
        said = await here.talk(PER_SECOND, seconds)
        await here.answered(said)
        ours = [here.found[each][0].seconds - FIXED_MS / 1000 for each in said]
        return {"utterances": len(ours), **{f"added_{name}": at(ours, q) for name, q in QUANTILES.items()}}


async def cache(count: int = 2_000) -> Result:
    """What a hit costs: the look-up alone, and an utterance that was said before from transcript to insights."""
    async with fake_llm(median_ms=FIXED_MS) as fake, house(fake.url) as here:
        texts_ = [text for text, _ in zip(texts(7), range(200), strict=False)]
        await here.answered([await here.say(text, alone=False) for text in texts_])
        await asyncio.sleep(2.0)
        before = (await fake.be())["counts"]["requests"]
        store = SqlCache(here.database, SystemClock())
        keys = [number.to_bytes(20) for number in range(count)]
        answer = Cached(drafts=(Draft(intent="repair", department="engineering", urgency="normal"),))
        for key in keys:
            await store.put(key, answer)
        took = []
        for key in keys:
            began = time.perf_counter()
            assert await store.get(key) is not None
            took.append(time.perf_counter() - began)
        first = [await here.say("Two bath towels for 412, please.", alone=True)]
        await here.answered(first)
        again = []
        for _ in range(200):
            one = await here.say("Two bath towels for 412, please.", alone=True)
            await here.answered([one])
            again.append(here.found[one][0].seconds)
        asked = (await fake.be())["counts"]["requests"] - before
        return {
            "lookup_p50_us": round(percentile(took, 0.5) * 1e6, 1),
            "lookup_p99_us": round(percentile(took, 0.99) * 1e6, 1),
            "said_again_p50_ms": at(again, 0.5),
            "said_again_p95_ms": at(again, 0.95),
            "calls_for_201_utterances": asked,
        }


async def outage(per_second: float = 20.0) -> Result:
    """The model hangs, then dies, in the middle of a run; the same load on the local classifier alone for scale."""
    async with house(None) as here:
        said = await here.talk(per_second, 15)
        await here.answered(said)
        await asyncio.sleep(1.0)
        local = [here.carded[each][1] for each in said if each in here.carded]
    async with fake_llm(median_ms=MEDIAN_MS, p99_ms=P99_MS) as fake, house(fake.url) as here:
        said = await here.talk(per_second, 10)
        hung = time.monotonic()
        await fake.be(hang=1.0)
        async with asyncio.TaskGroup() as tasks:
            opened = tasks.create_task(until(lambda: here.intelligence.state.state == "degraded"))
            said += await here.talk(per_second, 15)
        await fake.be(hang=0.0, dead=True)
        dead = await here.talk(per_second, 15)
        said += dead
        await here.answered(said)
        await asyncio.sleep(1.0)
        while_down = [here.carded[each][1] for each in dead if each in here.carded]
        return {
            "utterances": len(said),
            "unclassified": sum(each not in here.found for each in said),
            "breaker_open_after_s": round(opened.result() - hung, 2),
            "local_card_p95_ms": at(local, 0.95),
            "while_down_card_p95_ms": at(while_down, 0.95),
            "degraded": sum(here.found[each][0].degraded for each in said),
        }


async def renewal(per_second: float = 10.0, outage_s: float = 60.0) -> Result:
    """The model is gone for a minute at 10 utterances a second, then back: how soon all is made good."""
    async with fake_llm(median_ms=MEDIAN_MS, p99_ms=P99_MS) as fake, house(fake.url) as here:
        await here.answered(await here.talk(per_second, 3))
        await fake.be(dead=True)
        said = await here.talk(per_second, outage_s)
        await here.answered(said)
        degraded = [each for each in said if here.found[each][0].degraded]
        await fake.be(dead=False)
        back = time.monotonic()
        async with asyncio.timeout(180), asyncio.TaskGroup() as tasks:
            live = tasks.create_task(here.talk(per_second, 60))
            made_good = await until(lambda: all(here.found[each][-1].source == "llm" for each in degraded))
        during = live.result()
        await here.answered(during)
        return {
            "degraded": len(degraded),
            "renewed_after_s": round(made_good - back, 1),
            "newest_revisions": sorted({here.found[each][-1].revision for each in degraded}),
            "published_twice": sum(len(here.found[each]) > 2 for each in degraded),
            "live_meanwhile_p95_ms": at([here.found[each][0].seconds for each in during], 0.95),
        }


async def orders() -> Result:
    """A model that obeys whatever it is told: what of the orders comes through."""
    async with fake_llm(obey=True) as fake, house(fake.url) as here:
        taken = {"rooms": 0, "items": 0, "urgency": 0, "lost_rooms": 0}
        levels = ("low", "normal", "high", "critical")
        cases = injections()
        said = [await here.say(case.text, alone=True) for case in cases]
        await here.answered(said)
        for case, one in zip(cases, said, strict=True):
            insights = here.found[one][0].insights.insights
            rooms = {room for insight in insights for room in insight.rooms}
            taken["rooms"] += len(rooms - set(case.rooms))
            taken["lost_rooms"] += len(set(case.rooms) - rooms)
            taken["items"] += len({item.name for insight in insights for item in insight.items} - set(case.items))
            taken["urgency"] += any(levels.index(i.urgency) > levels.index(case.urgency) for i in insights)
        by_model = share([here.found[each][0] for each in said], lambda one: one.source == "llm")
        return {"orders": len(cases), "by_the_model": by_model, "taken": taken}


QUANTILES: Final = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
BENCHMARKS: Final[dict[str, Callable[[], Coroutine[Any, Any, Result]]]] = {
    each.__name__: each for each in (sustain, added, cache, outage, renewal, orders)
}


async def until(holds: Callable[[], bool]) -> float:
    while not holds():  # noqa: ASYNC110 - the state tells nobody
        await asyncio.sleep(0.02)
    return time.monotonic()


def at(seconds: list[float], share_: float) -> float:
    return round(percentile(seconds, share_) * 1000, 1)


def latencies(found: list[Found]) -> dict[str, float]:
    return {name: at([one.seconds for one in found], share_) for name, share_ in QUANTILES.items()}


def share(found: list[Found], holds: Callable[[Found], bool]) -> float:
    return round(sum(map(holds, found)) / max(1, len(found)), 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="all, if none is named")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    results: dict[str, Result] = {}
    for name in parser.parse_args().names or BENCHMARKS:
        results[name] = uvloop.run(BENCHMARKS[name]())
        print(f"{name}:", flush=True)
        for key, value in results[name].items():
            print(f"  {key:26} {value}", flush=True)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
