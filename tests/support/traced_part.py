"""One of several processes through which utterances pass, as far as tracing goes: says and is told by JSON lines.

`python -m tests.support.traced_part COLLECTOR SAMPLE PROCESS MODULE…`
"""

import asyncio
import json
import sys
from typing import Any

import msgspec

from quickcomm.cli.logs import set_up_logs
from quickcomm.contracts.timing import Latency
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.telemetry import Budget, Detail, Origin, TelemetrySettings, Word, tracing
from quickcomm.kernel.telemetry.setup import start_tracing, stop_tracing

Json = dict[str, Any]


def say(value: object) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


def origin(line: Json) -> Origin:
    return Origin(
        site="main",
        conversation_id="talk",
        utterance_id=line["utterance_id"],
        channel="radio",
        spoken_at_ns=line["at_ns"] - 10**9,
        speech_ended_ns=line["at_ns"],
    )


def detail(name: str, module: str, stage: str, line: Json, error: str = "") -> None:
    at = line["at_ns"]
    part = Detail(name=name, module=module, stage=stage, start_ns=at, end_ns=at + 10**6, error=error)
    tracing().detail("main", line["utterance_id"], part)


def obey(line: Json) -> None:
    traces, latency = tracing(), msgspec.convert(line.get("latency", {}), Latency)
    identifier: str = line.get("utterance_id", "")
    match line["do"]:
        case "understand":  # audio and intelligence
            traces.heard(origin(line), latency)
            detail("publish.commit", "audio", "queue", line)
            detail("llm.call", "intelligence", "classify", line, line["error"])
            say({"parent": traces.onward("main", identifier, traces.traceparent("main", identifier))})
            traces.passed_on(origin(line), latency)
        case "receipt":
            traces.receipt("main", identifier, latency)
        case "word":
            traces.word(msgspec.convert(line["word"], Word))
        case "show":  # dashboard
            detail("store.commit", "dashboard", "store", line)
            traces.finished(origin(line), latency, parent=line["parent"])
            traces.painted("main", identifier, line["painted_ms"])
            say({"shown": identifier})


async def main(collector: str, sample: str, process: str, *modules: str) -> None:
    set_up_logs("warning", as_json=False)
    settings = TelemetrySettings(otlp_url=collector, sample=float(sample))
    traces = start_tracing(
        settings,
        SystemClock(),
        Budget,
        modules=frozenset(modules),
        process=process,
        tell=lambda word: say({"word": msgspec.to_builtins(word)}),
    )
    assert traces is not None
    loop = asyncio.get_running_loop()
    running = loop.create_task(traces.run())
    while line := await asyncio.to_thread(sys.stdin.readline):
        obey(json.loads(line))
    running.cancel()
    await stop_tracing(traces)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
