"""How a migration is told on the terminal: each module with its gate, what both sides make, and the audit."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from quickcomm.contracts.evidence import Difference, Spending
from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.migration import (
    Hearings,
    MigrationEntry,
    MigrationStatus,
    ModuleMigration,
    Understandings,
    with_decider,
)
from quickcomm.contracts.routes import release_of

PER_CENT: Final = BUCKETS // 100
NS: Final = 10**9
MAX_SHOWN: Final = 5
"""Differences; all are in the answer with --json."""


def lines(status: MigrationStatus) -> Iterator[str]:
    """Yield what people read."""
    for module in status.modules:
        yield from _module(module)
    if status.followers is None:
        yield f"Routes: version {status.version}. The store does not answer; all keep the routes that they have."
    elif status.behind:
        yield f"Routes: version {status.version}, not in force yet: {', '.join(status.behind)} behind."
    else:
        yield f"Routes: version {status.version}, in force everywhere."
    for name, version in sorted((status.followers or {}).items()):
        yield f"    {name}: version {version}"
    if status.audit:
        yield "Last changes:"
    for entry in status.audit:
        yield f"    {_entry(entry)}"


def _module(module: ModuleMigration) -> Iterator[str]:
    flags = [f"goal: {module.goal}"]
    flags += ["paused"] if module.paused else ["auto"] if module.auto else []
    reached = with_decider(stage(module.mode, module.weight), module.name, module.decides)
    yield f"{module.name}: {reached} ({', '.join(flags)})"
    if release_of(module.candidate):
        yield f"    {module.candidate}, beside {module.base}"
    if module.since_ns:
        yield f"    since {time_of(module.since_ns)}{f': {module.why}' if module.why else ''}"
    if module.change:
        yield f"    {module.change}: {module.phase}"
    if module.problem:
        yield f"    PROBLEM: {module.problem}"
    for each in module.overrides:
        said = f" ({each.by}{f': {each.why}' if each.why else ''})"
        yield f"    override: {each.kind} {each.of} to the {each.side}{said}"
    if module.gate is not None:
        bake = f", bakes for {module.bake_left_s:.0f} s more" if module.bake_left_s else ""
        yield f"    gate: {module.gate}{bake}"
    for figure in module.figures:
        soon = f", in about {figure.in_s:.0f} s" if figure.in_s is not None else ""
        yield f"        {figure.outcome:6} {figure.name}: {figure.detail}{soon}"
    if module.understood is not None:
        yield from _understood(module.understood)
    if module.heard is not None:
        yield from _heard(module.heard)


def _understood(found: Understandings) -> Iterator[str]:
    """Yield how both sides understood the same utterances."""
    yield f"    understood on both sides: {found.alike} of {found.compared} alike"
    if found.compared:
        yield f"        {', '.join(f'{field.name} {field.alike} of {field.of}' for field in found.fields)}"
    for side in found.sides:
        if side.p50_ms is not None and side.p95_ms is not None:
            times = f"half within {side.p50_ms:.0f} ms, 95 % within {side.p95_ms:.0f} ms"
            yield f"        {side.side}: {times}, of {side.samples}"
        for what, spent in (("served", side.served), ("in the shadow", side.shadow)):
            if spent.calls:
                yield f"        {side.side} {what}: {_spent(spent)}"
    left_out = (
        ("without an answer", found.unanswered),
        ("not served", found.unserved),
        ("served without the model", found.degraded),
        ("left out", found.shed),
    )
    if any(count for _, count in left_out):
        yield f"        {', '.join(f'{count} {what}' for what, count in left_out if count)}"
    yield from _differences(found.differences)


def _heard(found: Hearings) -> Iterator[str]:
    """Yield how both sides heard the same conversations."""
    of = f"{found.words} words in {found.utterances} utterances"
    yield f"    heard on both sides: {of}, {found.wrong} words otherwise, {found.missed} missed, {found.extra} too many"
    if found.start_p95_ms is not None and found.end_p95_ms is not None:
        apart = f"begin within {found.start_p95_ms:.0f} ms, end within {found.end_p95_ms:.0f} ms of each other"
        yield f"        95 % {apart}"
    left_out = ((found.shed, "left out"), (found.lost, "broken off"))
    if any(count for count, _ in left_out):
        yield f"        {', '.join(f'{count} {what}' for count, what in left_out if count)}"
    yield from _differences(found.differences)


def _differences(found: Sequence[Difference]) -> Iterator[str]:
    for each in found[:MAX_SHOWN]:
        where = f"{each.utterance_id} in {', '.join(each.fields)}"
        yield f"        differs: {where} ({time_of(each.at_ns)}, shadow: {each.by})"


def _spent(spent: Spending) -> str:
    tokens = f"{spent.prompt_tokens} + {spent.completion_tokens} tokens"
    cost = f", cost {spent.cost:.4f}" if spent.cost else ""
    return f"{spent.answers} answers, {spent.calls} calls, {tokens}{cost}"


def _entry(entry: MigrationEntry) -> str:
    why = f" ({entry.why})" if entry.why else ""
    return f"{time_of(entry.at_ns)} {entry.who}: {entry.name} {entry.action}, {entry.before} → {entry.after}{why}"


def stage(mode: str, weight: int) -> str:
    return f"{mode} {weight / PER_CENT:g} %" if mode == "canary" else mode


def time_of(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
