"""An utterance through two real processes: one trace, of which each has told its own part, or no trace at all."""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from tests.support.otlp import Received, Span, otlp_receiver

from quickcomm.kernel.telemetry.ids import in_sample, trace_id_of

Json = dict[str, Any]
SAMPLE: Final = 0.25
UNDERSTOOD: Final = {"endpoint": 500, "stt": 100, "publish": 5, "queue": 5, "classify": 20}
QUICK: Final = {**UNDERSTOOD, "store": 10, "push": 1, "total": 641}
SLOW: Final = {**UNDERSTOOD, "store": 900, "push": 1, "total": 1_531}
CORE: Final = {"receive", "vad", "stt", "publish", "queue", "classify", "utterance", "publish.commit", "llm.call"}
PAGE: Final = {"store", "push", "painted", "store.commit"}
IN, OUT = (
    [
        name
        for name in (f"talk:0:{number}" for number in range(200))
        if in_sample(trace_id_of("main", name), SAMPLE) is kept
    ]
    for kept in (True, False)
)


class Part:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def tell(self, **line: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def hear(self) -> Json:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            said: Json = json.loads(await self._process.stdout.readline())
        return said


@asynccontextmanager
async def part(collector: str, *who: str) -> AsyncGenerator[Part]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.traced_part", collector, str(SAMPLE), *who),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Part(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def passes(core: Part, page: Part, utterance_id: str, told: Json) -> None:
    """Through both, and back: what the page's process says to the other one reaches it."""
    what = {"utterance_id": utterance_id, "at_ns": time.time_ns()}
    core.tell(do="understand", latency=UNDERSTOOD, error=told.get("error", ""), **what)
    parent = (await core.hear())["parent"]
    latency = told.get("latency", QUICK)
    page.tell(do="show", latency=latency, parent=parent, painted_ms=told.get("painted_ms", 10), **what)
    core.tell(do="receipt", utterance_id=utterance_id, latency=latency)
    while "word" in (said := await page.hear()):
        core.tell(do="word", word=said["word"])


def named(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


@pytest.mark.parametrize(
    ("names", "told", "why"),
    [
        (IN, {}, "sampled"),
        (OUT, {"latency": SLOW}, "slow"),
        (OUT, {"painted_ms": 900}, "slow"),
        (OUT, {"error": "intelligence.model_timeout"}, "failed"),
    ],
)
async def test_a_trace_is_whole_over_two_processes(names: list[str], told: Json, why: str) -> None:
    kept, ordinary = names[0], OUT[-1]
    async with otlp_receiver() as received:
        async with (
            part(received.url, "core", "audio", "intelligence") as core,
            part(received.url, "dashboard", "dashboard") as page,
        ):
            await passes(core, page, ordinary, {})
            await passes(core, page, kept, told)
        await received.until(lambda got: len(of(got, kept)) == len(CORE | PAGE))
        assert of(received, ordinary) == [], "neither of them keeps what is not worth it"
    spans = named(of(received, kept))
    assert spans.keys() == CORE | PAGE
    assert spans["utterance"].attributes["quickcomm.kept"] == why
    stages = (CORE | PAGE) - {"utterance", "publish.commit", "llm.call", "store.commit"}
    assert {spans[name].parent_id for name in stages} == {spans["utterance"].span_id}
    assert spans["store.commit"].parent_id == spans["store"].span_id
    assert spans["llm.call"].parent_id == spans["classify"].span_id
    assert (spans["queue"].trace_id, spans["publish.commit"].span_id) in spans["queue"].links
    core_at, page_at = ({spans[name].instance for name in whose} for whose in (CORE, PAGE))
    assert len(core_at) == len(page_at) == 1
    assert core_at != page_at, "each is told by the process that did it"
    assert {spans[name].service for name in PAGE} == {"quickcomm-dashboard"}
    assert {spans[name].service for name in CORE} == {"quickcomm-audio", "quickcomm-intelligence"}
    for before, after in itertools.pairwise(("vad", "stt", "publish", "queue", "classify", "store", "push", "painted")):
        assert spans[after].start_ns == spans[before].end_ns


def of(received: Received, utterance_id: str) -> list[Span]:
    return received.trace(f"{trace_id_of('main', utterance_id):032x}")
