"""Start corrections, and give intelligence the corrected text; the words are in decisions alone."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.correcting import MAX_TEXT, Correction, CorrectUtterance, ReadCorrection
from quickcomm.contracts.decisions import TextDecision, text_subject
from quickcomm.contracts.operations import StartOperation
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.adapters.tables import utterance_record, utterances
from quickcomm.dashboard.ports import NotDecidingError
from quickcomm.dashboard.service.correcting import propose
from quickcomm.dashboard.service.service import DashboardService
from quickcomm.kernel.errors import BusyError, InvalidInputError, NotFoundError
from quickcomm.kernel.messaging.rpc import Answer, NotOwnerError, Rpc
from quickcomm.kernel.saga import CompensatedError
from quickcomm.kernel.storage import Database

EARLIER: Final = 4
"""For each utterance of context, so many are looked at: some have no text that can be relied on."""


def correcting_answers(service: DashboardService, database: Database, rpc: Rpc) -> list[Answer]:
    """Return who answers. `rpc`: by which operations are started."""

    async def correct(request: CorrectUtterance) -> Any:
        text = _plain(request.text)
        try:
            number = await service.decide(
                lambda decider: propose(decider, request.site, request.utterance_id, text, request.by)
            )
        except NotDecidingError as error:
            raise NotOwnerError(str(error)) from error
        given = {"utterance_id": request.utterance_id, "number": number}
        return await rpc.call(StartOperation(operation="correct", site=request.site, by=request.by, given=given))

    async def read(request: ReadCorrection) -> Correction:
        if not service.decides:
            raise NotOwnerError("The other side decides for this site now.")
        return await database.read(lambda connection: _read(connection, request))

    return [(CorrectUtterance, correct), (ReadCorrection, read)]


def _plain(text: str) -> str:
    """Return a text in one line. Raises `InvalidInputError`."""
    plain = " ".join(text.split())
    if not plain or len(plain) > MAX_TEXT or not plain.isprintable():
        raise InvalidInputError(f"`text` must have 1 to {MAX_TEXT} printable characters.")
    return plain


def _read(connection: Connection, request: ReadCorrection) -> Correction:
    state = SqlState(connection)
    record = state.utterance(request.site, request.utterance_id)
    if record is None or record.heard is None:
        raise NotFoundError(f"There is no utterance {request.utterance_id!r}.")
    known = state.decision(request.site, text_subject(request.utterance_id, request.number))
    if known is None or not isinstance(known.what, TextDecision) or record.found is None:
        raise BusyError("The corrected text is not here yet; try again in a moment.")
    if known.what.state == "taken_back":
        raise CompensatedError("This correction was taken back.")
    context = _said_before(connection, record.heard, request.context)
    return Correction(text=known.what.text, channel=record.heard.channel, context=context, found=record.found)


def _said_before(connection: Connection, heard: UtteranceTranscribed, count: int) -> tuple[str, ...]:
    """Return what was said before on the channel, as it stands now, the oldest first."""
    row = utterances.c
    query = (
        sa.select(utterances)
        .where(row.site == heard.site, row.heard, row.channel == heard.channel, row.spoken_ns < heard.spoken_at_ns)
        .order_by(row.spoken_ns.desc(), row.id.desc())
        .limit(count * EARLIER)
    )
    records = [utterance_record(each) for each in connection.execute(query)]
    texts = [each.text for each in records if each.corrected or (each.heard is not None and each.heard.status == "ok")]
    return tuple(reversed(texts[:count]))
