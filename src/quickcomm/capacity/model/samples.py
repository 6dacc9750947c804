"""Samples of a site's metrics, and the steps made of them: rates and levels of all processes together.

What each name means: docs/should-we-split.md. A name that a site does not have is missing, and never taken for 0.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec
import numpy as np
from scipy.stats import rankdata

from quickcomm.kernel.errors import InvalidInputError

STEP_S: Final = 60.0
"""Samples nearer together are thinned out to this."""
GAP: Final = 2.5
"""So many steps without a sample of a process are a hole: no rate is made across it."""
ADDED: Final = frozenset({"memory_mb", "conversations", "pages"})
"""Levels of which each process has its share. Of the others the highest counts."""
OF_MACHINE: Final = frozenset({"cores", "machine_memory_mb", "machine_cpu", "gpus"})
"""What all processes of one machine say alike, and what is added over machines."""
OF_ONE: Final = frozenset({"loop", "database", "lag", "wakes"})
"""Rates of which each process has one: that of the fullest counts."""
KNOWN_HALF: Final = 0.5
Total = Annotated[float, msgspec.Meta(ge=0)]


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One process at one time. `at`, `started_at`: seconds since 1970.

    `totals` only rise as long as the process lives. `streams`: names of the streams of its release, such as
    `transcripts.v1`, where known.
    """

    at: float
    process: str
    module: str
    started_at: float
    machine: str = ""
    totals: dict[str, Total] = {}
    levels: dict[str, float] = {}
    streams: tuple[str, ...] = ()


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """`rates`: a second; so CPU is in cores. `levels`: at its end."""

    at: float
    rates: dict[str, float]
    levels: dict[str, float]


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """`talking`: conversations that were connected before."""

    module: str
    at: float
    talking: float | None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen of a site. `missing`: steps without figures. `ready`: by what a split needs, where known."""

    steps: tuple[Step, ...]
    missing: int
    hours: float
    modules: frozenset[str]
    machines: int
    restarts: tuple[Restart, ...]
    ready: dict[str, bool]
    contracts_changed: int | None

    def series(self, name: str, *, among: Sequence[bool] = ()) -> list[float] | None:
        """Return a rate or level at each step that has it; None where fewer than half of the steps do.

        `among`: only at these steps.
        """
        chosen = [step for at, step in enumerate(self.steps) if not among or among[at]]
        found = [value for step in chosen if (value := value_of(step, name)) is not None]
        return found if found and len(found) >= KNOWN_HALF * len(chosen) else None


def value_of(step: Step, name: str) -> float | None:
    return step.rates.get(name, step.levels.get(name))


def record(samples: Iterable[Sample]) -> Record:
    """Put samples of all processes together. Raises `InvalidInputError` where there are none."""
    ordered = sorted(samples, key=lambda each: each.at)
    if not ordered:
        raise InvalidInputError("There are no samples. Record some: quickcomm assess --for 10m --save FILE")
    by_process: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in ordered:
        of_process = by_process[sample.machine, sample.process]
        if not of_process or sample.at - of_process[-1].at >= 0.9 * STEP_S:
            of_process.append(sample)
    gaps = [after.at - before.at for each in by_process.values() for before, after in pairwise(each)]
    step_s = max(STEP_S, statistics.median(gaps)) if gaps else STEP_S
    modules = frozenset(each.module for each in ordered)
    steps, restarts = _steps(by_process.values(), step_s, modules)
    span_s = ordered[-1].at - ordered[0].at
    streams = [each.streams for each in ordered if each.streams and each.module == ordered[0].module]
    first = {name: value for each in reversed(ordered) for name, value in each.levels.items()}
    return Record(
        steps=steps,
        missing=max(0, round(span_s / step_s) - len(steps)),
        hours=span_s / 3_600,
        modules=modules,
        machines=len({each.machine for each in ordered}),
        restarts=restarts,
        ready={name.removeprefix("ready."): value > 0 for name, value in first.items() if name.startswith("ready.")},
        contracts_changed=sum(one != other for one, other in pairwise(streams)) if streams else None,
    )


def read_samples(content: bytes) -> list[Sample]:
    """Read JSON lines. Raises `InvalidInputError` with the line that is wrong."""
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            found.append(msgspec.json.decode(line, type=Sample))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"Line {number} is no sample: {error}. The format is in docs/should-we-split.md."
            ) from error
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation; None where one of both does not change."""
    if len(pairs) < 3:  # noqa: PLR2004 - two points lie on a line always
        return None
    ranks = np.asarray(rankdata(pairs, axis=0))
    if np.ptp(ranks, axis=0).min() == 0:
        return None
    return statistics.correlation(*ranks.T.tolist())


def ratio_spread(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return how much the ratio of both changes: its 90th percentile ÷ its 10th, where both are above 0."""
    ratios = [one / other for one, other in pairs if one > 0 and other > 0]
    return percentile(ratios, 0.9) / percentile(ratios, 0.1) if ratios else None


# -- inside -----------------------------------------------------------------------------------------------------------


def _steps(
    processes: Iterable[Sequence[Sample]], step_s: float, modules: frozenset[str]
) -> tuple[tuple[Step, ...], tuple[Restart, ...]]:
    """Return the steps in which every module has figures, and the restarts."""
    by_step: defaultdict[int, dict[tuple[str, str], tuple[Sample, dict[str, float]]]] = defaultdict(dict)
    restarts = []
    for before, after in (pair for samples in processes for pair in pairwise(samples)):
        if after.started_at > before.started_at + 1:
            talking = before.levels.get("conversations")
            restarts.append(Restart(module=after.module, at=after.at, talking=talking))
        elif after.at - before.at <= GAP * step_s:
            by_step[int(after.at // step_s)][after.machine, after.process] = after, _rates(before, after)
    steps = tuple(
        Step(
            at=at * step_s,
            rates=_together(
                [(sample.machine, rates) for sample, rates in found.values()], lambda name: name not in OF_ONE
            ),
            levels=_together([(sample.machine, sample.levels) for sample, _ in found.values()], ADDED.__contains__),
        )
        for at, found in sorted(by_step.items())
        if {sample.module for sample, _ in found.values()} == modules
    )
    return steps, tuple(sorted(restarts, key=lambda each: each.at))


def _rates(before: Sample, after: Sample) -> dict[str, float]:
    passed = after.at - before.at
    both = before.totals.keys() & after.totals.keys()
    return {name: max(0.0, after.totals[name] - before.totals[name]) / passed for name in both}


def _together(found: Iterable[tuple[str, dict[str, float]]], is_added: Callable[[str], bool]) -> dict[str, float]:
    """Add what is to be added, over processes or machines; of the rest take the highest."""
    by_name: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for machine, values in found:
        for name, value in values.items():
            by_name[name][machine].append(value)

    def one(name: str, by_machine: dict[str, list[float]]) -> float:
        if name in OF_MACHINE:
            return sum(max(values) for values in by_machine.values())
        return (sum if is_added(name) else max)(value for values in by_machine.values() for value in values)

    return {name: one(name, by_machine) for name, by_machine in by_name.items()}
