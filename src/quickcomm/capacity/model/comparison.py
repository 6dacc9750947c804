"""Monolith against services: cost at the same load, load at the same cost, and where the difference comes from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from quickcomm.capacity.model.demand import (
    MODEL_ON,
    Assumed,
    Demand,
    ModelOn,
    Part,
    Spread,
    busiest_hours,
    gpus_apart,
    make_parts,
    tokens_per_s,
    without_process_memory,
)
from quickcomm.capacity.model.fleet import Fleet, NoFleetError, Rules, cheapest_fleet
from quickcomm.capacity.model.prices import HOURS_A_MONTH, Prices
from quickcomm.capacity.model.units import Deployment, UnitCosts
from quickcomm.kernel.errors import InvalidInputError

DEPLOYMENTS: Final[tuple[Deployment, Deployment]] = ("monolith", "services")
MOST_TIMES: Final = 64.0
"""How many times the load is looked at, at most."""
_MONTH_S: Final = HOURS_A_MONTH * 3_600
_MILLION: Final = 1e6


@dataclass(frozen=True, slots=True)
class Site:
    """All that a cost depends on."""

    demand: Demand
    units: UnitCosts
    prices: Prices
    rules: Rules = field(default_factory=Rules)
    assumed: Assumed = field(default_factory=Assumed)

    def parts(self, deployment: Deployment) -> tuple[Part, ...]:
        parts = make_parts(self.units, deployment, self.demand, self.assumed)
        return parts if self.rules.elastic else busiest_hours(parts)

    def fleet(self, deployment: Deployment) -> Fleet:
        """Return the cheapest. Raises `NoFleetError`."""
        return cheapest_fleet(self.parts(deployment), self.prices.machine, self.rules)

    def tokens(self, deployment: Deployment) -> float:
        """Return what the tokens of a month cost. Raises `InvalidInputError` where the list has no price for them."""
        if self.assumed.model_on != "tokens":
            return 0.0
        into, out = tokens_per_s(self.units, deployment, self.demand, self.assumed.spread)
        price = self.prices.tokens
        if price is None:
            if into or out:
                raise InvalidInputError(f"The price list {self.prices.name} has no [tokens].")
            return 0.0
        return (into * price.input_per_million + out * price.output_per_million) / _MILLION * _MONTH_S

    def cost(self, deployment: Deployment) -> float:
        """Return the cost of a month. Raises `NoFleetError`."""
        return self.fleet(deployment).month + self.tokens(deployment)

    def scaled(self, factor: float) -> "Site":
        return replace(self, demand=self.demand.scaled(factor))

    def with_model_on(self, place: ModelOn) -> "Site":
        return replace(self, assumed=replace(self.assumed, model_on=place))

    def with_spread(self, spread: Spread) -> "Site":
        return replace(self, assumed=replace(self.assumed, spread=spread))


@dataclass(frozen=True, slots=True)
class Contribution:
    """A part of the difference in cost a month, monolith minus services."""

    name: str
    month: float


@dataclass(frozen=True, slots=True)
class Side:
    """A deployment and what it costs a month."""

    fleet: Fleet
    tokens: float

    @property
    def month(self) -> float:
        return self.fleet.month + self.tokens


@dataclass(frozen=True, slots=True)
class Comparison:
    """`more`: conversations of services ÷ monolith, each with as many as the monolith's cost pays for."""

    monolith: Side
    services: Side
    more: float

    @property
    def saving(self) -> float:
        """Return the share of the monolith's cost that services save; negative where they cost more."""
        return 1 - self.services.month / self.monolith.month


def compare(site: Site) -> Comparison:
    """Raises `NoFleetError` where one of both cannot be built."""
    monolith, services = (Side(site.fleet(deployment), site.tokens(deployment)) for deployment in DEPLOYMENTS)
    return Comparison(monolith, services, more_conversations(site, site, monolith.month))


def more_conversations(monolith: Site, services: Site, budget: float, precision: float = 0.002) -> float:
    """Return how many times the monolith's conversations services can have for `budget` a month."""
    most = most_times(lambda factor: monolith.scaled(factor).cost("monolith"), budget, precision)
    return most_times(lambda factor: services.scaled(factor).cost("services"), budget, precision) / most


def most_times(cost: Callable[[float], float], budget: float, precision: float) -> float:
    """Return the greatest factor of the load that `budget` pays for, or 0.0 if it does not even pay for a 64th.

    `cost`: of a factor; it never falls.
    """

    def paid(factor: float) -> bool:
        try:
            return cost(factor) <= budget * (1 + 1e-9)
        except NoFleetError:
            return False

    low, high = (1.0, 2.0) if paid(1.0) else (1 / MOST_TIMES, 1.0)
    if not paid(low):
        return 0.0
    while high <= MOST_TIMES and paid(high):
        low, high = high, 2 * high
    while high / low > 1 + precision:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if paid(middle) else (low, middle)
    return low


def contributions(site: Site, compared: Comparison) -> Iterator[Contribution]:
    """Take away one reason after the other, in this order, on both sides; what the difference loses is due to it.

    Yields parts that add up to the difference. Another order would divide what two reasons share otherwise.
    """
    parts = {deployment: site.parts(deployment) for deployment in DEPLOYMENTS}
    fixed = replace(site.rules, spare=False)
    divided = replace(fixed, whole=False)
    apart = {deployment: gpus_apart(all_parts) for deployment, all_parts in parts.items()}
    lean = {deployment: without_process_memory(all_parts) for deployment, all_parts in apart.items()}

    def difference(of: dict[Deployment, tuple[Part, ...]], rules: Rules) -> float:
        costs = [cheapest_fleet(of[deployment], site.prices.machine, rules).month for deployment in DEPLOYMENTS]
        return costs[0] - costs[1]

    steps = [
        ("a spare machine in each pool", difference(parts, fixed)),
        ("machines come whole", difference(parts, divided)),
        ("GPUs that idle where cores are short", difference(apart, divided)),
        ("memory of processes", difference(lean, divided)),
    ]
    before = compared.monolith.fleet.month - compared.services.fleet.month
    for name, after in steps:
        yield Contribution(name, before - after)
        before = after
    yield Contribution("the work itself", before)
    yield Contribution("tokens", compared.monolith.tokens - compared.services.tokens)


def cheapest_on(site: Site, deployment: Deployment) -> Site:
    """Return the site with the language model where it costs this deployment least. Raises `NoFleetError`."""
    found: list[tuple[float, Site]] = []
    reasons: list[str] = []
    for place in MODEL_ON:
        there = site.with_model_on(place)
        try:
            found.append((there.cost(deployment), there))
        except InvalidInputError as error:
            reasons.append(str(error))
    if not found:
        raise NoFleetError(reasons[0])
    return min(found, key=lambda one: one[0])[1]


def first_limits(site: Site) -> dict[str, float]:
    """Return, for parts of services whose work one process does, the conversations at which it can do no more."""
    rules, largest = site.rules, max(machine.cpu for machine in site.prices.machine)
    limits: dict[str, float] = {}
    for part in site.parts("services"):
        cores = max(work.cores for work in part.work)
        if part.single and cores:
            most = min(rules.single_cores.get(part.name, largest), largest)
            limits[part.name] = site.demand.conversations * rules.target * most / cores
    return limits
