"""The cheapest machines for the parts of a site.

A fleet consists of pools. A pool is a number of like machines; each machine runs a process, or several, of each part of
the pool, and has an even share of the work. All ways to put parts into pools and all machines of the price list are
looked at, by dynamic programming over subsets of the parts, so no fleet of this kind is cheaper.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Final

from quickcomm.capacity.model.demand import Part, Work
from quickcomm.capacity.model.load import DAY_H
from quickcomm.capacity.model.prices import HOURS_A_MONTH, MachineType
from quickcomm.kernel.errors import InvalidInputError

_ROUNDING: Final = 1e-9


class NoFleetError(InvalidInputError):
    """A part of the site runs on no machine of the price list."""

    code = "capacity.no_fleet"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a fleet must keep to.

    `target`: highest utilisation of cores and GPUs at the busiest minute; `lost`: the same with one machine of a pool
    lost; `memory`: highest share of memory; `process_cores`: the most that a process can use; `spare`: whether one
    machine of each pool may be lost; `whole`: whether machines come whole; `elastic`: whether they are paid by the
    hour, as many as it needs.
    """

    target: float = 0.7
    lost: float = 0.9
    memory: float = 0.9
    process_cores: float = 4.0
    spare: bool = True
    whole: bool = True
    elastic: bool = False
    single_cores: dict[str, float] = field(default_factory=lambda: {"store": 1.0})
    """The most that a part can use whose work is done by one process; for others it is the machine."""


@dataclass(frozen=True, slots=True)
class Use:
    """Highest utilisation of the machines of a pool: 1.0 is all they have. `lost_…`: with one machine less."""

    cpu: float = 0.0
    gpu: float = 0.0
    memory: float = 0.0
    lost_cpu: float = 0.0
    lost_gpu: float = 0.0


@dataclass(frozen=True, slots=True)
class Pool:
    """Like machines. `processes`: of each part, all machines together; `host_hours`: paid in a day."""

    machine: MachineType
    hosts: float
    processes: dict[str, int]
    use: Use
    host_hours: float

    @property
    def month(self) -> float:
        """Return what it costs a month."""
        return self.host_hours / DAY_H * HOURS_A_MONTH * self.machine.price_per_h


@dataclass(frozen=True, slots=True)
class Fleet:
    pools: tuple[Pool, ...]

    @property
    def month(self) -> float:
        return sum(pool.month for pool in self.pools)

    @property
    def hosts(self) -> float:
        return sum(pool.hosts for pool in self.pools)


class Sizing:
    """How many machines of one type the parts of one pool need."""

    def __init__(self, parts: Sequence[Part], totals: Sequence[Work], machine: MachineType, rules: Rules) -> None:
        self.parts = parts
        self.totals = totals
        self.single = [part for part in parts if part.single]
        self.machine = machine
        self.rules = rules
        self.hours = len(parts[0].work)

    def host_hours(self) -> float | None:
        """Return the machine hours of a day, or None if no number of these machines is enough."""
        found: list[float] = []
        for hour in range(self.hours):
            hosts = self.hosts(hour)
            if hosts is None:
                return None
            found.append(hosts)
        return self._paid(found)

    def _paid(self, hosts: Sequence[float]) -> float:
        return sum(hosts) if self.rules.elastic else max(hosts) * DAY_H

    def least_price(self) -> float:
        """Return a price of a day below which it cannot be: found quickly, to leave out dear machines."""
        at_least = [self._at_least(hour) if self.rules.whole else 0 for hour in range(self.hours)]
        return self._paid(at_least) * self.machine.price_per_h

    def hosts(self, hour: int) -> float | None:
        """Return how many are enough at an hour of the parts."""
        if not self.rules.whole:
            return self._share(hour)
        if not self.fits(math.inf, hour):
            return None
        high = self._at_least(hour)
        low, step = high - 1, 1
        while not self.fits(high, hour):
            low, high, step = high, high + step, 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.fits(middle, hour) else (middle, high)
        return high

    def _at_least(self, hour: int) -> int:
        """Return a number below which it cannot be: processes need nothing there by being there."""
        rules, machine, spare = self.rules, self.machine, int(self.rules.spare)
        cores, gpus, memory = self.totals[hour]
        shares = [cores / machine.cpu, gpus / machine.gpu if gpus else 0.0]
        now = max(*(share / rules.target for share in shares), memory / (rules.memory * machine.memory_mb))
        after = max(share / rules.lost for share in shares) + spare
        least: int = math.ceil(max(now, after) - _ROUNDING)
        return max(1 + spare, least)

    def fits(self, hosts: float, hour: int) -> bool:
        """Return True if so many machines are enough, also without one of them."""
        rules = self.rules
        if not self._within(hosts, hour, rules.target, copies=2 if rules.spare else 1):
            return False
        return not rules.spare or self._within(hosts - 1, hour, rules.lost, copies=1)

    def _within(self, hosts: float, hour: int, limit: float, copies: int) -> bool:
        machine = self.machine
        mean = self.needs(hosts, hour, copies)
        memory = mean.memory_mb
        if self.single:
            on_one = self._on_one(hour, limit)
            if on_one is None:
                return False
            memory += on_one * (1 - copies / hosts)
        return (
            mean.cores <= limit * machine.cpu + _ROUNDING
            and mean.gpus <= limit * machine.gpu + _ROUNDING
            and memory <= self.rules.memory * machine.memory_mb + _ROUNDING
        )

    def _on_one(self, hour: int, limit: float) -> float | None:
        """Return the memory of parts that cannot be divided, on one machine, or None if it is too slow for them."""
        cores = sum(part.each[hour].cores for part in self.parts)
        memory = 0.0
        for part in self.single:
            work, most = part.work[hour], self.rules.single_cores.get(part.name, math.inf)
            if work.cores > limit * most + _ROUNDING:
                return None
            cores += work.cores
            memory += work.memory_mb
        return memory if cores <= limit * self.machine.cpu + _ROUNDING else None

    def needs(self, hosts: float, hour: int, copies: int) -> Work:
        """Return the mean over so many machines; `copies`: processes of a part that cannot be divided."""
        cores = gpus = memory = 0.0
        for part in self.parts:
            work_cores, work_gpus, work_memory = part.work[hour]
            each = part.each[hour]
            share = copies / hosts if part.single else 1 / hosts
            processes = self.processes(part, hosts, hour)
            cores += work_cores * share + each.cores * processes
            gpus += work_gpus * share
            memory += work_memory * share + each.memory_mb * processes
        return Work(cores, gpus, memory)

    def processes(self, part: Part, hosts: float, hour: int) -> int:
        """Return the processes of a part on one machine."""
        if part.single:
            return 1
        return max(1, math.ceil(part.work[hour].cores / hosts / self.rules.process_cores - _ROUNDING))

    def _share(self, hour: int) -> float | None:
        """Return machines as though parts of one could be had, and parts of a process as well."""
        rules, machine = self.rules, self.machine
        cores = gpus = memory = 0.0
        for part in self.parts:
            work, each = part.work[hour], part.each[hour]
            processes = work.cores / rules.process_cores
            cores += work.cores + each.cores * processes
            gpus += work.gpus
            memory += work.memory_mb + each.memory_mb * processes
        if gpus and not machine.gpus:
            return None
        on_gpus = gpus / (rules.target * machine.gpu) if gpus else 0.0
        return max(cores / (rules.target * machine.cpu), on_gpus, memory / (rules.memory * machine.memory_mb))

    def pool(self) -> Pool:
        """Return the pool, as it is at its busiest. It must be known that it fits."""
        sizes = [self.hosts(hour) or 0.0 for hour in range(self.hours)]
        hosts, hours = max(sizes), self.host_hours() or 0.0
        if not self.rules.whole:
            return Pool(self.machine, hosts, {}, Use(), hours)
        uses = [self._use(size if self.rules.elastic else hosts, hour) for hour, size in enumerate(sizes)]
        busiest = sizes.index(hosts)
        processes = {part.name: self._all_processes(part, hosts, busiest) for part in self.parts}
        return Pool(self.machine, hosts, processes, Use(*(max(column) for column in zip(*uses, strict=True))), hours)

    def _all_processes(self, part: Part, hosts: float, hour: int) -> int:
        if part.single:
            return 2 if self.rules.spare else 1
        return round(hosts) * self.processes(part, hosts, hour)

    def _use(self, hosts: float, hour: int) -> tuple[float, float, float, float, float]:
        machine, spare = self.machine, self.rules.spare
        now = self.needs(hosts, hour, copies=2 if spare else 1)
        after = self.needs(hosts - 1, hour, copies=1) if spare else now
        gpu = machine.gpu or math.inf
        now_used = now.cores / machine.cpu, now.gpus / gpu, now.memory_mb / machine.memory_mb
        return *now_used, after.cores / machine.cpu, after.gpus / gpu


class Search:
    """The cheapest fleet for parts. Pools are subsets of them, written as bits."""

    def __init__(self, parts: Iterable[Part], machines: Iterable[MachineType], rules: Rules) -> None:
        self.parts = tuple(parts)
        self.machines = tuple(machines)
        self.rules = rules

    @cached_property
    def _plain(self) -> tuple[MachineType, ...]:
        return tuple(_undominated(self.machines, gpus=False))

    @cached_property
    def _with_gpus(self) -> tuple[MachineType, ...]:
        return tuple(_undominated([machine for machine in self.machines if machine.gpus], gpus=True))

    def fleet(self) -> Fleet:
        """Return it. Raises `NoFleetError` that names the part that fits nowhere."""
        best: dict[int, tuple[float, tuple[Sizing, ...]]] = {0: (0.0, ())}
        pools = {subset: self._cheapest(subset) for subset in range(1, 1 << len(self.parts))}
        for subset in range(1, 1 << len(self.parts)):
            options = []
            for pool in _containing_lowest(subset):
                found, rest = pools[pool], best.get(subset & ~pool)
                if found is not None and rest is not None:
                    options.append((found[0] + rest[0], (found[1], *rest[1])))
            if options:
                best[subset] = min(options, key=lambda option: (option[0], len(option[1])))
        everything = best.get((1 << len(self.parts)) - 1)
        if everything is None:
            raise NoFleetError(" ".join(self._obstacles()))
        return Fleet(tuple(sizing.pool() for sizing in everything[1]))

    def _cheapest(self, subset: int) -> tuple[float, Sizing] | None:
        parts = [part for place, part in enumerate(self.parts) if subset >> place & 1]
        totals = [Work(*map(sum, zip(*hour, strict=True))) for hour in zip(*(part.work for part in parts), strict=True)]
        machines = self._with_gpus if any(work.gpus for work in totals) else self._plain
        best: tuple[float, Sizing] | None = None
        sizings = [Sizing(parts, totals, machine, self.rules) for machine in machines]
        for least, sizing in sorted(((each.least_price(), each) for each in sizings), key=itemgetter(0)):
            if best is not None and least >= best[0]:
                break
            hours = sizing.host_hours()
            if hours is not None and (best is None or hours * sizing.machine.price_per_h < best[0]):
                best = hours * sizing.machine.price_per_h, sizing
        return best

    def _obstacles(self) -> Iterator[str]:
        for place, part in enumerate(self.parts):
            if self._cheapest(1 << place) is not None:
                continue
            if any(work.gpus for work in part.work) and not self._with_gpus:
                yield f"{part.name} needs a GPU, and no machine of the price list has one."
            elif part.single:
                cores = max(work.cores for work in part.work)
                most = self.rules.single_cores.get(part.name, max(machine.cpu for machine in self.machines))
                yield (
                    f"{part.name} is one process and needs {cores:.1f} cores; it can use {most:g}, "
                    f"{self.rules.target:.0%} of them at most. Divide the site, or replace that part."
                )
            else:
                memory = max(each.memory_mb for each in part.each)
                yield f"A process of {part.name} ({memory:.0f} MB when idle) fits on no machine of the price list."


def _containing_lowest(subset: int) -> Iterator[int]:
    """Return the subsets of a subset that have its lowest bit, so that no partition comes twice."""
    lowest = subset & -subset
    rest = subset ^ lowest
    more = rest
    while True:
        yield lowest | more
        if not more:
            return
        more = (more - 1) & rest


def _undominated(machines: Sequence[MachineType], *, gpus: bool) -> Iterator[MachineType]:
    """Leave out machines that another one replaces: their fleets are never cheaper."""
    for place, machine in enumerate(machines):
        better = (
            other.replaces(machine, gpus=gpus) and (other_place < place or not machine.replaces(other, gpus=gpus))
            for other_place, other in enumerate(machines)
            if other_place != place
        )
        if not any(better):
            yield machine


def cheapest_fleet(parts: Iterable[Part], machines: Iterable[MachineType], rules: Rules) -> Fleet:
    """Return the cheapest fleet. Raises `NoFleetError`."""
    return Search(parts, machines, rules).fleet()
