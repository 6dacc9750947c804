"""Fleets: never cheaper for more load, the cheapest there is, within their limits, also with a machine lost."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.capacity.adapters.samples import read_input, samples
from quickcomm.capacity.model.comparison import Site, compare, contributions, most_times
from quickcomm.capacity.model.demand import (
    MODEL_SERVER,
    Assumed,
    Part,
    Work,
    busiest_hours,
    make_parts,
    read_demand,
)
from quickcomm.capacity.model.fleet import NoFleetError, Rules, cheapest_fleet
from quickcomm.capacity.model.load import Level, Load, read_load
from quickcomm.capacity.model.prices import MachineType, read_prices
from quickcomm.capacity.model.search import search
from quickcomm.capacity.model.units import UnitCosts, read_units
from quickcomm.kernel.errors import InvalidInputError

PRICES = read_prices(read_input("prices", "aws-us-east-1"))
UNITS = read_units(read_input("units", "speech-on-cpu"))
MOST_HOSTS = 60


@st.composite
def some_parts(draw: st.DrawFn, hours: int = 2) -> tuple[Part, ...]:
    def part(name: str) -> Part:
        on_gpu = draw(st.booleans())
        work = [
            Work(draw(st.floats(0, 12)), draw(st.floats(0.01, 3)) if on_gpu else 0.0, draw(st.floats(0, 6_000)))
            for _ in range(hours)
        ]
        each = Work(draw(st.floats(0, 0.2)), 0.0, draw(st.floats(10, 900)))
        single = not on_gpu and draw(st.booleans())
        return Part(name, tuple(work), (each,) * hours, single)

    return tuple(part(name) for name in "abc"[: draw(st.integers(1, 3))])


@st.composite
def some_machines(draw: st.DrawFn) -> tuple[MachineType, ...]:
    price, factor = st.floats(0.05, 3), st.sampled_from((0.5, 1.0, 1.7))
    plain = [(2, 4_096, 0), (8, 8_192, 0), (4, 16_384, 1), (16, 32_768, 2)]
    return tuple(
        MachineType(
            name=str(place), cores=cores, memory_mb=memory, gpus=gpus, price_per_h=draw(price), core_factor=draw(factor)
        )
        for place, (cores, memory, gpus) in enumerate(plain)
    )


some_rules = st.builds(
    Rules,
    target=st.floats(0.4, 0.8),
    lost=st.floats(0.8, 1),
    process_cores=st.sampled_from((1.0, 4.0)),
    spare=st.booleans(),
    elastic=st.booleans(),
)


def price(parts: Sequence[Part], machines: Sequence[MachineType], rules: Rules) -> float:
    try:
        return cheapest_fleet(parts, machines, rules).month
    except NoFleetError:
        return math.inf


def times(part: Part, factor: float) -> Part:
    return replace(part, work=tuple(work.times(factor) for work in part.work))


@given(some_parts(), some_machines(), some_rules, st.floats(1, 4))
@examples(150)
def test_more_load_never_costs_less(
    parts: tuple[Part, ...], machines: tuple[MachineType, ...], rules: Rules, factor: float
) -> None:
    assert price(parts, machines, rules) <= price([times(part, factor) for part in parts], machines, rules) * (1 + 1e-9)


@given(some_parts(), some_machines(), some_rules)
@examples(150)
def test_nothing_is_cheaper(parts: tuple[Part, ...], machines: tuple[MachineType, ...], rules: Rules) -> None:
    found, tried = price(parts, machines, rules), tried_by_force(parts, machines, rules)
    assert found == pytest.approx(tried)


def tried_by_force(parts: tuple[Part, ...], machines: tuple[MachineType, ...], rules: Rules) -> float:
    """All partitions, all machines, all numbers of them."""
    return min(
        sum(min(pool_price(pool, machine, rules) for machine in machines) for pool in pools)
        for pools in partitions(parts)
    )


def partitions(parts: tuple[Part, ...]) -> Iterator[list[tuple[Part, ...]]]:
    if not parts:
        yield []
        return
    for others in itertools.chain.from_iterable(itertools.combinations(parts[1:], n) for n in range(len(parts))):
        rest = tuple(part for part in parts[1:] if part not in others)
        yield from ([(parts[0], *others), *more] for more in partitions(rest))


def pool_price(pool: Sequence[Part], machine: MachineType, rules: Rules) -> float:
    sizes = [
        next((hosts for hosts in range(1, MOST_HOSTS) if enough(pool, machine, rules, hosts, hour)), math.inf)
        for hour in range(len(pool[0].work))
    ]
    day = sum(sizes) if rules.elastic else 24 * max(sizes)
    return day / 24 * 730 * machine.price_per_h


def enough(pool: Sequence[Part], machine: MachineType, rules: Rules, hosts: int, hour: int) -> bool:
    if rules.spare:
        return (
            hosts > 1
            and holds(pool, machine, rules, hosts, hour, 2, rules.target)
            and holds(pool, machine, rules, hosts - 1, hour, 1, rules.lost)
        )
    return holds(pool, machine, rules, hosts, hour, 1, rules.target)


def holds(
    pool: Sequence[Part], machine: MachineType, rules: Rules, hosts: int, hour: int, copies: int, limit: float
) -> bool:
    """What each machine has of parts that are divided, and on one of them all of the others."""
    cores, gpus, memory, mean = 0.0, 0.0, 0.0, 0.0
    for part in pool:
        work, each = part.work[hour], part.each[hour]
        if part.single:
            processes, share = 1, float(copies) / hosts
            memory += work.memory_mb
        else:
            processes, share = max(1, math.ceil(work.cores / hosts / rules.process_cores - 1e-9)), 1 / hosts
            memory += work.memory_mb / hosts
        mean += work.cores * share + each.cores * processes
        gpus += work.gpus * share
        cores += (work.cores if part.single else 0) + each.cores
        memory += each.memory_mb * processes
    most = limit * machine.cores * machine.core_factor + 1e-9
    own = all(
        part.work[hour].cores <= limit * rules.single_cores.get(part.name, math.inf) + 1e-9
        for part in pool
        if part.single
    )
    alone = not any(part.single for part in pool) or cores <= most
    return (
        own
        and alone
        and mean <= most
        and gpus <= limit * machine.gpus + 1e-9
        and memory <= 0.9 * machine.memory_mb + 1e-9
    )


@given(some_parts(), some_machines(), some_rules)
@examples(150)
def test_a_fleet_keeps_its_limits_and_stands_a_loss(
    parts: tuple[Part, ...], machines: tuple[MachineType, ...], rules: Rules
) -> None:
    try:
        fleet = cheapest_fleet(parts, machines, rules)
    except NoFleetError:
        return
    assert sorted(name for pool in fleet.pools for name in pool.processes) == sorted(part.name for part in parts)
    for pool in fleet.pools:
        mine = [part for part in parts if part.name in pool.processes]
        assert max(pool.use.cpu, pool.use.gpu) <= rules.target + 1e-6
        assert pool.use.memory <= rules.memory + 1e-6
        assert max(pool.use.lost_cpu, pool.use.lost_gpu) <= rules.lost + 1e-6
        assert all(enough(mine, pool.machine, rules, int(pool.hosts), hour) for hour in range(len(mine[0].work)))
        assert pool.hosts >= (2 if rules.spare else 1)


@given(some_parts(hours=4), some_machines(), some_rules)
@examples(80)
def test_hours_that_others_exceed_do_not_matter(
    parts: tuple[Part, ...], machines: tuple[MachineType, ...], rules: Rules
) -> None:
    rules = replace(rules, elastic=False)
    assert price(busiest_hours(parts), machines, rules) == pytest.approx(price(parts, machines, rules))
    assert price(parts, machines, replace(rules, elastic=True)) <= price(parts, machines, rules) * (1 + 1e-9)
    assert price(parts, machines, replace(rules, spare=False)) <= price(parts, machines, rules) * (1 + 1e-9)


def load_of(conversations: float = 100, **changed: float) -> Load:
    level = Level(at_h=0, conversations=conversations, speech=0.3, pages=10, queries_per_s=5)
    return msgspec.structs.replace(Load(name="test", level=(level,), model=0.2), **changed)


def site(load: Load, units: UnitCosts = UNITS, **assumed: object) -> Site:
    return Site(read_demand(load), units, PRICES, assumed=replace(Assumed(), **assumed))  # type: ignore[arg-type] # of a test


@given(st.floats(1, 3_000), st.floats(0.01, 1))
@examples(25)
def test_one_module_is_the_same_either_way(conversations: float, model: float) -> None:
    own = [unit for unit in UNITS.deployments["monolith"] if unit.module == "monolith"]
    same = tuple(msgspec.structs.replace(unit, module="audio") for unit in own)
    units = msgspec.structs.replace(UNITS, deployments={"monolith": tuple(own), "services": same})
    compared = compare(site(load_of(conversations, model=model), units))
    assert (compared.saving, compared.more) == (0, 1)
    assert compared.monolith.fleet.hosts == compared.services.fleet.hosts


@pytest.mark.parametrize("name", samples("loads"))
@pytest.mark.parametrize("model_on", ["gpu", "shared-gpu", "tokens"])
def test_contributions_add_up_to_the_difference(name: str, model_on: str) -> None:
    there = site(read_load(read_input("loads", name)), model_on=model_on)
    compared = compare(there)
    difference = compared.monolith.month - compared.services.month
    assert sum(one.month for one in contributions(there, compared)) == pytest.approx(difference, abs=1e-6)


def test_bursts_and_the_busiest_minute_count_once() -> None:
    level = (Level(at_h=6, conversations=10, speech=0.5), Level(at_h=18, conversations=100, speech=0.2))
    demand = read_demand(Load(name="peak", level=level, burst=2, model=0.5, utterance_s=4))
    assert demand.conversations == 100
    assert max(hour["conversation"] for hour in demand.hours) == 200
    assert max(hour["speech_s"] for hour in demand.hours) == pytest.approx(2 * 80 * (0.5 - 0.3 * 70 / 90), rel=0.001)
    assert demand.mean["conversation"] == pytest.approx(55, rel=0.01)
    assert demand.mean["utterance_model"] == pytest.approx(demand.mean["speech_s"] / 8)


def test_where_the_language_model_runs_moves_its_gpus() -> None:
    demand = read_demand(load_of(model=0.5))
    gpus = {
        on: {part.name for part in make_parts(UNITS, "services", demand, Assumed(model_on=on)) if part.work[0].gpus}
        for on in ("gpu", "shared-gpu", "tokens")
    }
    assert gpus == {"gpu": {"intelligence"}, "shared-gpu": {MODEL_SERVER}, "tokens": set()}
    assert site(load_of(model=0.5), model_on="tokens").tokens("services") > 0
    assert site(load_of(model=0.5)).tokens("services") == 0
    assert site(load_of(model=0), model_on="tokens").tokens("services") == 0


def test_a_page_at_each_copy_costs_more_than_a_page_at_one() -> None:
    busy = msgspec.structs.replace(load_of(800), level=(Level(at_h=0, conversations=800, speech=0.3, pages=300),))
    there, each = site(busy, model_on="tokens"), site(busy, model_on="tokens", pages_each=True)
    assert each.cost("monolith") > there.cost("monolith")
    assert each.cost("services") == there.cost("services")


def test_what_cannot_be_built_is_named() -> None:
    plain = msgspec.structs.replace(PRICES, machine=PRICES.machine[:5], tokens=None)
    with pytest.raises(NoFleetError, match="intelligence needs a GPU"):
        replace(site(load_of()), prices=plain).fleet("services")
    with pytest.raises(InvalidInputError, match=r"has no \[tokens\]"):
        replace(site(load_of(), model_on="tokens"), prices=plain).cost("services")
    with pytest.raises(NoFleetError, match="database is one process and needs"):
        site(load_of(90_000)).fleet("services")
    known = {"monolith": UNITS.deployments["monolith"]}
    with pytest.raises(InvalidInputError, match="no figures of the deployment services"):
        site(load_of(), msgspec.structs.replace(UNITS, deployments=known)).parts("services")


def test_most_times_finds_the_step() -> None:
    assert most_times(math.ceil, 7, 0.001) == pytest.approx(7, rel=0.001)
    assert most_times(lambda factor: 1 + factor, 1.5, 0.001) == pytest.approx(0.5, rel=0.001)
    assert most_times(lambda _: 2.0, 1.0, 0.001) == 0


def test_idle_gpus_are_where_the_published_result_comes_from() -> None:
    """Small GPU machines, a copy on each, a model that is hardly asked: the one kind where 3.2 times and 35 % hold."""
    outcomes = list(search(read_load(read_input("loads", "call-centre")), {"cpu": UNITS}, PRICES, Rules(), (1_000,)))
    held = [outcome.kind for outcome in outcomes if outcome.own_gpus and outcome.own_gpus.holds]
    assert {(kind.model, kind.gpu_machines) for kind in held} == {(0.01, "up to 4 cores")}
    assert all(outcome.free is not None and outcome.free.more < 1.05 for outcome in outcomes)


def test_prices_say_what_is_wrong_with_them() -> None:
    good = read_input("prices", "aws-us-east-1").decode()
    for broken, why in (
        (good.replace("price_per_h = 0.0765", "price_per_h = 0"), "price_per_h"),
        (good.replace('"c6a.xlarge"', '"c6a.large"'), "two machines are called c6a.large"),
        (good.replace('date = "2026-02-09"', 'date = "soon"'), "date"),
        (good.replace("cores = 2\n", "kores = 2\n", 1), "kores"),
        ("[", "Not a price list"),
    ):
        with pytest.raises(InvalidInputError, match=why):
            read_prices(broken.encode())


def test_a_faster_core_counts_for_more() -> None:
    fast = msgspec.structs.replace(PRICES.machine[0], core_factor=2.0)
    parts = [Part("a", (Work(cores=28),), (Work(),))]
    hosts = [cheapest_fleet(parts, [machine], Rules()).hosts for machine in (PRICES.machine[0], fast)]
    assert hosts == [20, 10]


def test_figures_that_were_not_measured_say_where_they_are_from() -> None:
    for file in samples("units").values():
        units = read_units(file.read_bytes())
        figures = [unit.figure for of in units.deployments.values() for unit in of]
        assert all(figure.source for figure in figures)
        assert {figure.origin for figure in figures} == {"measured", "published", "assumed"}
        assert units.modules("services") == ("audio", "intelligence", "dashboard", "edge", "store", "database")


def test_pools_are_priced_by_the_month() -> None:
    [pool] = cheapest_fleet([Part("a", (Work(cores=1),), (Work(),))], PRICES.machine, Rules(spare=False)).pools
    assert pool.month == pytest.approx(730 * pool.machine.price_per_h * pool.hosts)
