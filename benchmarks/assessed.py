"""`assess` on 40 made-up sites, of each a day of noisy metrics of a monolith, against what would have been cheaper.

`python -m benchmarks.assessed [--sites 40] [--seed 1] [--truth simulation]`. What is cheaper, says the simulator: the
fewest machines at the same p95, with sample prices; or, in seconds, the arithmetic of `quickcomm plan`. Right is:
"split" where services are cheaper, else "stay"; where both cost alike within a tenth, either. `--gpu-in-each-copy`: as
in the published case. Exit status 1 means that fewer than nine of ten are right, or that "split" was said where staying
is cheaper by a tenth.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from benchmarks.site_days import MENU, Costs, Site, day, samples
from benchmarks.site_truth import BySimulation, Truth, by_plan
from quickcomm.capacity.model.assessment import assess
from quickcomm.capacity.model.findings import Limits
from quickcomm.capacity.model.samples import record

TIE: Final = 0.1
"""Where both cost alike within this share, neither verdict is wrong."""
CORES_USED: Final = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    site: str
    advice: str
    module: str
    saves: float
    """What services would save, as a share of the monolith's price."""
    strict: bool
    """Whether it names the cheaper one, however little it saves."""
    right: bool
    """The same, but for ties."""
    says: str


def sites(count: int, seed: int) -> Iterator[Site]:
    """Yield sites: every second one of any kind, the others large, with a GPU of their own for a small model.

    Each has the smallest machine that carries it, or the largest there is.
    """
    chance = np.random.default_rng(seed)

    def between(low: float, high: float) -> float:
        return float(np.exp(chance.uniform(np.log(low), np.log(high))))

    for number in range(count):
        large = number % 2 == 1
        most = between(800, 6_000) if large else between(3, 6_000)
        model = 1.0 if large else float(chance.choice([0.0, 0.3, 1.0]))
        load = day(
            f"site {number + 1}",
            most,
            speech=float(chance.uniform(0.05, 0.5)),
            pages=most * float(chance.choice([0.02, 0.1, 0.5])),
            queries_per_s=most * float(chance.choice([0.002, 0.02, 0.1])),
            model=model,
            burst=float(chance.uniform(1.0, 1.5)),
            late=float(chance.integers(2)),
        )
        costs = Costs(gpu_s=between(0.002, 0.05) if large else between(0.005, 0.2))
        gpu = large or bool(model and chance.random() < 0.7)
        site = Site(
            load=load, cores=MENU[-1], gpu=gpu, costs=costs, restarts=int(chance.integers(3)), seed=seed + number
        )
        most_cores = max(sum(site.need(load.at(hour)).cores.values()) for hour in range(24))
        yield replace(site, cores=next((size for size in MENU if most_cores <= CORES_USED * size), MENU[-1]))


def judge(site: Site, truth: Truth, *, gpu_in_each_copy: bool) -> Judged:
    verdict = assess(record(samples(site)), Limits(gpu_in_each_copy=gpu_in_each_copy))
    price = truth(site, gpu_in_each_copy=gpu_in_each_copy)
    saves = 1 - price.services / price.monolith
    strict = (verdict.advice == "split") == (saves > 0)
    return Judged(
        site=site.load.name,
        advice=verdict.advice,
        module=verdict.module,
        saves=round(saves, 3),
        strict=strict,
        right=strict or abs(saves) < TIE,
        says=verdict.says,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--truth", choices=("simulation", "plan"), default="simulation")
    parser.add_argument("--gpu-in-each-copy", action="store_true", help="of the monolith, as in the published case")
    options = parser.parse_args()
    truth: Truth = by_plan if options.truth == "plan" else BySimulation()
    judging = partial(judge, truth=truth, gpu_in_each_copy=options.gpu_in_each_copy)
    with ProcessPoolExecutor() as processes:
        judged = list(processes.map(judging, sites(options.sites, options.seed)))
    for each in judged:
        print(f"{each.site:10}{each.advice:8}{each.saves:>7.0%}  {'' if each.right else 'WRONG '}{each.says}")
    found = {
        "of": len(judged),
        "right": sum(each.right for each in judged),
        "strict": sum(each.strict for each in judged),
        "services_cheaper": sum(each.saves >= TIE for each in judged),
        "split": sum(each.advice == "split" for each in judged),
        "dear": sum(each.advice == "split" and each.saves <= -TIE for each in judged),
    }
    print(
        "{right} of {of} right, {strict} without ties; services are cheaper by a tenth at {services_cheaper}; "
        "{split} split, {dear} where staying is cheaper by a tenth".format(**found)
    )
    print(json.dumps(found | {"sites": [asdict(each) for each in judged]}))
    return int(found["right"] < 0.9 * len(judged) or found["dear"] > 0)


if __name__ == "__main__":
    sys.exit(main())
