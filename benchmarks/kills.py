"""`kill -9` at random moments of a long talk under `up`: what was lost, doubled, or is missing on the page.

`python -m benchmarks.kills [--kills 40] [--seconds 600] [--talkers 8] [--gateways 0] [--shape monolith]
[--processes audio=2]`. All talkers say real speech in real time and resume when they are cut off. Gateways are
push-to-talk: transmissions cut hard at both ends, each ended by a flush, and nothing sent in the pauses between them,
of which one is longer than half a minute. The processes are killed in turn, each time at a random moment: the modules,
Envoy, and Valkey with its append-only file. With `--impatient` any of those that are there, whether the others are well
again or not. Afterwards every conversation is compared with an undisturbed run of the same sound: ids, offsets, order,
ledgers; and with the lists and a page that was always open. `--seed` repeats one.
"""

import argparse
import asyncio
import random
import sys
from dataclasses import replace
from typing import Final

import msgspec
from tests.support.kills import Toll, killed_over
from tests.support.site import Site

from benchmarks.keyup import transmissions
from benchmarks.shapes import TUNED, topology
from benchmarks.talkers import talk

LENGTH_S: Final = 60.0


async def run(site: Site, options: argparse.Namespace) -> Toll:
    sounds: list[bytes | list[bytes]] = [talk(number, LENGTH_S).samples.tobytes() for number in range(options.talkers)]
    _, others = transmissions()
    sounds += [
        [others[(5 * number + turn) % len(others)].tobytes() for turn in range(5)] for number in range(options.gateways)
    ]
    killer = (options.kills, options.seconds, options.seed)
    return await killed_over(site, sounds, killer, patient=not options.impatient)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--talkers", type=int, default=8)
    parser.add_argument("--gateways", type=int, default=0, help="push-to-talk gateways beside the talkers")
    parser.add_argument("--shape", choices=sorted(TUNED), default="monolith")
    parser.add_argument("--processes", action="append", default=[], metavar="MODULE=N")
    parser.add_argument("--impatient", action="store_true", help="do not wait until all are well again")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    more = {module: int(count) for module, _, count in (each.partition("=") for each in options.processes)}
    with topology(options.shape, replace(TUNED[options.shape], processes=more)) as site:
        toll = asyncio.run(run(site, options))
    again = sorted(toll.whole_again_s)
    print(f"kills: {', '.join(f'{name} {count}' for name, count in sorted(toll.kills.items()))}; seed {toll.seed}")
    print(f"{toll.conversations} conversations, {toll.utterances} utterances in {toll.seconds:.0f} s")
    if again:  # else nobody waited for it
        print(f"whole again after: median {again[len(again) // 2]:.1f} s, worst {again[-1]:.1f} s")
    print(f"faults: {toll.faults or 'none'}")
    print(msgspec.json.encode(toll).decode())
    return 1 if toll.faults else 0


if __name__ == "__main__":
    sys.exit(main())
