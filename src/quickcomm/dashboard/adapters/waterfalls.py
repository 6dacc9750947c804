"""One utterance's way, from its stored receipt: for `quickcomm trace`, which needs no tracing backend."""

from collections.abc import Callable
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.insight import Source
from quickcomm.dashboard.adapters.tables import Row, changes, utterance_record, utterances
from quickcomm.dashboard.model.projections import own_latency
from quickcomm.dashboard.model.records import UtteranceRecord
from quickcomm.dashboard.model.views import rfc3339
from quickcomm.kernel.errors import InvalidInputError, NotFoundError
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry import Budget, trace_id_in
from quickcomm.kernel.telemetry.stages import Waterfall, waterfall

# Every site has a row in `changes`; the index of utterances begins with the site.
_FIND: Final = sa.select(utterances).where(
    utterances.c.site.in_(sa.select(changes.c.site)), utterances.c.utterance_id == sa.bindparam("utterance_id")
)


class Understood(msgspec.Struct, frozen=True, kw_only=True):
    """Who understood an utterance: a model, and the prompt version that it was asked with.

    `side`: that of its process, during a migration.
    """

    source: Source
    model: str
    prompt_version: str | None
    side: str = ""


class WaterfallView(msgspec.Struct, frozen=True, kw_only=True):
    """`trace_id`: of its trace in the backend, if one is connected and the trace was kept.

    `understood`: None where there are no insights.
    """

    site: str
    utterance_id: str
    conversation_id: str
    channel: str
    spoken_at: str | None
    trace_id: str | None
    understood: Understood | None
    waterfall: Waterfall


class Waterfalls:
    def __init__(self, database: Database, budget: Callable[[], Budget]) -> None:
        self._database = database
        self._budget = budget

    async def of(self, utterance_id: str, site: str | None = None) -> WaterfallView:
        """Raises `NotFoundError`, and `InvalidInputError` where several sites have one of that id."""

        def load(connection: Connection) -> list[Row]:
            found = connection.execute(_FIND, {"utterance_id": utterance_id}).all()
            return [row for row in found if site is None or row.site == site]

        rows = await self._database.read(load)
        if not rows:
            raise NotFoundError(
                f"There is no utterance {utterance_id!r}. Its id is on its card, and in GET /v1/utterances: "
                "conversation:speaker:offset."
            )
        if len(rows) > 1:
            sites = ", ".join(sorted(row.site for row in rows))
            raise InvalidInputError(f"Several sites have an utterance of that id: {sites}. Choose with --site.")
        return self._view(rows[0])

    def _view(self, row: Row) -> WaterfallView:
        record = utterance_record(row)
        heard = record.heard
        return WaterfallView(
            site=record.site,
            utterance_id=record.utterance_id,
            conversation_id=record.conversation_id,
            channel=heard.channel if heard else row.channel,
            spoken_at=rfc3339(heard.spoken_at_ns) if heard else None,
            trace_id=trace_id_in(heard.traceparent if heard else None),
            understood=understood_by(record),
            waterfall=_told_late(
                record, waterfall(own_latency(record), self._budget(), row.painted_ms, faults_of(record))
            ),
        )


def _told_late(record: UtteranceRecord, fall: Waterfall) -> Waterfall:
    if record.heard is None or not record.heard.late_ms:
        return fall
    late = f"Its sound came {record.heard.late_ms / 1e3:.0f} s late: the client could not reach the server."
    return msgspec.structs.replace(fall, verdict=f"{late} {fall.verdict}")


def understood_by(record: UtteranceRecord) -> Understood | None:
    """Return who found the insights; of several the one that was asked with a prompt."""
    insights = record.found.insights if record.found is not None else ()
    if not insights:
        return None
    first = next((each for each in insights if each.prompt_version is not None), insights[0])
    side = own_latency(record).served_by.get("intelligence", "")
    return Understood(source=first.source, model=first.model, prompt_version=first.prompt_version, side=side)


def faults_of(record: UtteranceRecord) -> dict[str, str]:
    """By stage, what it could not do, as the messages say."""
    faults = {}
    if record.heard is not None and record.heard.unintelligible:
        faults["stt"] = "failed again and again, and gave up: there is no text"
    if record.heard is not None and record.heard.held_up is not msgspec.UNSET:
        faults["publish"] = f"was tried again and again: {record.heard.held_up.removesuffix('.')}"
    if record.found is not None and any(insight.degraded for insight in record.found.insights):
        faults["classify"] = "got no answer from the language model: the local classifier stood in for it"
    return faults
