"""`python -m benchmarks [NAME …]`: every measurement one after the other, or those that are named.

Each prints its table and, as its last line, JSON. They run one after the other, so as not to slow each other down.
Those marked + run only when they are named: what they measure is part of another, or takes very long.
"""

import subprocess
import sys
from typing import Final

BENCHMARKS: Final = {
    "classify": "understanding of held-back phrases, by the local classifier",
    "understanding": "utterances that get exactly their cards, and what closes a task, by the local classifier",
    "stt": "speech-to-text alone: accuracy and CPU against the stock window (needs QUICKCOMM_SPEECH_DATA)",
    "radio": "radio talk with starts, codecs, noise, tones and hard cuts: words, lost first words, rooms",
    "learned_words": "words that corrections taught: heard again, words wrong (needs QUICKCOMM_SPEECH_DATA, flite)",
    "raw_engine": "+ the limit: decoding alone, as talkers on two cores (needs QUICKCOMM_SPEECH_DATA)",
    "peers.compare": "QuickComm, Pipecat and the bare engine side by side (needs QUICKCOMM_SPEECH_DATA)",
    "capacity": "+ continuous talkers: how soon words and cards are back, and the CPU (needs QUICKCOMM_SPEECH_DATA)",
    "peers.pipecat": "+ Pipecat under the same load (needs QUICKCOMM_SPEECH_DATA and, at first, PyPI)",
    "rooms": "1,000 open channels in which nobody speaks",
    "strain": "twice the capacity for a minute; alone also `soak`, for long (needs QUICKCOMM_SPEECH_DATA)",
    "live": "word error rate through the live socket (needs QUICKCOMM_SPEECH_DATA)",
    "shift": "the demo shift: words, rooms, intents, emergencies, latency",
    "keyup": "push-to-talk: from the key that was let go to the critical card, with and without flush",
    "store": "search, lists and the page over 100,000 utterances, also while people talk",
    "check": "`quickcomm check` over 100,000 utterances: stopped, running, and what the server's own check takes",
    "page": "+ the page in a Chromium: misplaced clicks, moving cards, false alarms, loading; with a demo shift",
    "llm": "the pipeline against a model with chosen latency and faults: what we add, what fails with it",
    "deploy": "a prompt deployed while people talk (needs QUICKCOMM_SPEECH_DATA)",
    "bus": "the bus on a real Valkey: utterances a second, idle latency, take-over; the in-process bus beside it",
    "soak": "memory of the store: 1,000 squelched channels, 200 talks each, in generated time",
    "hops": "what each hop costs when idle: between services, on the bus, to the browser (needs a Chromium)",
    "up_cost": "+ CPU of `up` ÷ `serve`, all processes, 16 talkers, taking turns (needs QUICKCOMM_SPEECH_DATA)",
    "compare": "+ monolith and services in turn: talkers in time, CPU; also in rush hour (needs QUICKCOMM_SPEECH_DATA)",
    "units": "+ unit costs of monolith and services as JSON, three rounds (needs QUICKCOMM_SPEECH_DATA)",
    "assessed": "`assess` on 40 made-up sites against what would have been cheaper",
    "apart": "+ services: rush hour, a model that hangs, a rolling restart, and the talk (needs QUICKCOMM_SPEECH_DATA)",
    "autoscale": "+ a burst under `up --autoscale`: a second process, p95 in budget (needs QUICKCOMM_SPEECH_DATA)",
    "kills": "+ 40 times kill -9 in ten minutes while 8 talk: lost, doubled, missing (needs QUICKCOMM_SPEECH_DATA)",
    "decisions": "edits, how soon they are answered; alone also `pages` and `kills` (needs PostgreSQL)",
    "operations": "closing a conversation: under serve, over services, and after a kill of the executor",
    "operations_killed": "+ operations while all is killed and cut: half-done, doubled (needs QUICKCOMM_SPEECH_DATA)",
    "migrate": "modules move while people talk, with faults and kills (needs QUICKCOMM_SPEECH_DATA, a Chromium)",
    "release": "+ another release of intelligence deployed and taken back while 8 talk (needs QUICKCOMM_SPEECH_DATA)",
    "handover": "+ running conversations go from one side to the other and back (needs QUICKCOMM_SPEECH_DATA)",
    "relay": "the session relay: CPU at 1,000 sockets, and what clients notice while the owner moves, restarts, dies",
    "tracing": "+ CPU with tracing on ÷ off, 16 talkers, taking turns (needs QUICKCOMM_SPEECH_DATA)",
    "drill": "a site of 10,000 cards backed up and restored in each deployment and across, compared byte for byte",
    "startup": "time until a warm server is ready",
}


def main() -> int:
    names = sys.argv[1:] or [name for name, what in BENCHMARKS.items() if not what.startswith("+")]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown or "--help" in names:
        print("\n".join([str(__doc__), *(f"  {name:18} {what}" for name, what in BENCHMARKS.items())]))
        return 2 if unknown else 0
    status = 0
    for name in names:
        print(f"\n== {name}: {BENCHMARKS[name]}", flush=True)
        status = max(status, subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode)
    return status


if __name__ == "__main__":
    sys.exit(main())
