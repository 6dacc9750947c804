"""What a made-up site would really cost as a monolith and as services: by the arithmetic of `plan`, or simulated."""

import math
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from benchmarks.site_days import Costs, Site
from quickcomm.capacity.adapters.samples import read_input
from quickcomm.capacity.model.comparison import Site as Planned
from quickcomm.capacity.model.demand import Assumed, read_demand
from quickcomm.capacity.model.fleet import Rules
from quickcomm.capacity.model.prices import HOURS_A_MONTH, read_prices
from quickcomm.capacity.model.units import Deployment, Figure, Machine, Per, Resource, Unit, UnitCosts
from quickcomm.capacity.simulation.people import Calendar, Day
from quickcomm.capacity.simulation.result import REACH_S
from quickcomm.capacity.simulation.run import Course, simulate
from quickcomm.capacity.simulation.site import Plan

SERVICES_TAKE: Final = 1.05
"""CPU of services ÷ that of the monolith: edge, store, messages."""
SHARES: Final = {"audio": 0.65, "intelligence": 0.35, "dashboard": 0.3}
"""Of the monolith's memory, for a process of a module."""
HOUR_S: Final = 3_600.0
DEPLOYMENTS: Final[tuple[Deployment, Deployment]] = ("monolith", "services")
HOST_CORES: Final = 4
HOST_S: Final = 120.0
LEAD_S: Final = 20.0
MOST_TALKERS: Final = 4_096
GPU_USED: Final = 0.7
"""Highest utilisation of a GPU, as in `plan`."""


@dataclass(frozen=True, slots=True)
class Price:
    """Of the cheapest deployment of each kind at equal latency, in any unit."""

    monolith: float
    services: float


class Truth(Protocol):
    """Says what a site would really cost."""

    def __call__(self, site: Site, *, gpu_in_each_copy: bool) -> Price: ...


def by_plan(site: Site, *, gpu_in_each_copy: bool) -> Price:
    """Return the prices of the cheapest machines, by `quickcomm plan` with its sample prices and the site's costs.

    Without spare machines, as the site has none. A GPU of the site is in each copy of the monolith, or one that all
    copies share; services have it where it costs less.
    """
    planned = Planned(
        demand=read_demand(site.load),
        units=unit_costs(site.costs),
        prices=read_prices(read_input("prices", "aws-us-east-1")),
        rules=Rules(spare=False),
        assumed=Assumed(model_on=("gpu" if gpu_in_each_copy else "shared-gpu") if site.gpu else "tokens"),
    )
    services = [planned.with_model_on(place) for place in ("gpu", "shared-gpu")] if site.gpu else [planned]
    return Price(planned.cost("monolith"), min(each.cost("services") for each in services))


def unit_costs(costs: Costs) -> UnitCosts:
    """Return what a made-up site costs in the form that a plan reads. Tokens of a model elsewhere cost nothing."""
    per: dict[str, tuple[tuple[Per, Resource, float], ...]] = {
        "audio": (("speech_s", "cpu_s", costs.speech_s), ("silent_channel_h", "cpu_s", costs.silent_channel * HOUR_S)),
        "intelligence": (
            ("utterance_local", "cpu_s", costs.utterance),
            ("utterance_model", "cpu_s", costs.model_utterance),
            ("utterance_model", "gpu_s", costs.gpu_s),
            ("utterance_model", "tokens_in", 0.0),
        ),
        "dashboard": (("query", "cpu_s", costs.query), ("page_h", "cpu_s", costs.page * HOUR_S)),
    }

    def unit(module: str, each: tuple[Per, Resource, float], take: float) -> Unit:
        value = each[2] * (take if each[1] == "cpu_s" else 1.0)
        figure = Figure(median=value, low=value, high=value, origin="assumed", source="made up")
        return Unit(module=module, per=each[0], resource=each[1], figure=figure)

    def memory(module: str, share: float) -> Unit:
        return unit(module, ("process", "memory_mb", costs.memory_mb * share), 1.0)

    return UnitCosts(
        machine=Machine(cpu="made up", cores=1, memory_mb=1),
        taken_at="",
        deployments={
            "monolith": (
                memory("monolith", 1.0),
                *(unit("monolith", each, 1.0) for rows in per.values() for each in rows),
            ),
            "services": tuple(
                one
                for module, rows in per.items()
                for one in (memory(module, SHARES[module]), *(unit(module, each, SERVICES_TAKE) for each in rows))
            ),
        },
    )


class BySimulation:
    """Prices of the fewest machines on which the simulator hears everybody in time, at the busiest minute.

    A host of `HOST_CORES` is simulated with a growing share of the site's talkers, pages and questions; its limit is
    where p95 of end of speech → utterance passes `REACH_S`, the same for both deployments. Larger machines carry as
    much more. GPUs are arithmetic: each copy of the monolith has its own, or all share the fewest.
    """

    def __init__(self) -> None:
        prices = read_prices(read_input("prices", "aws-us-east-1"))
        self._hosts = [each for each in prices.machine if not each.gpus]
        self._gpus = [each for each in prices.machine if each.gpus]

    def __call__(self, site: Site, *, gpu_in_each_copy: bool) -> Price:
        peak = max(site.load.at(hour).conversations for hour in range(24)) * site.load.burst
        level = site.load.busiest
        utterances = peak * level.speech / site.load.utterance_s
        gpus = utterances * site.load.model * site.costs.gpu_s / GPU_USED if site.gpu else 0.0
        carried = {each: self.carried(site, each) for each in DEPLOYMENTS}
        shared = min((math.ceil(gpus / each.gpu) * each.price_per_h for each in self._gpus), default=0.0)

        def plain(deployment: Deployment) -> float:
            return min(
                max(1, math.ceil(peak / (carried[deployment] * each.cpu / HOST_CORES))) * each.price_per_h
                for each in self._hosts
            )

        def copies() -> float:
            return min(
                max(math.ceil(peak / (carried["monolith"] * each.cpu / HOST_CORES)), math.ceil(gpus / each.gpu), 1)
                * each.price_per_h
                for each in self._gpus
            )

        monolith = copies() if site.gpu and gpu_in_each_copy else plain("monolith") + shared
        services = plain("services") + shared
        if site.gpu:  # the model's machine has cores for the rest of a small site
            together = [each for each in self._gpus if peak <= carried["services"] * each.cpu / HOST_CORES]
            services = min([services, *(each.price_per_h for each in together if gpus <= each.gpu)])
        return Price(monolith * HOURS_A_MONTH, services * HOURS_A_MONTH)

    def carried(self, site: Site, deployment: Deployment) -> float:
        """Return the talkers of a host with `HOST_CORES`, to about 3 %."""
        plan = Plan(
            deployment=deployment,
            units=unit_costs(site.costs),
            cores=HOST_CORES,
            workers=HOST_CORES,
            model=site.load.model,
        )
        level = site.load.busiest

        def in_time(talkers: int) -> bool:
            share = talkers / level.conversations
            busy = msgspec.structs.replace(level, pages=level.pages * share, queries_per_s=level.queries_per_s * share)
            load = msgspec.structs.replace(site.load, level=(busy,))
            found = simulate(
                plan, Day(load=load, hour=Calendar(), talkers=talkers), Course(seconds=HOST_S, lead_s=LEAD_S)
            )
            p95 = found.stages["heard"].p95
            return p95 is not None and p95 <= REACH_S

        good, bad = 1, 32
        while bad < MOST_TALKERS and in_time(bad):
            good, bad = bad, bad * 2
        while bad - good > max(1, round(good * 0.03)):
            middle = (good + bad) // 2
            good, bad = (middle, bad) if in_time(middle) else (good, middle)
        return good
