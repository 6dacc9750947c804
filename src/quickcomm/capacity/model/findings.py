"""The rules by which a site is judged: each looks at what was seen, and says what it found, with its figures.

Limits and reasons are in docs/should-we-split.md.
"""

import math
import statistics
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Final

import msgspec
import numpy as np
from scipy.optimize import nnls

from quickcomm.capacity.model.samples import Record, Step, percentile, rank_correlation, ratio_spread, value_of
from quickcomm.kernel.telemetry.stages import STAGES

MODULES: Final = ("audio", "intelligence", "dashboard")
SHARED: Final = "shared"
"""CPU that cannot be told apart: the event loop, the writer of the database."""
LOADS: Final = {"audio": ("speech",), "intelligence": ("utterances",), "dashboard": ("queries", "pages")}
"""By module, what its work grows with; the first that is known counts."""
BUSY: Final = 0.95
"""A resource is judged by this percentile of its minutes: for an hour a day it may be worse."""
DAY_H: Final = 24.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """From where on something counts. Shares, but for what says otherwise."""

    cores: float = 0.7
    memory: float = 0.85
    loop: float = 0.7
    """Of the one core that an event loop can have."""
    lag_s: float = 0.1
    database: float = 0.6
    first: float = 1.2
    """What is so much nearer to its limit than the cores are is full before them."""
    model: float = 0.8
    none_left: float = 0.95
    """Of the model's places; how many GPUs are needed is not seen then, and each copy is taken to need its own."""
    stage: float = 1.0
    """95th percentile of a stage ÷ its budget."""
    refused: float = 0.0
    """Conversations a minute."""
    other_programs: float = 0.3
    """Of the cores, taken by programs that are not QuickComm."""
    saves: float = 0.02
    """Of the price of copies of the monolith, by services instead."""
    gpu_in_each_copy: bool = False
    """Each copy of the monolith must have its own GPU. QuickComm's need not: they can ask one model over HTTP."""
    largest_cores: float = 16.0
    """A machine with fewer grows before it is copied: that needs no second GPU."""
    victim: float = 2.0
    """95th percentile of a stage ÷ its budget, from where on a machine of its own is worth it."""
    restarts_a_day: float = 3.0
    """That cut conversations."""
    one_machine: float = 0.5
    """Of the cores and memory of one machine. Lower than `cores`, so that a site does not go to and fro."""
    together: float = 0.7
    """A rank correlation."""
    spread: float = 3.0
    """By how much the ratio of two loads changes that scale together."""
    steps: int = 10
    missing: float = 0.5
    hours: float = 20.0
    gpu_in_cores: float = 20.0
    """A GPU costs as much as so many cores. For the sources of prices see docs/should-we-split.md."""
    gb_in_cores: float = 0.075
    gpu_host_cores: float = 3.0
    """What the machine around a GPU costs at least."""
    services_take: float = 1.05
    """CPU of services ÷ that of the monolith."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule saw. `split`: the module that it says to split off, if any."""

    rule: str
    says: str
    figures: dict[str, float] = {}
    split: str = ""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """`used`: in its busy minutes. `by_step`: None where it is not known."""

    name: str
    words: str
    limit: float
    by_step: tuple[float | None, ...]
    used: float

    @property
    def full(self) -> bool:
        return self.used > self.limit


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A record with what most rules ask of it. `tight`: whether something was full, by step."""

    record: Record
    limits: Limits
    resources: dict[str, Resource]
    missing: tuple[str, ...]
    tight: tuple[bool, ...]

    @property
    def full(self) -> frozenset[str]:
        return frozenset(name for name, each in self.resources.items() if each.full)

    @property
    def cores_full(self) -> bool:
        """Return True if QuickComm, or all programs together, take more of the cores than they should."""
        return bool({"cores", "machine"} & self.full)

    @property
    def grows(self) -> bool:
        """Return True where a larger machine would do instead of a further copy."""
        small = usual(self.record, "cores") < self.limits.largest_cores
        return self.record.machines == 1 and small and not self.before_cores

    @property
    def before_cores(self) -> tuple[Resource, ...]:
        """Return what a process has once, and is full before the cores are: more cores do not help it."""
        cores = self.resources.get("cores")
        if cores is None:
            return ()
        kinds = [self.resources[name] for name in ("loop", "database") if name in self.full]
        nearest = self.limits.first * cores.used / cores.limit
        return tuple(each for each in kinds if each.used / each.limit > nearest)

    @property
    def busiest(self) -> str:
        """Return the module that takes most of the cores while something is full; empty where that is not known."""
        known = {name: share for name in MODULES if (share := self.share_of(name)) is not None}
        return max(known, key=lambda name: known[name]) if known else ""

    def share_of(self, module: str) -> float | None:
        """Return a module's share of QuickComm's CPU while something is full, without what cannot be told apart."""
        cores = self.when_tight(_figure(f"cpu.{module}"))
        known = [value for name in MODULES if (value := self.when_tight(_figure(f"cpu.{name}"))) is not None]
        return None if cores is None or not sum(known) else cores / sum(known)

    def when_tight(self, figure: Callable[[Step], float | None], *, tight: bool = True) -> float | None:
        """Return the median of a figure while something was full, or (`tight` false) while nothing was."""
        steps = [step for step, was in zip(self.record.steps, self.tight, strict=True) if was == tight]
        found = [value for step in steps if (value := figure(step)) is not None]
        return statistics.median(found) if found and len(found) >= self.limits.missing * len(steps) else None


def usual(record: Record, name: str) -> float:
    """Return the median of a rate or level; 0 where it is not known."""
    found = record.series(name)
    return statistics.median(found) if found else 0.0


def look(record: Record, limits: Limits) -> Look:
    """Find what each resource came to, and when one was full."""
    found, missing = {}, []
    for name, (words, figure) in RESOURCES.items():
        by_step = tuple(figure(step) for step in record.steps)
        known = [value for value in by_step if value is not None]
        if not known or len(known) < limits.missing * len(by_step):
            missing.append(words)
            continue
        limit = getattr(limits, _LIMITS.get(name, name))
        found[name] = Resource(name=name, words=words, limit=limit, by_step=by_step, used=percentile(known, BUSY))
    missing += [f"load: {LOADS[module][0]}" for module in MODULES if _load(record, module) is None]
    if not usual(record, "gpus"):
        # A model elsewhere has no place on this machine that could be full.
        found.pop("model", None)
        missing = [each for each in missing if each != RESOURCES["model"][0]]
    full = [each for each in found.values() if each.full]
    tight = tuple(
        any((value := each.by_step[at]) is not None and value > each.limit for each in full)
        for at in range(len(record.steps))
    )
    return Look(record=record, limits=limits, resources=found, missing=tuple(missing), tight=tight)


# -- the rules --------------------------------------------------------------------------------------------------------


def fullness(seen: Look) -> Finding:
    """Say how full each resource is."""
    says = "; ".join(
        f"{each.words} {each.used:.2f} of {each.limit:g}{' — full' if each.full else ''}"
        for each in seen.resources.values()
    )
    return Finding(rule="full", says=f"{says}.", figures=_rounded({n: each.used for n, each in seen.resources.items()}))


def scaling(seen: Look) -> Iterator[Finding]:
    """Say which modules' loads grow together."""
    for one, other in combinations(MODULES, 2):
        names = _load(seen.record, one), _load(seen.record, other)
        if None in names:
            continue
        values = [tuple(value_of(step, str(name)) for name in names) for step in seen.record.steps]
        pairs = [(first, second) for first, second in values if first is not None and second is not None]
        rank, spread = rank_correlation(pairs), ratio_spread(pairs)
        if rank is None or spread is None:
            continue
        alike = rank >= seen.limits.together and spread <= seen.limits.spread
        says = (
            f"{one} and {other} {'scale together' if alike else 'do not scale together'}: "
            f"rank correlation {rank:.2f}, their ratio changes {spread:.1f}-fold."
        )
        yield Finding(rule="scaling", says=says, figures=_rounded({"correlation": rank, "spread": spread}))


def one_of_a_kind(seen: Look) -> Finding | None:
    """Say where more cores would not help: one event loop, or one writer of a database, has no time left.

    It is no reason by itself, for a second copy, on a machine with fewer cores, has another and costs no more.
    """
    if not seen.before_cores:
        return None
    first, cores = seen.before_cores[0], seen.resources["cores"]
    shares = _loop_by_module(seen) if first.name == "loop" else {}
    says = f"{first.words} is used to {first.used:.0%}, the cores to {cores.used:.0%}: a process has it once."
    if shares:
        says += f" It follows {max(shares, key=lambda name: shares[name])}."
    return Finding(rule="one of a kind", says=says, figures=_rounded({"used": first.used} | shares))


def copies(seen: Look) -> Finding:
    """Say what services would save where the next step is a further copy of the monolith, with all that it has.

    Copies carry a GPU each; services have as many as the model needs. Reckoned for one copy more, and for many, of
    which the worse counts: how many a site needs is not seen on a machine that is full.
    """
    limits, record = seen.limits, seen.record
    cores, gpus, memory_mb = (usual(record, name) / record.machines for name in ("cores", "gpus", "machine_memory_mb"))
    busy = seen.when_tight(RESOURCES["model"][1])
    if any(step.rates.get("model") for step in record.steps) and (
        record.series("gpus") is None or (gpus and busy is None)
    ):
        what = "How busy the model's GPU is" if gpus else "Whether each copy needs a GPU for the model"
        return Finding(rule="copies", says=f"{what} is not known, and so what a further copy leaves idle.")
    without = cores + limits.gb_in_cores * memory_mb / 1e3
    copy = without + limits.gpu_in_cores * gpus
    # Further copies bring cores and event loops back to their limits, and the GPUs of all copies are idle as much more.
    over = [each.used / each.limit for name in ("cores", "loop") if (each := seen.resources.get(name))]
    none_left = "model" in seen.full and seen.resources["model"].used >= limits.none_left
    busy = limits.model if none_left else (busy or 0.0) / max(1.0, *over)
    rest = 1 - (seen.share_of("intelligence") or 0.0)

    def saves(copies: float, machines: float) -> float:
        apart = machines * (limits.gpu_in_cores + limits.gpu_host_cores) if gpus else 0.0
        return 1 - (copies * without * limits.services_take * (rest if gpus else 1.0) + apart) / (copies * copy)

    few, needed = record.machines, gpus * busy / limits.model
    least = min(saves(few + 1, math.ceil(few * needed)), saves(1, needed))
    figures = _rounded({"saves": least, "gpu_busy": busy})
    if least <= limits.saves:
        return Finding(
            rule="copies", says="Further copies of the monolith cost no more than services.", figures=figures
        )
    says = f"Copies that each have a GPU leave it idle ({busy:.0%} busy): services cost {least:.0%} less."
    if seen.grows:
        return Finding(rule="copies", says=f"{says} But a machine of {cores:.0f} cores can grow.", figures=figures)
    if not limits.gpu_in_each_copy:
        says += " So do copies that ask one model on a machine of its own: llm.url."
        return Finding(rule="copies", says=says, figures=figures)
    return Finding(rule="copies", says=says, figures=figures, split="intelligence")


def waits(seen: Look) -> Iterator[Finding]:
    """Say which stages are late only while something is full, and who takes the cores then."""
    limit, busiest = seen.limits.stage, seen.busiest or "others"
    tight = {each.name: seen.when_tight(_used(each.name)) for each in STAGES}
    own = [value for each in STAGES if each.module == busiest and (value := tight[each.name]) is not None]
    late = seen.before_cores or {"stt", "refused"} & seen.full
    in_time = bool(own) and max(own) <= limit and not late
    for stage in STAGES:
        when_full, else_ = tight[stage.name], seen.when_tight(_used(stage.name), tight=False)
        if when_full is None or else_ is None or when_full <= limit or else_ > limit:
            continue
        victim = (
            in_time
            and stage.module != busiest
            and when_full > seen.limits.victim
            and seen.cores_full
            and not seen.grows
        )
        cause = seen.before_cores[0].words if seen.before_cores else f"cores that {busiest} takes"
        says = f"{stage.words} ({stage.module}) waits for {cause}" + (
            f", and {busiest} is in time: {stage.module} needs a small machine, not a copy of all." if victim else "."
        )
        figures = _rounded({"used_when_full": when_full, "used_else": else_})
        yield Finding(rule="waits", says=says, figures=figures, split=stage.module if victim else "")


def deploys(seen: Look) -> Finding:
    """Say how often a restart cut conversations. It is a reason only where a second machine is needed anyway."""
    restarts = seen.record.restarts
    cut = sum(bool(each.talking) for each in restarts)
    a_day = cut * DAY_H / max(seen.record.hours, DAY_H)
    says = f"{len(restarts)} restarts were seen; {cut} of them cut conversations."
    coupled = seen.cores_full and a_day > seen.limits.restarts_a_day
    if coupled:
        says += " Every deploy stops every module, and a second machine is needed anyway."
    figures = {"restarts": float(len(restarts)), "cut": float(cut)}
    return Finding(rule="deploys", says=says, figures=figures, split="dashboard" if coupled else "")


def others(seen: Look) -> Finding | None:
    """Say where programs that are not QuickComm take much of the machine."""
    whole, ours = seen.when_tight(RESOURCES["machine"][1]), seen.when_tight(RESOURCES["cores"][1])
    if whole is None or ours is None or whole - ours <= seen.limits.other_programs:
        return None
    says = f"Other programs take {whole - ours:.0%} of the cores while something is full, QuickComm {ours:.0%}."
    return Finding(rule="other programs", says=says, figures=_rounded({"others": whole - ours, "ours": ours}))


# -- inside -----------------------------------------------------------------------------------------------------------


def _figure(name: str) -> Callable[[Step], float | None]:
    return lambda step: value_of(step, name)


def _used(stage: str) -> Callable[[Step], float | None]:
    return _figure(f"used.{stage}")


def _ratio(over: str, under: str) -> Callable[[Step], float | None]:
    def figure(step: Step) -> float | None:
        above, below = value_of(step, over), value_of(step, under)
        return above / below if above is not None and below else None

    return figure


def _cores(step: Step) -> float | None:
    taken = [step.rates[name] for name in (f"cpu.{each}" for each in (*MODULES, SHARED)) if name in step.rates]
    cores = step.levels.get("cores")
    return sum(taken) / cores if taken and cores else None


def _refused(step: Step) -> float | None:
    refused = step.rates.get("refused")
    return None if refused is None else 60 * refused


RESOURCES: Final[dict[str, tuple[str, Callable[[Step], float | None]]]] = {
    "cores": ("QuickComm's cores", _cores),
    "machine": ("all cores", _ratio("machine_cpu", "cores")),
    "memory": ("memory", _ratio("memory_mb", "machine_memory_mb")),
    "loop": ("the event loop's core", _figure("loop")),
    "lag": ("the event loop's lag in seconds", _ratio("lag", "wakes")),
    "database": ("the database's writer", _figure("database")),
    "model": ("the language model", _ratio("model", "model_slots")),
    "stt": ("speech-to-text's budget", _used("stt")),
    "refused": ("conversations turned away a minute", _refused),
}
_LIMITS: Final = {"machine": "cores", "lag": "lag_s", "stt": "stage"}
"""Where a limit has another name than its resource."""


def _loop_by_module(seen: Look) -> dict[str, float]:
    """Return the share of the event loop's work that follows the load of audio, and that of the dashboard.

    Non-negative least squares over the steps (Lawson and Hanson 1974). Empty where the loads are not known.
    """
    names = {"speech": "audio", "conversations": "audio", "queries": "dashboard", "pages": "dashboard"}
    rows = [[value_of(step, name) for name in ("loop", *names)] for step in seen.record.steps]
    known = np.array([row for row in rows if None not in row], dtype=float)
    if len(known) <= len(names):
        return {}
    parts = nnls(known[:, 1:], known[:, 0])[0] * known[:, 1:].mean(axis=0)
    if not parts.sum():
        return {}
    return {
        module: float(sum(part for part, of in zip(parts, names.values(), strict=True) if of == module) / parts.sum())
        for module in ("audio", "dashboard")
    }


def _load(record: Record, module: str) -> str | None:
    return next((name for name in LOADS[module] if record.series(name) is not None), None)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}
