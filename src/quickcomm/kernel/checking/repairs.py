"""What to do about a finding."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.checking.compare import Finding

DEAD_LETTER: Final = "dead_letter"
REPAIR: Final = "quickcomm check --repair"
UNANSWERED: Final = f"{TRANSCRIPTS}/intelligence"
REPLAY: Final = "quickcomm dead-letters replay"
_BACKUP: Final = "No message is left that would bring it: put it back from a backup (docs/backup.md)."
REPAIRS: Final = {
    "backlog.stuck": "See which process is unwell: quickcomm status. Then: quickcomm restart MODULE",
    "card.missing": _BACKUP,
    "insights.missing": "Read its text on the page and act on it: it counts as answered, and is not classified again.",
    "insights.unrecorded": "Nothing is lost: its card is complete.",
    "answer.missing": "Nothing is lost on the page; its client may ask GET /v1/utterances/{id}.",
    "end.missing": "Nothing is lost; the page forgets it with the retention.",
    "task.missing": "Read its text on the page and act on it.",
    "task.orphan": "Complete it on the page. Its utterance may be in a backup (docs/backup.md).",
    "decision.unfolded": "Change the task on the page again; a newer decision stands.",
    "copy.orphan": _BACKUP,
    "erased.present": "Erase it again: quickcomm erase again",
    "ledger.differs": "`quickcomm ledger` has the right one.",
    "ledger.unbalanced": "Sound was lost or counted twice: keep the log and report it.",
    "conversation.miscounted": "A message was applied twice, or not at all: keep the log and report it.",
    "recording.missing": "The log says why: recording.failed.",
}


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter, as `ListDeadLetters` gives it."""

    id: int
    stream: str
    group: str
    conversation_id: str
    reason: str
    at_ns: int = 0
    utterance_id: str = ""
    """Empty where the message does not say."""


def with_repairs(findings: Iterable[Finding], letters: Sequence[Letter]) -> tuple[Finding, ...]:
    """Name the dead letter that a finding may come from, else what else can be done."""
    by_place: dict[tuple[str, str], list[int]] = {}
    for letter in letters:
        by_place.setdefault((f"{letter.stream}/{letter.group}", letter.conversation_id), []).append(letter.id)

    def repair(finding: Finding) -> str:
        found = by_place.get((finding.event, finding.conversation_id), [])
        if found:
            return "; ".join(f"{REPLAY} {number}" for number in found)
        return f"{REPAIR} has it classified" if may_be_answered(finding) else REPAIRS.get(finding.code, "")

    return tuple(msgspec.structs.replace(each, repair=repair(each)) for each in findings)


def may_be_answered(finding: Finding) -> bool:
    """Return True if its transcript, published again, brings what is missing."""
    return finding.code == "insights.missing" and finding.event == UNANSWERED


def of_letters(letters: Iterable[Letter]) -> list[Finding]:
    """Return a finding for each dead letter."""
    return [
        Finding(
            code=DEAD_LETTER,
            id=letter.conversation_id,
            since_ns=letter.at_ns,
            event=f"{letter.stream}/{letter.group}",
            detail=f"message {letter.id} could not be handled: {letter.reason}",
            repair=f"{REPLAY} {letter.id}",
        )
        for letter in letters
    ]
