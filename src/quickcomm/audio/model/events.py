"""What the server says on the audio socket, as JSON-ready objects: the outer contract, in one place."""

from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed

Json = dict[str, object]


def ready(
    conversation_id: str,
    resume_token: str,
    next_offset: int,
    max_unacked_ms: int,
    ack_interval_ms: int,
    *,
    last_seq: int = 0,
    now_ms: int = 0,
) -> Json:
    """Build the first event. `last_seq`: of the newest durable one; who has a later one knows what was lost here."""
    return {
        "type": "ready",
        "conversation_id": conversation_id,
        "resume_token": resume_token,
        "next_offset": next_offset,
        "last_seq": last_seq,
        "max_unacked_ms": max_unacked_ms,
        "ack_interval_ms": ack_interval_ms,
        "now_ms": now_ms,
    }


def ack(offset: int) -> Json:
    return {"type": "ack", "offset": offset}


def partial(speaker: int, start_offset: int, text: str, *, emergency: bool = False) -> Json:
    """`emergency`: by its words it is one, whose utterance comes later and confirms it."""
    event: Json = {"type": "partial", "speaker": speaker, "start_offset": start_offset, "text": text}
    return event | {"emergency": True} if emergency else event


def late(behind_ms: int) -> Json:
    """Tell how long the oldest words wait for their text; 0 once the conversation is whole again."""
    return {"type": "late", "behind_ms": behind_ms}


def utterance(message: UtteranceTranscribed, seq: int) -> Json:
    event: Json = {
        "type": "utterance",
        "seq": seq,
        "utterance_id": message.utterance_id,
        "speaker": message.speaker,
        "start_offset": message.start_offset,
        "end_offset": message.end_offset,
        "text": message.text,
        "words": message.words,
        "confidence": message.confidence,
        "status": message.status,
    }
    if message.unintelligible:
        event["unintelligible"] = True
    return event


def insights(found: InsightsFound) -> Json:
    """Without its `seq`, which the store gives."""
    return {"type": "insights", "utterance_id": found.utterance_id, "insights": found.insights}


def is_insights(payload: str) -> bool:
    """Whether a durable event from the log is one."""
    return payload.startswith('{"type":"insights"')


def receipt(utterance_id: str, latency_ms: object) -> Json:
    return {"type": "receipt", "utterance_id": utterance_id, "latency_ms": latency_ms}


def reconnect(reason: str, after_ms: int) -> Json:
    return {"type": "reconnect", "reason": reason, "after_ms": after_ms}


def error(code: str, message: str, *, retryable: bool) -> Json:
    return {"type": "error", "code": code, "message": message, "retryable": retryable}


def ended(ledgers: tuple[Ledger, ...]) -> Json:
    """Sums over the speakers; each speaker's own ledger beside it."""
    total = sum(ledgers, Ledger())
    return {
        "type": "ended",
        "ledger": {"received": total.received, "speech": total.speech, "silence": total.silence, "gap": total.gap},
        "speakers": ledgers,
    }
