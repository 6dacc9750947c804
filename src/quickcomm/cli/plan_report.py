"""What `quickcomm plan` prints: at most 100 columns for people, objects for programs."""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from quickcomm.capacity.model.comparison import (
    DEPLOYMENTS,
    Comparison,
    Side,
    Site,
    compare,
    contributions,
    first_limits,
)
from quickcomm.capacity.model.demand import MODEL_ON, ModelOn, Spread, missing_parts
from quickcomm.capacity.model.fleet import NoFleetError, Pool
from quickcomm.capacity.model.load import Load
from quickcomm.capacity.model.search import PUBLISHED_MORE, PUBLISHED_SAVING, Outcome, Ratio
from quickcomm.kernel.errors import InvalidInputError

MODEL_IS: Final[dict[ModelOn, str]] = {
    "gpu": "a GPU in each copy",
    "shared-gpu": "GPUs that all copies share",
    "tokens": "behind an API",
}
_SPREADS: Final[tuple[tuple[Spread, str], ...]] = (("low", "lowest"), ("high", "highest"))
NONE_WORTH: Final = 0.05
"""Savings and ratios that differ less from nothing are called 1.0: unit costs are not that exact."""
WIDTH: Final = 100
SHOWN: Final = 8
"""Kinds of sites that people are shown."""


def lines(load: Load, site: Site, compared: Comparison) -> Iterator[str]:
    """Yield the report of one site."""
    currency = site.prices.currency
    for line in _given(load, site):
        yield textwrap.fill(line, WIDTH)
    for deployment, side in zip(DEPLOYMENTS, (compared.monolith, compared.services), strict=True):
        yield ""
        per = site.demand.conversations / side.month
        yield f"{deployment}: {side.month:,.0f} {currency} a month, {per:.3f} conversations per {currency}"
        yield from _pools(side, currency)
    yield ""
    yield verdict(compared.saving, compared.more)
    yield ""
    yield f"Where the difference comes from, monolith minus services, {currency} a month:"
    for contribution in contributions(site, compared):
        yield f"  {contribution.name:<40}{round(contribution.month):>12,}"
    yield from _elsewhere(site)
    yield from _unsure(site)


def _given(load: Load, site: Site) -> Iterator[str]:
    speaking = max(hour["speech_s"] for hour in site.demand.hours)
    most = f"{site.demand.conversations:,.0f} conversations at the busiest time, in bursts {load.burst:g} times as many"
    yield f"{load.name}: {most}."
    asked = f"is asked about {load.model:.0%} of utterances ({MODEL_IS[site.assumed.model_on]})"
    yield f"Up to {speaking:,.1f} people speak at once; a language model {asked if load.model else 'is not asked'}."
    yield f"Prices: {site.prices.name}, {site.prices.date}."
    origins = Counter(unit.figure.origin for of in site.units.deployments.values() for unit in of)
    told = ", ".join(f"{count} {origin}" for origin, count in sorted(origins.items(), reverse=True))
    yield f"Unit costs: {site.units.machine.cpu}, {site.units.taken_at[:10]}; figures: {told}."
    if missing := missing_parts(site.units):
        yield f"Not counted, because the unit costs lack it: {', '.join(missing)}."


def _pools(side: Side, currency: str) -> Iterator[str]:
    names = [f"{pool.hosts:.0f} {pool.machine.name}" for pool in side.fleet.pools]
    width = max(18, *map(len, names))
    yield f"  {'machines':<{width}}{'CPU':>5}{'GPU':>6}{'memory':>8}{'one lost':>10}{currency:>9}  processes"
    for name, pool in zip(names, side.fleet.pools, strict=True):
        use = pool.use
        gpu = f"{use.gpu:.0%}" if pool.machine.gpus else "-"
        lost = max(use.lost_cpu, use.lost_gpu)
        line = f"  {name:<{width}}{use.cpu:>5.0%}{gpu:>6}{use.memory:>8.0%}{lost:>10.0%}{pool.month:>9,.0f}  "
        yield line + _processes(pool, len(line))
    if side.tokens:
        yield f"  {'tokens':<{width}}{side.tokens:>38,.0f}"


def _processes(pool: Pool, indent: int) -> str:
    """Return names and numbers, in lines that end before column 100."""
    told, width = "", indent
    for name, count in pool.processes.items():
        item = f"{name} {count}"
        if width > indent and width + len(item) + 2 > WIDTH:
            told, width = f"{told},\n{' ' * indent}", indent
        elif told:
            told, width = told + ", ", width + 2
        told, width = told + item, width + len(item)
    return told


def verdict(saving: float, more: float) -> str:
    """Return what it comes to, and how that compares with what was published."""
    cost = f"save {_percent(saving)}" if saving >= 0 else f"cost {_percent(-saving)} more"
    told = f"At the same load services {cost}; at the same cost they have {more:.2f} times the conversations."
    if abs(saving) < NONE_WORTH and abs(more - 1) < NONE_WORTH:
        return f"{told}\nThat is 1.0: cost is no reason to split here."
    holds = "holds" if Ratio(more, saving).holds else "does not hold"
    return f"{told}\nThe published result ({PUBLISHED_MORE} times, {PUBLISHED_SAVING:.0%} saved) {holds} here."


def _percent(share: float) -> str:
    """Return it without a minus before nothing."""
    return f"{round(share, 2) + 0.0:.0%}"


def _elsewhere(site: Site) -> Iterator[str]:
    """Show what it costs with the language model in other places, where one is asked."""
    if not any(hour["utterance_model"] for hour in site.demand.hours):
        return
    yield ""
    yield f"{'With the language model':<30}{'monolith':>12}{'services':>12}{'saved':>8}{'times as many':>15}"
    for place in MODEL_ON:
        try:
            there = compare(site.with_model_on(place))
        except InvalidInputError as error:
            yield textwrap.fill(f"  {MODEL_IS[place]:<28}{error}", WIDTH)
            continue
        costs = f"{there.monolith.month:>12,.0f}{there.services.month:>12,.0f}"
        yield f"  {MODEL_IS[place]:<28}{costs}{_percent(there.saving):>8}{there.more:>15.2f}"


def _unsure(site: Site) -> Iterator[str]:
    yield ""
    yield "Unit costs are spread:"
    for spread, name in _SPREADS:
        try:
            there = compare(site.with_spread(spread))
        except NoFleetError as error:
            yield textwrap.fill(f"  all at their {name}: {error}", WIDTH)
        else:
            yield f"  all at their {name}: saved {_percent(there.saving)}, {there.more:.2f} times as many"
    limits = sorted(first_limits(site).items(), key=lambda limit: limit[1])
    if limits:
        told = ", ".join(f"{name} {at:,.0f}" for name, at in limits)
        yield f"Parts of services that are one process are full at: {told} conversations."


def as_object(load: Load, site: Site, compared: Comparison) -> dict[str, Any]:
    """Return the same for programs; money is of a month."""
    sides = dict(zip(DEPLOYMENTS, (compared.monolith, compared.services), strict=True))
    return {
        "load": load.name,
        "conversations": site.demand.conversations,
        "currency": site.prices.currency,
        "prices": {"name": site.prices.name, "date": site.prices.date, "source": site.prices.source},
        "rules": msgspec.to_builtins(site.rules),
        "assumed": msgspec.to_builtins(site.assumed),
        **{name: _side_as_object(side, site.demand.conversations) for name, side in sides.items()},
        "saving": compared.saving,
        "more_conversations": compared.more,
        "contributions": {one.name: one.month for one in contributions(site, compared)},
        "not_counted": missing_parts(site.units),
        "first_limits": first_limits(site),
        "not_measured": [
            {"deployment": deployment, "module": unit.module, "per": unit.per, "resource": unit.resource}
            | {"origin": unit.figure.origin, "source": unit.figure.source}
            for deployment, units in site.units.deployments.items()
            for unit in units
            if unit.figure.origin != "measured"
        ],
    }


def _side_as_object(side: Side, conversations: float) -> dict[str, Any]:
    return {
        "month": side.month,
        "tokens": side.tokens,
        "hosts": side.fleet.hosts,
        "conversations_per_unit_of_currency": conversations / side.month,
        "pools": [
            {"machine": pool.machine.name, "hosts": pool.hosts, "month": pool.month, "processes": pool.processes}
            | {"use": msgspec.to_builtins(pool.use)}
            for pool in side.fleet.pools
        ],
    }


def outcome_as_object(outcome: Outcome) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(outcome)
    return told


def search_lines(load: Load, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield how often which ratios were found, the best kinds of sites, and what follows."""
    yield f"{len(outcomes)} kinds of sites with the day of: {load.name}."
    yield "Own GPUs: a GPU in each copy of the monolith, as in the published case."
    yield "Free: each deployment has the language model where it costs it least, as its owner would."
    yield ""
    yield f"{'':<48}{'own GPUs':>10}{'free':>8}"
    own, free = [outcome.own_gpus for outcome in outcomes], [outcome.free for outcome in outcomes]
    for title, holds in _QUESTIONS:
        counts = [sum(1 for ratio in ratios if ratio and holds(ratio)) for ratios in (own, free)]
        yield f"{title:<48}{counts[0]:>10}{counts[1]:>8}"
    yield f"{'one of both cannot be built':<48}{own.count(None):>10}{free.count(None):>8}"
    yield ""
    yield from _best(outcomes)
    yield ""
    yield from _conclusion(outcomes)
    obstacles = Counter(outcome.obstacle for outcome in outcomes if outcome.obstacle)
    for obstacle, count in obstacles.items():
        yield textwrap.fill(f"Not built, {count} kinds: {obstacle}", WIDTH)


_QUESTIONS: Final[tuple[tuple[str, Callable[[Ratio], bool]], ...]] = (
    (f"{PUBLISHED_MORE} times and {PUBLISHED_SAVING:.0%} saved both hold", lambda ratio: ratio.holds),
    (f"{PUBLISHED_MORE} times the conversations or more", lambda ratio: ratio.more >= PUBLISHED_MORE),
    (f"{PUBLISHED_SAVING:.0%} or more saved", lambda ratio: ratio.saving >= PUBLISHED_SAVING),
    ("1.0: between 0.95 and 1.05 times", lambda ratio: abs(ratio.more - 1) < NONE_WORTH),
    ("services are worse: 0.95 times or less", lambda ratio: ratio.more <= 1 - NONE_WORTH),
)


def _best(outcomes: Iterable[Outcome]) -> Iterator[str]:
    better = [outcome for outcome in outcomes if any(map(_is_better, (outcome.own_gpus, outcome.free)))]
    if not better:
        yield "Services are better than 1.0 for none of them."
        return
    better.sort(key=_most, reverse=True)
    yield f"The best of {len(better)} for services:{'own GPUs':>41}{'free':>17}"
    yield f"  {'conversations':>13}{'asked':>7}  {'engine':<15}{'GPU machines':<18}" + 2 * f"{'times':>9}{'saved':>8}"
    for outcome in better[:SHOWN]:
        kind = outcome.kind
        what = f"{kind.conversations:>13,}{kind.model:>7.0%}  {kind.engine[:14]:<15}{kind.gpu_machines:<18}"
        yield f"  {what}{_cells(outcome.own_gpus)}{_cells(outcome.free)}"


def _most(outcome: Outcome) -> float:
    return max(ratio.more for ratio in (outcome.own_gpus, outcome.free) if ratio)


def _is_better(ratio: Ratio | None) -> bool:
    return ratio is not None and (ratio.more >= 1 + NONE_WORTH or ratio.saving >= NONE_WORTH)


def _cells(ratio: Ratio | None) -> str:
    return f"{ratio.more:>9.2f}{_percent(ratio.saving):>8}" if ratio else f"{'-':>9}{'-':>8}"


def _conclusion(outcomes: Iterable[Outcome]) -> Iterator[str]:
    own = [outcome for outcome in outcomes if outcome.own_gpus and outcome.own_gpus.holds]
    free = [outcome for outcome in own if outcome.free and outcome.free.holds]
    if free:
        yield f"The published result holds for {len(free)} of these kinds, even with the cheapest monolith."
    elif own:
        best = max(outcome.free.more for outcome in own if outcome.free)
        yield f"The published result holds for {len(own)} of these kinds, only with a GPU in each copy of the monolith."
        yield f"Where the monolith may share GPUs or pay by tokens, services have {best:.2f} times its conversations."
    else:
        yield "The published result holds for none of these sites."
