"""QuickComm, Pipecat and the bare engine on the same speech, cores and model, one after the other in one run.

`python -m benchmarks.peers.compare [--ours 32,48,56,64] [--pipecat 4,6,8,10] [--seconds 60]`. Each side goes up its
steps until p95 from the end of speech to the text passes 2 s; the engine alone is the limit that nobody can pass.
"""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass

from benchmarks import raw_engine
from benchmarks.capacity import LEAD_S, REACH_S, run_talkers, talks_of
from benchmarks.peers import pipecat

LIMIT_TALKERS = 4
LIMIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`cpu`: server CPU seconds a second of stream, pauses included. `wer` in percent. Latencies in seconds."""

    who: str
    talkers: int
    p50: float
    p95: float
    cpu: float
    wer: float

    @property
    def in_time(self) -> bool:
        return self.p95 <= REACH_S


def ours(talkers: int, seconds: float) -> Step:
    row = asyncio.run(run_talkers(talkers, seconds))
    return Step(who="QuickComm", talkers=talkers, p50=row.p50, p95=row.p95, cpu=row.cores / talkers, wer=row.wer)


def theirs(talkers: int, seconds: float) -> Step:
    row = pipecat.measure(talkers, LEAD_S + seconds)
    return Step(who="Pipecat", talkers=talkers, p50=row.p50_s, p95=row.p95_s, cpu=row.cpu, wer=row.wer)


def say(step: Step) -> None:
    print(
        f"{step.who:12}{step.talkers:>8}{step.p50:>8.2f}{step.p95:>8.2f}{step.cpu:>17.4f}{step.wer:>7.2f}"
        f"{'' if step.in_time else '  too late'}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default="32,48,56,64", help="steps of talkers, fewest first")
    parser.add_argument("--pipecat", default="4,6,8,10", help="the same for Pipecat")
    parser.add_argument("--seconds", type=float, default=60.0, help="scored time of a step, after 30 s of lead")
    options = parser.parse_args()
    pipecat.environment()
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print(f"{'':12}{'talkers':>8}{'p50 s':>8}{'p95 s':>8}{'CPU s / stream s':>17}{'WER %':>7}", flush=True)
    steps: list[Step] = []
    for measure, chosen in ((ours, options.ours), (theirs, options.pipecat)):
        for count in map(int, chosen.split(",")):
            step = measure(count, options.seconds)
            steps.append(step)
            say(step)
            if not step.in_time:
                break  # more talkers would only be later
    talks = talks_of(LIMIT_TALKERS, LIMIT_SECONDS)
    limit = raw_engine.measure(talks, hotwords=True, word_times=True, batch=4)
    print(f"{'engine alone':12}{limit.talkers:>8.0f}{'':>16}{limit.cpu:>17.4f}{limit.wer:>7.2f}")
    best = {
        who: max((step.talkers for step in steps if step.who == who and step.in_time), default=0)
        for who in ("QuickComm", "Pipecat")
    }
    ratio = best["QuickComm"] / best["Pipecat"] if best["Pipecat"] else float("inf")
    share = best["QuickComm"] / limit.talkers
    print(f"in time: {best}: {ratio:.1f} times as many, {share:.0%} of what the engine alone could do")
    print(json.dumps({"most": best, "engine": asdict(limit), "steps": [asdict(step) for step in steps]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
