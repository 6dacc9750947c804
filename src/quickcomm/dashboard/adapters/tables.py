"""The dashboard's tables, and how rows become records."""

from typing import Any, Final

import msgspec
import sqlalchemy as sa
import xxhash

from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.decisions import Decision
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.reading import reader
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.dialects import TEXT
from quickcomm.dashboard.model.records import Closing, ConversationRecord, Corrected, TaskRecord, UtteranceRecord
from quickcomm.kernel.erasing.tombstones import tombstones_table

Row = sa.Row[Any]

_meta = sa.MetaData()
heard_in = msgspec.json.Decoder(UtteranceTranscribed).decode
decided_in = reader(Decision).decode
found_in = reader(InsightsFound).decode  # a later release may have written it, and been taken back
_latency = msgspec.json.Decoder(Latency)
_corrected = msgspec.json.Decoder(Corrected)
_ledgers = msgspec.json.Decoder(tuple[Ledger, ...])
_rooms = msgspec.json.Decoder(tuple[str, ...])
# Nanoseconds are among the numbers, and PostgreSQL is told how wide each one is.
_TYPES: Final[dict[str, Any]] = {"blob": sa.LargeBinary, "int": sa.BigInteger, "bool": sa.Boolean, "float": sa.Double}


def _table(name: str, columns: str) -> sa.Table:
    """`columns`: names, each with its kind behind a colon where it is no string."""
    parts = (column.partition(":") for column in columns.split())
    return sa.Table(name, _meta, *(sa.Column(part[0], _TYPES.get(part[2], TEXT)) for part in parts))


changes = _table("dashboard_changes", "site change:int")
sides = _table("dashboard_side", "id")
conversations = _table(
    "dashboard_conversations",
    "id:int site conversation_id channel state sample_rate:int speakers:int started_ns:int ended_ns:int at_ns:int"
    " utterances:int last_spoken_ns:int ledgers:blob change:int"
    " summary summary_source summary_revision:int summary_ns:int continues interrupted_ns:int live_ns:int"
    " archived_ns:int archived_by",
)
utterances = _table(
    "dashboard_utterances",
    "id:int site utterance_id conversation_id channel spoken_ns:int heard:bool change:int transcript:blob found:blob"
    " receipt:blob painted_ms:float ended_ns:int copy_of corrected:blob",
)
tasks = _table(
    "dashboard_tasks",
    "id:int site task_id utterance_id insight_index:int channel status department urgency rooms:blob summary assignee"
    " created_ns:int acknowledged_ns:int completed_ns:int completed_by completed_by_utterance reopened_ns:int intent"
    " version:int",
)
rooms = _table("dashboard_rooms", "site kind room at_ns:int owner")
closings = _table(
    "dashboard_closings",
    "site closing_id utterance_id insight_index:int channel department rooms:blob at_ns:int task_id pinned:bool",
)
erased = tombstones_table("dashboard_erased")
decisions = _table("dashboard_decisions", "site subject utterance_id epoch:int version:int at_ns:int payload:blob")


def tag(kind: str, value: str) -> str:
    """A word for the full-text index that stands for a site, channel, conversation or department."""
    return f"{kind}{xxhash.xxh64_hexdigest(value.encode())}"


def utterance_record(row: Row) -> UtteranceRecord:
    return UtteranceRecord(
        site=row.site,
        utterance_id=row.utterance_id,
        conversation_id=row.conversation_id,
        heard=heard_in(row.transcript) if row.transcript else None,
        found=found_in(row.found) if row.found else None,
        receipt=_latency.decode(row.receipt) if row.receipt else Latency(),
        copy_of=row.copy_of,
        corrected=_corrected.decode(row.corrected) if row.corrected else None,
        change=row.change,
    )


def conversation_record(row: Row) -> ConversationRecord:
    values = row._asdict()
    del values["id"]
    values["ledgers"] = _ledgers.decode(values["ledgers"])
    return ConversationRecord(**values)


def task_record(row: Row) -> TaskRecord:
    """`row` may have more columns than the table."""
    named = row._mapping  # noqa: SLF001 - SQLAlchemy's own name for it
    values = {name: named[name] for name in TaskRecord.__struct_fields__}
    values["rooms"] = _rooms.decode(values["rooms"])
    return TaskRecord(**values)


def closing_record(row: Row) -> Closing:
    values = row._asdict()
    del values["closing_id"]
    values["rooms"] = _rooms.decode(values["rooms"])
    return Closing(**values)
