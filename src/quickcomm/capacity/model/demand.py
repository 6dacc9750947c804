"""From the load of a day and unit costs to the resources that each part of a site needs, hour by hour.

A burst multiplies all of the load alike: conversations, pages and queries.
"""

import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from quickcomm.capacity.model.load import DAY_H, Load
from quickcomm.capacity.model.units import Deployment, Figure, Per, Resource, Unit, UnitCosts
from quickcomm.kernel.errors import InvalidInputError

ModelOn = Literal["gpu", "shared-gpu", "tokens"]
"""Where the language model runs: on a GPU of each process that asks it; on GPUs that all share; behind an API."""
MODEL_ON: Final[tuple[ModelOn, ...]] = get_args(ModelOn)
Spread = Literal["low", "median", "high"]
Rates = dict[Per, float]
"""How often each `Per` happens in a second; `conversation`: how many are open."""
MODEL_SERVER: Final = "model server"
ONE_PROCESS: Final = ("store", "database")
"""Parts of services whose work cannot be divided among processes. Copies of the monolith have one each."""
_HOUR_S: Final = 3_600.0
_MINUTES: Final = 60


class Work(NamedTuple):
    """What is needed at one time: cores and GPUs of the unit costs, megabytes."""

    cores: float = 0.0
    gpus: float = 0.0
    memory_mb: float = 0.0

    def times(self, factor: float) -> "Work":
        return Work(self.cores * factor, self.gpus * factor, self.memory_mb * factor)


@dataclass(frozen=True, slots=True)
class Part:
    """A module of a deployment.

    `work`: all of it, by hour, divided among its processes; `each`: what each process needs besides, by hour;
    `single`: its work is done by one process.
    """

    name: str
    work: tuple[Work, ...]
    each: tuple[Work, ...]
    single: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """A load in rates. `hours`: the highest rate in each hour, with bursts; `mean`: over the day, without."""

    hours: tuple[Rates, ...]
    mean: Rates
    conversations: float
    """At the busiest time, without bursts."""

    def scaled(self, factor: float) -> "Demand":
        hours = tuple({per: rate * factor for per, rate in hour.items()} for hour in self.hours)
        mean = {per: rate * factor for per, rate in self.mean.items()}
        return Demand(hours, mean, self.conversations * factor)


@dataclass(frozen=True, slots=True)
class Assumed:
    """How unit costs are read.

    `pages_each`: a page is open at each copy of the monolith, instead of at one of them.
    """

    model_on: ModelOn = "gpu"
    spread: Spread = "median"
    pages_each: bool = False


def read_demand(load: Load) -> Demand:
    """Return the rates of a day, looked at each minute."""
    minutes = [_rates(load, minute / _MINUTES) for minute in range(int(DAY_H) * _MINUTES)]
    hours = [minutes[start : start + _MINUTES + 1] for start in range(0, len(minutes), _MINUTES)]
    hours[-1].append(minutes[0])
    return Demand(
        hours=tuple({per: load.burst * max(rates[per] for rates in hour) for per in hour[0]} for hour in hours),
        mean={per: sum(rates[per] for rates in minutes) / len(minutes) for per in minutes[0]},
        conversations=max(rates["conversation"] for rates in minutes),
    )


def _rates(load: Load, hour: float) -> Rates:
    level = load.at(hour)
    speech = level.conversations * level.speech
    utterances = speech / load.utterance_s
    return {
        "speech_s": speech,
        "silent_channel_h": level.conversations * (1 - level.speech) / _HOUR_S,
        "utterance_local": utterances,
        "utterance_model": utterances * load.model,
        "page_h": level.pages / _HOUR_S,
        "query": level.queries_per_s,
        "conversation": level.conversations,
    }


def make_parts(units: UnitCosts, deployment: Deployment, demand: Demand, assumed: Assumed) -> tuple[Part, ...]:
    """Return what the modules of a deployment need. Raises `InvalidInputError` where a figure is missing."""
    known = units.deployments.get(deployment, ())
    if not known:
        raise InvalidInputError(f"The unit costs have no figures of the deployment {deployment}.")
    asks_model = any(hour["utterance_model"] for hour in demand.hours)
    on_gpu = assumed.model_on != "tokens"
    resources: tuple[Resource, ...] = ("gpu_s",) if on_gpu else ("tokens_in", "tokens_out")
    if asks_model and not any(unit.per == "utterance_model" and unit.resource in resources for unit in known):
        missing = f"The unit costs have no {resources[0]} of an utterance_model under {deployment}."
        raise InvalidInputError(f"{missing} Choose another place for the language model, or add it.")
    own = [unit for unit in known if assumed.model_on == "gpu" or not _of_model_gpu(unit)]
    paged = assumed.pages_each and deployment == "monolith"
    parts = [
        Part(
            name=name,
            work=tuple(
                _work(own, name, _without_pages(hour) if paged else hour, assumed.spread) for hour in demand.hours
            ),
            each=tuple(_each(own, name, hour["page_h"] if paged else 0.0, assumed.spread) for hour in demand.hours),
            single=deployment == "services" and name in ONE_PROCESS,
        )
        for name in units.modules(deployment)
    ]
    if asks_model and assumed.model_on == "shared-gpu":
        served = [msgspec.structs.replace(unit, module=MODEL_SERVER) for unit in known if _of_model_gpu(unit)]
        work = tuple(_work(served, MODEL_SERVER, hour, assumed.spread) for hour in demand.hours)
        parts.append(Part(MODEL_SERVER, work, (Work(),) * len(work)))
    return tuple(parts)


def _of_model_gpu(unit: Unit) -> bool:
    return unit.per == "utterance_model" and unit.resource == "gpu_s"


def _without_pages(rates: Rates) -> Rates:
    return {per: 0.0 if per == "page_h" else rate for per, rate in rates.items()}


def _work(units: Iterable[Unit], module: str, rates: Rates, spread: Spread) -> Work:
    amounts: dict[Resource, float] = {"cpu_s": 0.0, "gpu_s": 0.0, "memory_mb": 0.0}
    for unit in units:
        if unit.module == module and unit.resource in amounts:
            amounts[unit.resource] += amount(unit.figure, spread) * rates.get(unit.per, 0.0)
    return Work(amounts["cpu_s"], amounts["gpu_s"], amounts["memory_mb"])


def _each(units: Iterable[Unit], module: str, pages: float, spread: Spread) -> Work:
    return _work(units, module, {"process": 1.0, "process_h": 1.0 / _HOUR_S, "page_h": pages}, spread)


def amount(figure: Figure, spread: Spread) -> float:
    return {"low": figure.low, "median": figure.median, "high": figure.high}[spread]


def tokens_per_s(units: UnitCosts, deployment: Deployment, demand: Demand, spread: Spread) -> tuple[float, float]:
    """Return tokens that go into the language model and come out, over the day."""
    found = {"tokens_in": 0.0, "tokens_out": 0.0}
    for unit in units.deployments.get(deployment, ()):
        if unit.resource in found:
            found[unit.resource] += amount(unit.figure, spread) * demand.mean.get(unit.per, 0.0)
    return found["tokens_in"], found["tokens_out"]


def missing_parts(units: UnitCosts) -> tuple[str, ...]:
    """Return parts that a site has and the unit costs do not: what is not counted makes a deployment look cheap."""
    expected: dict[Deployment, tuple[str, ...]] = {"monolith": ("edge", "store"), "services": ("edge", *ONE_PROCESS)}
    return tuple(
        f"{part} ({deployment})"
        for deployment, parts in expected.items()
        for part in parts
        if part not in units.modules(deployment)
    )


def busiest_hours(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts without hours that need no more of anything than another hour: a fixed fleet ignores them."""
    needs = [
        tuple(itertools.chain(*hour))
        for hour in zip(*(each for part in parts for each in (part.work, part.each)), strict=True)
    ]
    kept: list[int] = []
    for hour in sorted(range(len(needs)), key=lambda at: sum(needs[at]), reverse=True):
        if not any(all(map(operator.le, needs[hour], needs[other])) for other in kept):
            kept.append(hour)
    return tuple(
        replace(part, work=tuple(part.work[hour] for hour in kept), each=tuple(part.each[hour] for hour in kept))
        for part in parts
    )


def gpus_apart(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Return the same work with all GPUs in a part of their own."""
    parts = tuple(parts)
    without = [replace(part, work=tuple(work._replace(gpus=0.0) for work in part.work)) for part in parts]
    gpus = tuple(
        Work(gpus=sum(work.gpus for work in hour)) for hour in zip(*(part.work for part in parts), strict=True)
    )
    if not any(work.gpus for work in gpus):
        return parts
    return (*without, Part(MODEL_SERVER + "s", gpus, (Work(),) * len(gpus)))


def without_process_memory(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Return the same work, done by processes that take no memory by being there."""
    return tuple(replace(part, each=tuple(each._replace(memory_mb=0.0) for each in part.each)) for part in parts)
