"""Sites for which the published result holds: 3.2 times the conversations at the same cost, 35 % less cost."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from quickcomm.capacity.model.comparison import Site, cheapest_on, more_conversations
from quickcomm.capacity.model.demand import read_demand
from quickcomm.capacity.model.fleet import Rules
from quickcomm.capacity.model.load import Load
from quickcomm.capacity.model.prices import Prices
from quickcomm.capacity.model.units import UnitCosts
from quickcomm.kernel.errors import InvalidInputError

PUBLISHED_MORE: Final = 3.2
PUBLISHED_SAVING: Final = 0.35
CONVERSATIONS: Final = (10, 100, 1_000, 10_000)
MODEL_SHARES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
GPU_MACHINES: Final[dict[str, tuple[int, float]]] = {
    "of any size": (1, math.inf),
    "up to 4 cores": (1, 4),
    "16 cores and more": (16, math.inf),
}
"""The fewest and the most cores of machines with GPUs that there are to choose from; others are not restricted."""
_PRECISION: Final = 0.02


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of site.

    `model`: share of utterances that the language model is asked about; `engine`: name of the unit costs;
    `gpu_machines`: which there are.
    """

    conversations: int
    model: float
    engine: str
    gpu_machines: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """Services against the monolith: times the conversations at the same cost, share of the cost that is saved."""

    more: float
    saving: float

    @property
    def holds(self) -> bool:
        return self.more >= PUBLISHED_MORE and self.saving >= PUBLISHED_SAVING


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a kind of site; None: one of both deployments cannot be built, `obstacle` says why.

    `own_gpus`: a GPU in each copy of the monolith and each process of intelligence; `free`: each deployment has the
    language model where it costs it least.
    """

    kind: Kind
    own_gpus: Ratio | None
    free: Ratio | None
    obstacle: str = ""


def search(
    load: Load,
    engines: Mapping[str, UnitCosts],
    prices: Prices,
    rules: Rules,
    conversations: Sequence[int] = CONVERSATIONS,
) -> Iterator[Outcome]:
    """Yield what becomes of the load's day for all kinds of sites."""
    days = {share: read_demand(msgspec.structs.replace(load, model=share)) for share in MODEL_SHARES}
    for number, share, engine, machines in itertools.product(conversations, MODEL_SHARES, engines, GPU_MACHINES):
        day, (fewest, most) = days[share], GPU_MACHINES[machines]
        some = tuple(machine for machine in prices.machine if not machine.gpus or fewest <= machine.cores <= most)
        sized, some_prices = day.scaled(number / day.conversations), msgspec.structs.replace(prices, machine=some)
        yield _outcome(Kind(number, share, engine, machines), Site(sized, engines[engine], some_prices, rules))


def _outcome(kind: Kind, site: Site) -> Outcome:
    outcome = Outcome(kind, None, None)
    try:
        outcome = replace(outcome, free=_ratio(cheapest_on(site, "monolith"), cheapest_on(site, "services")))
        return replace(outcome, own_gpus=_ratio(site, site))
    except InvalidInputError as error:
        return replace(outcome, obstacle=str(error))


def _ratio(monolith: Site, services: Site) -> Ratio:
    budget = monolith.cost("monolith")
    saving = 1 - services.cost("services") / budget
    return Ratio(more_conversations(monolith, services, budget, _PRECISION), saving)
