"""Pure comparison of what modules have: which ranges differ, which rows, and what each difference means."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from quickcomm.contracts.checking import ANSWERED, ENDED, TRANSCRIBED, Contents, Fault, Item, Key, Summary
from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.transcripts import TRANSCRIPTS

AUDIO: Final = "audio"
INTELLIGENCE: Final = "intelligence"
DASHBOARD: Final = "dashboard"
Kind = tuple[str, str]
"""A module, and what of its data."""
Sides = Mapping[str, Contents]
"""What each module that answers has in one range."""

_SAID: Final = (AUDIO, TRANSCRIBED)
_TOLD: Final = (AUDIO, ANSWERED)
_CARD: Final = (DASHBOARD, TRANSCRIBED)
_SHOWN: Final = (DASHBOARD, ANSWERED)
_RECORDED: Final = (INTELLIGENCE, ANSWERED)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, where, since when, by which event (`stream/group`), and what to do about it."""

    code: str
    site: str = ""
    id: str = ""
    """Of an utterance, a conversation or a message."""
    since_ns: int = 0
    event: str = ""
    detail: str = ""
    repair: str = ""

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What it has in common with what is found when one looks again."""
        return self.code, self.site, self.id, self.event

    @property
    def conversation_id(self) -> str:
        return self.id.split(":", 1)[0]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What is in all of `has` must be in one of `lacks`; `event` would have brought it there."""

    code: str
    has: tuple[Kind, ...]
    lacks: tuple[Kind, ...]
    event: str
    detail: str

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return (*self.has, *self.lacks)


RULES: Final = (
    Rule(
        code="card.missing",
        has=(_RECORDED,),
        lacks=(_CARD,),
        event=f"{TRANSCRIPTS}/dashboard",
        detail="answered by intelligence; the dashboard has no card",
    ),
    Rule(
        code="card.missing",
        has=(_SAID,),
        lacks=(_CARD,),
        event=f"{TRANSCRIPTS}/dashboard",
        detail="in the log of its conversation; the dashboard has no card",
    ),
    Rule(
        code="card.missing",
        has=(_SHOWN,),
        lacks=(_CARD,),
        event=f"{TRANSCRIPTS}/dashboard",
        detail="the dashboard has its insights and no transcript",
    ),
    Rule(
        code="insights.missing",
        has=(_RECORDED,),
        lacks=(_SHOWN,),
        event=f"{INSIGHTS}/dashboard",
        detail="answered by intelligence; the card shows no insights",
    ),
    Rule(
        code="insights.missing",
        has=(_CARD,),
        lacks=(_SHOWN, _RECORDED),
        event=f"{TRANSCRIPTS}/intelligence",
        detail="on the page; intelligence never answered",
    ),
    Rule(
        code="insights.unrecorded",
        has=(_SHOWN,),
        lacks=(_RECORDED,),
        event=INSIGHTS,
        detail="its card has insights; intelligence does not know that it answered",
    ),
    Rule(
        code="answer.missing",
        has=(_SAID, _RECORDED),
        lacks=(_TOLD,),
        event=f"{INSIGHTS}/audio",
        detail="answered by intelligence; the log of its conversation does not say so, nor does its client know",
    ),
    Rule(
        code="end.missing",
        has=((AUDIO, ENDED),),
        lacks=((DASHBOARD, ENDED),),
        event=f"{CONVERSATIONS}/dashboard",
        detail="the conversation has ended; the dashboard shows it as live",
    ),
)
DETAILS: Final = {
    "task.orphan": "there is no such utterance",
    "task.missing": "its insights open it; the dashboard has no such task",
    "decision.unfolded": "its record does not show what was decided",
    "copy.orphan": "which is not there",
    "recording.missing": "others of its conversation are kept; its sound is not",
    "ledger.unbalanced": "",
    "conversation.miscounted": "",
}


def differs(sides: Sides) -> bool:
    """Return True if a range has to be looked at row by row."""
    return any(not _is_satisfied(rule, sides) for rule in _applicable(sides)) or _differ(sides)


def compare(sides: Sides) -> list[Finding]:
    """Return what is wrong with a range, of which each side has told its items; of each thing one finding."""
    found: dict[Key, Finding] = {}
    for rule in _applicable(sides):
        for key, item in _lacking(rule, sides):
            finding = Finding(code=rule.code, site=key[0], id=key[1], since_ns=item.at_ns, event=rule.event)
            found.setdefault(key, msgspec.structs.replace(finding, detail=rule.detail))
    return [*found.values(), *_ledgers(sides), *(_of(fault) for each in sides.values() for fault in each.faults)]


def compare_copies(here: Contents, there: Contents) -> list[Finding]:
    """Return the rows that two dashboards do not have alike."""
    found = []
    for kind in here.kinds.keys() & there.kinds.keys():
        ours, theirs = _by_key(here, kind), _by_key(there, kind)
        for key in ours.keys() | theirs.keys():
            mine, other = ours.get(key), theirs.get(key)
            if mine is not None and other is not None and mine.digest == other.digest:
                continue
            what = "missing there" if other is None else "missing here" if mine is None else "not alike"
            since_ns = (mine or other or _NOTHING).at_ns
            code = f"{kind}.{'differ' if mine and other else 'missing'}"
            found.append(Finding(code=code, site=key[0], id=key[1], since_ns=since_ns, detail=what))
    return sorted(found, key=lambda each: each.name)


def digest_of(contents: Contents, finding: Finding) -> str:
    """Return the digest of what `compare_copies` has found to differ; empty where it is missing."""
    item = _by_key(contents, finding.code.partition(".")[0]).get((finding.site, finding.id))
    return "" if item is None else item.digest


def copies_differ(here: Contents, there: Contents) -> bool:
    return any(here.kinds[kind] != there.kinds[kind] for kind in here.kinds.keys() & there.kinds.keys())


# -- inside -----------------------------------------------------------------------------------------------------------

_NOTHING: Final = Item(site="", id="", digest="")


def _applicable(sides: Sides) -> Iterator[Rule]:
    """Yield the rules about modules that answer."""
    return (rule for rule in RULES if all(module in sides for module, _ in rule.kinds))


def _is_satisfied(rule: Rule, sides: Sides) -> bool:
    """Return True if sums alone show that nothing is missing."""
    has = [_sum(sides, kind) for kind in rule.has]
    lacks = [_sum(sides, kind) for kind in rule.lacks]
    return any(one.count == 0 or one in lacks for one in has)


def _sum(sides: Sides, kind: Kind) -> Summary:
    return sides[kind[0]].kinds.get(kind[1], Summary())


def _differ(sides: Sides) -> bool:
    """Return True if the ledgers of conversations that have ended on both sides may differ."""
    audio, dashboard = (sides.get(name, Contents()).kinds.get(ENDED, Summary()) for name in (AUDIO, DASHBOARD))
    return audio.count > 0 and dashboard.count > 0 and audio != dashboard


def _lacking(rule: Rule, sides: Sides) -> Iterator[tuple[Key, Item]]:
    first, *others = (_by_key(sides[module], kind) for module, kind in rule.has)
    lacks = [_by_key(sides[module], kind) for module, kind in rule.lacks]
    for key, item in first.items():
        if all(key in other for other in others) and not any(key in other for other in lacks):
            yield key, item


def _ledgers(sides: Sides) -> Iterator[Finding]:
    audio, dashboard = (_by_key(sides.get(name, Contents()), ENDED) for name in (AUDIO, DASHBOARD))
    for key, item in audio.items():
        if (shown := dashboard.get(key)) is not None and shown.digest != item.digest:
            yield Finding(
                code="ledger.differs",
                site=key[0],
                id=key[1],
                since_ns=item.at_ns,
                event=f"{CONVERSATIONS}/dashboard",
                detail="the dashboard has another ledger than audio",
            )


def _by_key(contents: Contents, kind: str) -> dict[Key, Item]:
    return {(item.site, item.id): item for item in contents.items.get(kind, ())}


def _of(fault: Fault) -> Finding:
    detail = ": ".join(part for part in (fault.detail, DETAILS.get(fault.code, "")) if part)
    return Finding(code=fault.code, site=fault.site, id=fault.id, since_ns=fault.at_ns, detail=detail)


def in_order(findings: Iterable[Finding]) -> Sequence[Finding]:
    """Return each finding once: the same thing may be in two ranges."""
    return sorted({each.name: each for each in findings}.values(), key=lambda each: (each.since_ns, each.name))
