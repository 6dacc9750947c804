"""What processes tell each other, one of each: to be written down at a release, and read by the next one.

`python -m tests.support.messages` writes them to `tests/data/messages/VERSION`, each with the schema that this release
reads by. Do it when a release is made, and delete those that are older than the one before.
"""

from pathlib import Path
from typing import Any, Final

import msgspec
from tests.support.talking import spoken

from quickcomm import __version__
from quickcomm.audio.model.checkpoint import Checkpoint, FrontEndState
from quickcomm.audio.model.segmenter import SegmenterState
from quickcomm.contracts.backfill import BackfillPage, BackfillTotal, checksum, encoded
from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged, GetLiveLedgers, Ledger, Ledgers
from quickcomm.contracts.health import Alarm, ClassifierHealth, MetricsText, ReadMetrics
from quickcomm.contracts.insight import Evidence, Insight, Item
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.link import (
    FIRST,
    Captioned,
    Committed,
    FellBehind,
    InstanceStatus,
    KeepTrace,
    Receipt,
    Room,
    ServedText,
    SoundCopy,
    Watching,
)
from quickcomm.contracts.narrative import Narrate, Narrated
from quickcomm.contracts.prompts import (
    GetPrompts,
    PromptComparison,
    PromptEvent,
    PromptInfo,
    PromptInForce,
    PromptNumbers,
    PromptsView,
)
from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed, Word
from quickcomm.contracts.usage import Cap, ConversationUsage, DayUsage, GetUsage, UsageReport
from quickcomm.kernel.discovery import Instance
from quickcomm.kernel.keys.port import Key
from quickcomm.kernel.keys.redis import Session
from quickcomm.kernel.messaging.bus.redis_consumer import Letter

FOLDER: Final = Path(__file__).parents[1] / "data" / "messages"
AT_NS: Final = 1_760_000_000_000_000_000
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SINCE: Final = "2026-01-01T08:00:00Z"

Json = dict[str, Any]
Message = msgspec.Struct


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: the name of the message's type. `messages`: some with everything in them, some with the least."""

    kind: str
    messages: tuple[Json, ...]
    schema: Json


TRANSCRIPT: Final = UtteranceTranscribed(
    site="main",
    conversation_id="shift-1",
    utterance_id="shift-1:0:16000",
    channel="housekeeping",
    speaker=0,
    seq=3,
    start_offset=16_000,
    end_offset=48_000,
    sample_rate=16_000,
    text="Two towels to 412, please.",
    words=(Word(text="towels", start_offset=20_000, end_offset=26_000, confidence=0.97),),
    confidence=0.94,
    stt_model="tiny.en",
    spoken_at_ns=AT_NS,
    speech_ended_ns=AT_NS + 2_000_000_000,
    published_ns=AT_NS + 2_400_000_000,
    latency=Latency(endpoint=512.0, stt=140.0, publish=3.5),
    traceparent=TRACE,
)
INSIGHT: Final = Insight(
    index=0,
    revision=2,
    intent="request_item",
    department="housekeeping",
    urgency="high",
    rooms=("412",),
    unverified=("412",),
    items=(Item(name="towels", quantity=2),),
    summary="Bring towels to 412",
    confidence=0.91,
    source="llm",
    degraded=True,
    prompt_version="p-1",
    model="qwen",
    evidence=Evidence(rooms=("412",), items=("Two towels",), urgency=("please",)),
)
FOUND: Final = InsightsFound(
    site="main",
    conversation_id="shift-1",
    utterance_id="shift-1:0:16000",
    revision=2,
    insights=(INSIGHT,),
    opens_tasks=(0,),
    speech_ended_ns=AT_NS + 2_000_000_000,
    published_ns=AT_NS + 2_600_000_000,
    latency=Latency(queue=4.0, classify=180.0),
    traceparent=TRACE,
)
LITTLE: Final = Insight(
    index=0, intent="chatter", department="none", urgency="low", summary="", confidence=0.5, model="local"
)
CHANGED: Final = ConversationChanged(
    site="main",
    conversation_id="shift-1",
    channel="housekeeping",
    state="expired",
    sample_rate=16_000,
    speakers=2,
    ledgers=(Ledger(received=10, speech=6, silence=3, gap=1), Ledger()),
    at_ns=AT_NS,
    reason="nobody came back",
)
STATUS: Final = InstanceStatus(
    sessions=3,
    stt_backlog_s=1.5,
    alarms=(Alarm(code="bus.unavailable", message="The store does not answer.", since=SINCE),),
    classifier=ClassifierHealth(
        model="local", source="local", degraded=True, state="degraded", message="The model is away.", since=SINCE
    ),
    budget={"stt": 400.0},
    trace_url="https://traces.example/{trace_id}",
)
CAPTION: Final = Caption(
    site="main", conversation_id="shift-1", channel="housekeeping", speaker=0, start_offset=16_000, text="two towels"
)
BEHIND: Final = Behind(site="main", conversation_id="shift-1", channel="housekeeping", behind_ms=7_200)
SAID: Final = "shift-1:0:16000"
NUMBERS: Final = PromptNumbers(
    cases=100,
    failed=1,
    score=0.9,
    intent=0.9,
    department=0.9,
    urgency=0.9,
    rooms=0.9,
    items=0.9,
    dangers=10,
    dangers_missed=0,
    calibration_error=0.05,
    latency_p50_ms=800.0,
    latency_p95_ms=1_900.0,
    prompt_tokens=100_000,
    completion_tokens=9_000,
    cost=0.25,
)
PROMPT: Final = PromptInfo(id="p-1", name="hotel.toml", note="Shorter.", added_at=SINCE, added_by="Ada")
EVENT: Final = PromptEvent(
    at=SINCE,
    by="Ada",
    action="deployed",
    prompt_id="p-1",
    name="hotel.toml",
    against_id="p-0",
    weight=100,
    forced=True,
    note="Looks well.",
    evidence=PromptComparison(
        against_id="p-0",
        set_id="s-1",
        set_name="phrases",
        model="qwen",
        candidate=NUMBERS,
        live=NUMBERS,
        falls_below=("rooms",),
    ),
)
PROMPTS: Final = PromptsView(
    connected=True,
    model="qwen",
    problem="It cannot be read.",
    live=PromptInForce(prompt=PROMPT, weight=90, event=EVENT),
    canary=PromptInForce(prompt=PROMPT, weight=10),
    versions=(PROMPT,),
    events=(EVENT,),
)
DAY: Final = DayUsage(day="2026-01-01", calls=7, prompt_tokens=700, completion_tokens=70, cost=0.01)
USAGE: Final = UsageReport(
    state="near",
    currency="EUR",
    time_zone="Europe/Vienna",
    cap=Cap(cost=1.0, tokens=1_000, resets_at=SINCE),
    today=DAY,
    days=(DAY,),
    conversations=(ConversationUsage(conversation_id="shift-1", calls=7, cost=0.01, last_call_at=SINCE),),
)
SUMMARY: Final = ConversationSummarized(
    site="main",
    conversation_id="shift-1",
    channel="housekeeping",
    revision=2,
    text="Towels were asked for.",
    source="llm",
    utterances=3,
    at_ns=AT_NS,
)
_ROWS: Final = encoded([("main", 1, None, b"x", True)])

STREAMS: Final[dict[str, tuple[Message, ...]]] = {
    TRANSCRIPTS: (TRANSCRIPT, spoken(1, "Fire in 412."), msgspec.structs.replace(TRANSCRIPT, side="service")),
    INSIGHTS: (
        FOUND,
        msgspec.structs.replace(FOUND, insights=(LITTLE,), opens_tasks=(), traceparent=None),
        msgspec.structs.replace(FOUND, revision=1_000, text="Two towels to 414, please."),
    ),
    CONVERSATIONS: (
        CHANGED,
        msgspec.structs.replace(CHANGED, state="live", ledgers=(), reason=None),
        msgspec.structs.replace(CHANGED, side="service"),
    ),
    SUMMARIES: (SUMMARY,),
}
LINK: Final[dict[str, tuple[Message, ...]]] = {
    "link.caption": (
        Captioned(caption=CAPTION),
        Captioned(caption=msgspec.structs.replace(CAPTION, final=True, utterance_id="shift-1:0:16000")),
        Captioned(caption=msgspec.structs.replace(CAPTION, emergency=True, utterance_id="shift-1:0:16000")),
        Captioned(caption=msgspec.structs.replace(CAPTION, side="service")),
    ),
    "link.behind": (FellBehind(behind=BEHIND),),
    "link.final": (Committed(message=TRANSCRIPT, after=FIRST), Committed(message=TRANSCRIPT, after="shift-1:0:0")),
    "link.status": (STATUS, InstanceStatus()),
    "link.room": (Room(conversations=7, stt_backlog_s=0.5), Room(conversations=0)),
    "link.sound_copy": (
        SoundCopy(
            to="audio-1",
            site="main",
            conversation_id="shift-1",
            number=1,
            sample_rate=16_000,
            offset=16_000,
            samples=2,
            tracks=(b"\x01\x00\x02\x00", None),
            flush=16_001,
            settled=8_000,
            over=True,
        ),
    ),
    "link.served_text": (
        ServedText(
            to="audio-1",
            site="main",
            conversation_id="shift-1",
            number=2,
            speaker=0,
            start_offset=0,
            end_offset=16_000,
            text="towels to 412",
            settled=16_000,
        ),
    ),
    "link.watching": (Watching(sites={"main": ("*",)}), Watching()),
    "link.receipt": (
        Receipt(site="main", conversation_id="shift-1", utterance_id=SAID, latency=Latency(total=812.5)),
        Receipt(
            site="main",
            conversation_id="shift-1",
            utterance_id=SAID,
            latency=Latency(total=812.5, sides={"dashboard": "service"}),
        ),
    ),
    "link.keep_trace": (
        KeepTrace(site="main", conversation_id="shift-1", utterance_id=SAID, why="slow", painted_ms=900.0),
        KeepTrace(site="main", conversation_id="shift-1", utterance_id=SAID, why="slow"),
    ),
}
REQUESTS: Final[dict[str, tuple[Message, ...]]] = {
    "prompts": (PROMPTS, PromptsView()),
    "usage": (USAGE, UsageReport(today=DAY)),
    "to_narrate": (Narrate(site="main", facts="3 requests"),),
    "get_usage": (GetUsage(site="main", conversation="shift-1", limit=5), GetUsage()),
    "get_prompts": (GetPrompts(),),
    "read_metrics": (ReadMetrics(),),
    "metrics_text": (MetricsText(text="quickcomm_metrics_reads_total 1.0"),),
    "get_live_ledgers": (GetLiveLedgers(site="main", conversation_ids=["c-1"]),),
    "live_ledgers": (Ledgers(ledgers={"c-1": (Ledger(received=512, silence=512),)}),),
    "narrated": (Narrated(text="A quiet shift."), Narrated()),
}
STORED: Final[dict[str, tuple[Message, ...]]] = {
    "instance": (
        Instance(module="audio", name="audio-1", pid=7, version=__version__, socket="/run/quickcomm/audio-1.sock"),
    ),
}
"""What processes of several releases read from the same place."""
BINARY: Final[dict[str, tuple[Message, ...]]] = {
    "backfill.page": (
        BackfillPage(table="tasks", columns=("site", "id"), rows=_ROWS, checksum=checksum(_ROWS), after="7", more=True),
    ),
    "backfill.total": (BackfillTotal(table="tasks", rows=1, digest="00ff", after="7", more=False),),
    "checkpoint": (
        Checkpoint(
            offset=5_120,
            start_floor=512,
            gap=16,
            segmenter=SegmenterState(position=10, floor=1, run=2, start=3, voiced_end=9, voiced=4),
            front_end=FrontEndState(noise_floor=0.01, hang=2, vad=b"\1" * 8, context=b"\2\3", history=b"\4\5"),
        ),
        Checkpoint(),
    ),
    "key": (
        Key(id="key_1", site="main", role="admin", name="Ada", created_ns=AT_NS, revoked_ns=AT_NS + 1),
        Key(id="key_2", site="main", role="ingest", name="", created_ns=AT_NS),
    ),
    "page_session": (Session(key=b"\1\2", expires_ns=AT_NS),),
    "dead_letter": (
        Letter(
            stream=TRANSCRIPTS,
            group="dashboard",
            key="shift-1",
            payload=b"{}",
            reason="RuntimeError: no",
            attempts=5,
            at_ns=AT_NS,
        ),
    ),
}
"""As MessagePack; here with its bytes in base 64."""
RENAMED: Final = {"ToNarrate": "Narrate"}
"""Types by their name in the release before."""
EVERYTHING: Final = {**STREAMS, **LINK, **REQUESTS, **STORED, **BINARY}


def plain(message: Message) -> Json:
    """As JSON has it: lists for tuples, and text for bytes."""
    read: Json = msgspec.json.decode(msgspec.json.encode(message))
    return read


def recorded(messages: tuple[Message, ...]) -> Recorded:
    kind = type(messages[0])
    return Recorded(
        kind=kind.__name__,
        messages=tuple(map(plain, messages)),
        schema=msgspec.json.schema(kind),
    )


def main() -> None:
    folder = FOLDER / __version__
    folder.mkdir(parents=True, exist_ok=True)
    for name, messages in EVERYTHING.items():
        text = msgspec.json.format(msgspec.json.encode(recorded(messages), order="sorted"), indent=1)
        (folder / f"{name}.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    main()
