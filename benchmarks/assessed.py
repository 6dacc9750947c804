"""`assess` on 40 made-up sites, of each a day of noisy metrics of a monolith, against what would have been cheaper.

`python -m benchmarks.assessed [--sites 40] [--seed 1]`. A `Truth` says what is cheaper: here arithmetic over the need
of each module at its busiest. Right is: "split" where services are cheaper, else "stay". Exit status 1
means that fewer than nine of ten are right, or that "split" was said where staying is cheaper by a tenth.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final, Protocol

import numpy as np

from benchmarks.site_days import GB_OF_CORE, MENU, Costs, Site, day, samples
from quickcomm.capacity.model.assessment import assess
from quickcomm.capacity.model.findings import Limits
from quickcomm.capacity.model.samples import record

CORES_USED, GPU_USED, LOOP_USED = 0.7, 0.8, 0.7
"""Up to where latency is as it should be, in either deployment."""
SERVICES_TAKE: Final = 1.05
"""CPU of services ÷ that of the monolith: edge, store, messages."""
SPARE: Final = 0
"""So many machines of a kind may be lost."""
MODULES: Final = ("audio", "intelligence", "dashboard")


@dataclass(frozen=True, slots=True)
class Price:
    """Of the cheapest deployment of each kind at equal latency, in any unit."""

    monolith: float
    services: float


class Truth(Protocol):
    """Says what a site would really cost."""

    def __call__(self, site: Site) -> Price: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    site: str
    advice: str
    module: str
    saves: float
    """What services would save, as a share of the monolith's price."""
    right: bool
    says: str


def by_arithmetic(site: Site, limits: Limits = Limits()) -> Price:  # noqa: B008 - frozen
    """Return the prices of the fewest machines of the best size. `limits`: what GPUs and memory cost."""
    needs = [site.need(site.load.at(minute / 60)) for minute in range(0, 24 * 60, 5)]

    def machines(*modules: str, take: float = 1.0, loop: float = 0.0) -> float:
        cores = take * max(sum(need.cores[name] for name in modules) for need in needs)
        has_gpu = site.gpu and "intelligence" in modules
        return _cheapest(cores, loop, max(need.gpus for need in needs) * has_gpu, limits, has_gpu=has_gpu)

    one = machines(*MODULES, loop=max(sum(need.loop.values()) for need in needs))
    # Services have as many processes of a module on a machine as its event loops need.
    apart = sum(machines(name, take=SERVICES_TAKE) for name in MODULES)
    model_apart = machines("intelligence", take=SERVICES_TAKE) + machines("audio", "dashboard", take=SERVICES_TAKE)
    return Price(one, min(apart, model_apart, machines(*MODULES, take=SERVICES_TAKE)))


def _cheapest(cores: float, loop: float, gpus: float, limits: Limits, *, has_gpu: bool) -> float:
    """Return the price of enough machines of one size, and those that may be lost."""
    count_by_size = {
        size: max(math.ceil(cores / (CORES_USED * size)), math.ceil(loop / LOOP_USED), math.ceil(gpus / GPU_USED), 1)
        for size in MENU
    }
    return min(
        (count + SPARE) * (size * (1 + GB_OF_CORE * limits.gb_in_cores) + limits.gpu_in_cores * has_gpu)
        for size, count in count_by_size.items()
    )


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


def judge(site: Site, truth: Truth) -> Judged:
    verdict = assess(record(samples(site)))
    price = truth(site)
    saves = 1 - price.services / price.monolith
    return Judged(
        site=site.load.name,
        advice=verdict.advice,
        module=verdict.module,
        saves=round(saves, 3),
        right=(verdict.advice == "split") == (saves > 0),
        says=verdict.says,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    judged = [judge(site, by_arithmetic) for site in sites(options.sites, options.seed)]
    for each in judged:
        print(f"{each.site:10}{each.advice:8}{each.saves:>7.0%}  {'' if each.right else 'WRONG '}{each.says}")
    right = sum(each.right for each in judged)
    dear = sum(each.advice == "split" and each.saves <= -0.1 for each in judged)
    cheaper = sum(each.saves > 0 for each in judged)
    print(
        f"{right} of {len(judged)} right ({len(judged) - cheaper} by saying stay to all); "
        f"{dear} split where staying is cheaper by a tenth"
    )
    found = {"right": right, "of": len(judged), "services_cheaper": cheaper, "dear": dear}
    print(json.dumps(found | {"sites": [asdict(each) for each in judged]}))
    return int(right < 0.9 * len(judged) or dear > 0)


if __name__ == "__main__":
    sys.exit(main())
