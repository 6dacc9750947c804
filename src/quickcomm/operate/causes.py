"""Why an utterance is late, wrong, or has no card: from what its receipt, the store and the processes tell.

Pure. Each cause names the process, its side of a migration, and the command that helps.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from quickcomm.apps import MODULES
from quickcomm.contracts.checking import Standing
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.routes import MONOLITH, SERVICE, place_of
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.checking.compare import Finding
from quickcomm.kernel.checking.repairs import REPLAY, Letter

PATH: Final = ((TRANSCRIPTS, "intelligence"), (TRANSCRIPTS, "dashboard"), (INSIGHTS, "dashboard"))
"""Stream and group of each message that a complete card needs."""
WHAT: Final = {TRANSCRIPTS: "transcript", INSIGHTS: "insights"}
SLOW_MS: Final = 150.0
SLOW_TIMES: Final = 5.0
"""The store answers a process slowly where it takes so long, and so many times as long as for the quickest one."""
NS: Final = 1_000_000_000
CATCHES_UP: Final = "It is being worked off: trace it again. Whether that goes on: quickcomm status"
Row = dict[str, Any]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an utterance beside its receipt. `rows`: of `quickcomm status`; none where nothing runs.

    `complete`: it has reached a page; `late`: a stage broke its budget.
    """

    complete: bool = False
    late: bool = False
    standing: Sequence[Standing] = ()
    letters: Sequence[Letter] = ()
    rows: Sequence[Row] = ()
    now_ns: int = 0


def causes(known: Known) -> list[Finding]:
    """Return what holds an utterance up, or has done so; the nearest cause first."""
    found = [*_letters(known)]
    if not known.complete:
        found += _full(known)
        found += [] if found else _waiting(known)
    if not known.complete or known.late:
        found += _slow_hops(known)
    return found


# -- dead letters -----------------------------------------------------------------------------------------------------


def _letters(known: Known) -> Iterator[Finding]:
    for letter in known.letters:
        message = f"Its {WHAT.get(letter.stream, 'message')} (dead letter {letter.id}, of {letter.stream})"
        yield Finding(
            code="dead_letter",
            since_ns=letter.at_ns,
            event=f"{letter.stream}/{letter.group}",
            detail=f"{message} could not be handled by {_whose(known, letter.group)}: {letter.reason}",
            repair=f"{REPLAY} {letter.id}, once the reason is gone; else: quickcomm dead-letters drop {letter.id}",
        )


# -- groups that do not read ------------------------------------------------------------------------------------------


def _full(known: Known) -> Iterator[Finding]:
    """Yield each full partition once for all groups that the same process is to read."""
    full = [each for each in known.standing if 0 < each.at_most <= each.count]
    first = {(each.stream, _repair(known, each.group)): each for each in reversed(full)}
    for each in full:
        if each not in first.values():
            continue
        publisher = next((module.name for module in MODULES if each.stream in module.publishes), "the publisher")
        yield Finding(
            code="partition.full",
            since_ns=each.oldest_ns,
            event=f"{each.stream}/{each.group}",
            detail=f"Publishing waits: partition {each.partition} of {each.stream} is full. {each.count} messages wait "
            f"there for {_whose(known, each.group)}, the first since {_time(each.oldest_ns)}. {publisher} keeps what "
            f"is said and publishes it when there is room. {_reading(known, each)}",
            repair=_repair(known, each.group),
        )


def _waiting(known: Known) -> Iterator[Finding]:
    for each in known.standing:
        base, _, suffix = each.group.partition("@")
        if not each.waits_since_ns or (each.stream, base) not in PATH:
            continue
        if each.side and base == "intelligence" and each.side != (suffix or MONOLITH):
            continue  # the other side is to answer it
        waits_s = max(0.0, (known.now_ns - each.waits_since_ns) / NS)
        behind = "nothing else waits there" if each.count == 1 else f"{each.count} messages wait there"
        is_read = each.reader != "" and all(row["healthy"] for row in _rows_of(known, each.group)) and known.rows
        yield Finding(
            code="group.waits",
            since_ns=each.waits_since_ns,
            event=f"{each.stream}/{each.group}",
            detail=f"Its {WHAT[each.stream]} waits for {_whose(known, each.group)} since {waits_s:.0f} s, in partition "
            f"{each.partition} of {each.stream}; {behind}. {_reading(known, each)}",
            repair=CATCHES_UP if is_read else _repair(known, each.group),
        )


def _reading(known: Known, standing: Standing) -> str:
    """Return who reads the partition, and which processes of the group do not answer."""
    rows = _rows_of(known, standing.group)
    ill = [row for row in rows if not row["healthy"]]
    if not known.rows:
        return "No process of the site runs."
    if not rows:
        return f"No process of group {standing.group} runs."
    pid = _pid(standing.reader)
    reader = next((row for row in rows if row["pid"] == pid), None)
    said = []
    if standing.reader == "":
        said.append(f"No process of group {standing.group} reads it.")
    elif reader is not None and reader["healthy"]:
        said.append(f"{_process(reader)} reads it.")
    said += [f"{_process(row)} {_ill(row)}." for row in ill]
    return " ".join(said)


def _ill(row: Row) -> str:
    """Return what is wrong with a process, in a clause."""
    alarms = row.get("alarms") or ()
    if alarms:
        return f"is unwell: {alarms[0]['message'].removesuffix('.')}"
    return "does not answer" if row["pid"] else "does not run"


def _repair(known: Known, group: str) -> str:
    rows = _rows_of(known, group)
    if not known.rows:
        return "quickcomm up"
    if not rows:
        return f"quickcomm scale {_module(group)}=1"
    ill = next((row for row in rows if not row["healthy"]), rows[0])
    if "process" not in ill:
        return "Stop the server and start it again: quickcomm serve"
    return f"quickcomm restart {ill['module']}"


# -- hops -------------------------------------------------------------------------------------------------------------


def _slow_hops(known: Known) -> Iterator[Finding]:
    taken = {id(row): float(row["store_ms"]) for row in known.rows if row.get("store_ms") is not None}
    if not taken:
        return
    quickest = min(taken.values())
    rows = [row for row in known.rows if taken.get(id(row), 0.0) >= SLOW_MS]
    if len(rows) == len(taken):
        every = f"The store takes {quickest:.0f} ms and more to answer every process"
        yield Finding(code="store.slow", detail=f"{every}.", repair="See the store: quickcomm status")
        return
    for row in rows:
        if taken[id(row)] < SLOW_TIMES * quickest:
            continue
        yield Finding(
            code="hop.slow",
            detail=f"The hop between the store and {_process(row)} is slow: an answer takes {taken[id(row)]:.0f} ms, "
            f"and {quickest:.0f} ms to the quickest process.",
            repair=f"See the network between them. If it is the process: quickcomm restart {row['module']}",
        )


# -- words ------------------------------------------------------------------------------------------------------------


def _side(row: Row) -> str:
    return MONOLITH if row["module"] == MONOLITH else SERVICE


def _process(row: Row) -> str:
    return f"{row.get('process', row['module'])} ({_side(row)} side, pid {row['pid']})"


def _module(group: str) -> str:
    base = group.partition("@")[0]
    return next((module.name for module in MODULES if any(base == each.name for each in module.consumes)), base)


def _rows_of(known: Known, group: str) -> list[Row]:
    """Return the processes that read as a group: those of its side, where its module moves."""
    module, suffix = _module(group), group.partition("@")[2]
    own = [row for row in known.rows if row["module"] == place_of(module, suffix)]
    monolith = [row for row in known.rows if row["module"] == MONOLITH]
    return own if suffix or not monolith else monolith


def _whose(known: Known, group: str) -> str:
    """Return the module of a group and its side."""
    is_monolith = "@" not in group and any(row["module"] == MONOLITH for row in known.rows)
    return f"{_module(group)} ({MONOLITH if is_monolith else SERVICE} side, group {group})"


def _pid(reader: str | None) -> int:
    """Return the process of a consumer, `host-pid-…`; 0 where there is none."""
    parts = (reader or "").rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0  # noqa: PLR2004 - host, pid, own


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / NS, UTC).strftime("%H:%M:%S UTC")


def of_utterance(letters: Iterable[Letter], conversation_id: str, utterance_id: str) -> list[Letter]:
    """Return the dead letters of an utterance; of a whole conversation, where none is given."""
    wanted = [each for each in letters if each.conversation_id == conversation_id]
    return [each for each in wanted if not utterance_id or each.utterance_id in ("", utterance_id)]
