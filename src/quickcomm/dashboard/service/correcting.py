"""Decides about corrected texts: one is proposed, put in force as the step of an operation, and taken back."""

from typing import Final

import msgspec

from quickcomm.contracts.correcting import Amended, AmendUtterance, RestoreUtterance
from quickcomm.contracts.decisions import Decision, TextDecision, text_subject
from quickcomm.contracts.saga import Undone
from quickcomm.dashboard.model.records import UtteranceRecord
from quickcomm.dashboard.service.decider import Decider
from quickcomm.kernel.errors import BusyError, ConflictError, NotFoundError
from quickcomm.kernel.saga import CompensatedError

MAX_TEXTS: Final = 50
"""Corrected texts of one utterance, with those that were taken back."""
_replace = msgspec.structs.replace


def propose(decider: Decider, site: str, utterance_id: str, text: str, by: str) -> int:
    """Keep a text that is to be put in the place of the heard one; return its number.

    The text that is proposed, or in force, keeps its number. Raises `NotFoundError` and `ConflictError`.
    """
    record = _correctable(decider, site, utterance_id)
    known = [one.what for one in decider.state.decisions_of(site, utterance_id)]
    texts = sorted((what for what in known if isinstance(what, TextDecision)), key=lambda what: what.number)
    alive = [what for what in texts if what.state != "taken_back"]
    if alive and alive[-1].text == text:
        return alive[-1].number
    if not alive and record.text == text:
        raise ConflictError("The utterance has this text already.")
    if len(texts) >= MAX_TEXTS:
        raise ConflictError(f"The utterance was corrected {MAX_TEXTS} times. It cannot be corrected any more.")
    number = texts[-1].number + 1 if texts else 1
    decider.by = by
    decider.decide(site, TextDecision(utterance_id=utterance_id, number=number, text=text))
    return number


def amend(decider: Decider, request: AmendUtterance) -> Amended:
    """Put a proposed text in force, once.

    Raises `NotFoundError` where the utterance is not there, `BusyError` until it has its insights, and
    `CompensatedError` where the text was taken back.
    """
    record = _correctable(decider, request.site, request.utterance_id)
    known, what = _text(decider, request)
    if what.state == "taken_back":
        raise CompensatedError("This correction was taken back.")
    if what.state == "in_force":
        return Amended(at_ns=known.at_ns)
    if not record.complete:
        raise BusyError("The utterance is not understood yet; try again in a moment.")
    decider.by = request.by
    decider.decide(request.site, _replace(what, state="in_force"))
    return Amended(at_ns=decider.now_ns)


def restore(decider: Decider, request: RestoreUtterance) -> Undone:
    """Take a text back, and refuse it from now on. What was erased has none."""
    if decider.projector.utterance(request.site, request.utterance_id) is None:
        return Undone()
    _, what = _text(decider, request)
    if what.state == "taken_back":
        return Undone()
    decider.by = request.by
    decider.decide(request.site, _replace(what, state="taken_back"))
    return Undone(found=what.state == "in_force")


def _correctable(decider: Decider, site: str, utterance_id: str) -> UtteranceRecord:
    record = decider.projector.utterance(site, utterance_id)
    if record is None or record.heard is None:
        raise NotFoundError(f"There is no utterance {utterance_id!r}.")
    if record.copy_of is not None:
        raise ConflictError(f"This is a copy of {record.copy_of!r}. Correct that one: the work is there.")
    return record


def _text(decider: Decider, request: AmendUtterance | RestoreUtterance) -> tuple[Decision, TextDecision]:
    known = decider.state.decision(request.site, text_subject(request.utterance_id, request.number))
    if known is None or not isinstance(known.what, TextDecision):
        raise BusyError("The corrected text is not here yet; try again in a moment.")
    return known, known.what
