"""Says whether a site should stay as it is, be split, or go back. Pure: no clock, no files, no simulation.

The questions, in this order: was enough seen, is anything full, is it QuickComm that fills it, would a split help more
than a larger machine or a second copy, and is the team ready for it.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from quickcomm.capacity.model.findings import (
    DAY_H,
    MODULES,
    Finding,
    Limits,
    Look,
    copies,
    deploys,
    fullness,
    look,
    one_of_a_kind,
    others,
    scaling,
    waits,
)
from quickcomm.capacity.model.samples import Record

NEEDED: Final = {
    "tracing": "tracing: telemetry.otlp_url",
    "tokens": "keys by which services know each other: they come with quickcomm up",
    "backups": "a backup: quickcomm backup",
    "alerts": "a monitor that reads /metrics and calls somebody",
}
"""What a split needs, and how it is had."""
Advice = Literal["stay", "split", "keep", "go back", "not enough"]
_A_DAY: Final = "A day of samples: which loads scale together is seen in no less."


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`module`: the one to split off first. `would_change`: what would make it another verdict.

    `missing`: what is not known, and so was not used.
    """

    advice: Advice
    module: str = ""
    says: str
    findings: tuple[Finding, ...]
    would_change: tuple[str, ...]
    missing: tuple[str, ...]


def assess(record: Record, limits: Limits = Limits()) -> Verdict:  # noqa: B008 - frozen
    """Return the verdict on a monolith or on services."""
    seen = look(record, limits)
    first = _samples(seen)
    steps = len(record.steps)
    if (
        steps < limits.steps
        or record.missing > limits.missing * (record.missing + steps)
        or "cores" not in seen.resources
    ):
        says = "Not enough was seen to say anything."
        return _verdict(seen, "not enough", says, [first], [f"{limits.steps} minutes of samples at least. {_A_DAY}"])
    findings = [first, fullness(seen), *scaling(seen), *waits(seen)]
    if record.modules & set(MODULES):
        return _of_services(seen, findings)
    return _of_monolith(seen, [*findings, deploys(seen)])


# -- inside -----------------------------------------------------------------------------------------------------------


def _of_monolith(seen: Look, findings: list[Finding]) -> Verdict:
    names = _full(seen)
    if not seen.full:
        says = f"Stay one process: nothing is full. {_room(seen)}"
        words = ", ".join(each.words for each in seen.resources.values())
        return _verdict(seen, "stay", says, findings, [f"One of these above its limit for an hour a day: {words}."])
    if (taken := others(seen)) is not None:
        says = f"Stay one process: {names}, and other programs take much of that. Move them first."
        return _verdict(seen, "stay", says, [*findings, taken], ["It is still full without them."])
    if seen.full <= {"stt", "refused"}:
        says = f"Stay one process: {names}, while cores are free. Give speech-to-text more of them: stt.workers."
        return _verdict(seen, "stay", says, findings, ["The cores are full, too."])
    if (kind := one_of_a_kind(seen)) is not None:
        findings.append(kind)
    findings.append(copies(seen))
    reasons = sorted((each for each in findings if each.split), key=lambda each: _ORDER.index(each.rule))
    if not reasons:
        larger = "A second copy" if seen.before_cores else "A larger machine, or a second copy,"
        says = f"Stay one process: {names}. {larger} does as much as a split."
        if findings[-1].figures.get("saves", 0.0) > seen.limits.saves and not seen.grows:
            says = f"Stay one process, and give the model a machine of its own (llm.url): {names}. {findings[-1].says}"
        return _verdict(seen, "stay", says, findings, _reasons(seen.limits))
    first = reasons[0]
    if blocks := _blocks(seen):
        says = f"Stay one process for now; what is below comes first. Then split {first.split}. {first.says}"
        return _verdict(seen, "stay", says, findings, blocks)
    says = f"Split {first.split} first. {first.says}"
    return _verdict(seen, "split", says, findings, _reasons(seen.limits), first.split)


_ORDER: Final = ("copies", "waits", "deploys")
"""Reasons for a split: those that save most come first."""


def _of_services(seen: Look, findings: list[Finding]) -> Verdict:
    record, limits = seen.record, seen.limits
    if record.hours < limits.hours or not {"cores", "memory"} <= seen.resources.keys():
        says = "Keep the services: too little is known to go back."
        return _verdict(seen, "keep", says, findings, [_A_DAY])
    cores, memory = (seen.resources[name].used * record.machines for name in ("cores", "memory"))
    a_day = len(record.restarts) * DAY_H / max(record.hours, DAY_H)
    fits = max(cores, memory) <= limits.one_machine and not seen.full
    figures = {"cores": round(cores, 3), "memory": round(memory, 3), "restarts_a_day": round(a_day, 1)}
    says = f"At the busiest all processes fill {cores:.0%} of the cores and {memory:.0%} of the memory of one machine."
    findings.append(Finding(rule="one machine", says=says, figures=figures))
    if fits and a_day < 1:
        says = f"Go back to one process. {says} No module was deployed apart."
        change = [f"More than {limits.one_machine:.0%} of one machine.", "Deploys of single modules, each day."]
        return _verdict(seen, "go back", says, findings, change)
    why = "modules are deployed apart" if fits else "one machine would be too full"
    change = [f"Less than {limits.one_machine:.0%} of one machine, and fewer than one restart a day."]
    return _verdict(seen, "keep", f"Keep the services: {why}. {says}", findings, change)


def _verdict(
    seen: Look, advice: Advice, says: str, findings: Sequence[Finding], change: Sequence[str], module: str = ""
) -> Verdict:
    record = seen.record
    unknown = [*seen.missing, *(name for name in NEEDED if name not in record.ready)]
    if record.contracts_changed is None:
        unknown.append("whether contracts still change")
    if record.series("gpus") is None and any(step.rates.get("model") for step in record.steps):
        unknown.append("whether the machine has a GPU for the model: --gpus")
    return Verdict(
        advice=advice,
        module=module,
        says=says,
        findings=tuple(findings),
        would_change=tuple(change),
        missing=tuple(unknown),
    )


def _samples(seen: Look) -> Finding:
    record = seen.record
    steps, all_ = len(record.steps), len(record.steps) + record.missing
    says = f"{steps} of {all_} steps have figures, {record.missing} are missing; {record.hours:.1f} hours were seen."
    figures = {"steps": float(steps), "missing": float(record.missing), "hours": round(record.hours, 2)}
    return Finding(rule="samples", says=says, figures=figures)


def _full(seen: Look) -> str:
    """Name what is full; the cores once."""
    names = seen.full - {"machine"} if "cores" in seen.full else seen.full
    words = [each.words for name, each in seen.resources.items() if name in names]
    return f"too much of {', '.join(words)} is used"


def _room(seen: Look) -> str:
    """Say how much more there may be, by what grows in step with the load."""
    grows = [each for name in ("cores", "memory", "database") if (each := seen.resources.get(name)) and each.used > 0]
    if not grows:
        return "How much room there is, is not known."
    least = min(grows, key=lambda each: each.limit / each.used)
    return f"There is room for {least.limit / least.used:.1f} times the busiest hour ({least.words} comes first)."


def _reasons(limits: Limits) -> list[str]:
    return [
        "The event loop full before the cores are, where all must be on one page: a copy has a page of its own.",
        f"Services that save more, or less, than {limits.saves:.0%} of the price of whole copies.",
        "A module that is late while the one that takes the cores is in time, or no longer so.",
        f"More, or fewer, than {limits.restarts_a_day:g} restarts a day that cut conversations.",
    ]


def _blocks(seen: Look) -> list[str]:
    """Return what must be there before a split, and is known not to be."""
    blocks = [how for name, how in NEEDED.items() if seen.record.ready.get(name) is False]
    if seen.record.contracts_changed:
        blocks.append("Releases without changes to the streams between the modules.")
    if seen.record.hours < seen.limits.hours:
        blocks.append(_A_DAY)
    return blocks
