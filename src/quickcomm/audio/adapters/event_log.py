"""The durable events of a conversation's log, made from the messages that they tell its client of."""

import msgspec

from quickcomm.contracts.audio_socket import DurableEvent, Insights, Utterance, decode_durable
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed


def utterance_event(message: UtteranceTranscribed) -> Utterance:
    return Utterance(
        seq=message.seq,
        utterance_id=message.utterance_id,
        speaker=message.speaker,
        start_offset=message.start_offset,
        end_offset=message.end_offset,
        text=message.text,
        words=message.words,
        confidence=message.confidence,
        status=message.status,
        unintelligible=message.unintelligible,
    )


def insights_event(found: InsightsFound, seq: int) -> Insights[Insight]:
    return Insights(seq=seq, utterance_id=found.utterance_id, insights=found.insights)


def blanked(payload: bytes | str) -> bytes:
    """Return an event as it is kept without its words: a client that resumes misses no number."""
    event: DurableEvent = decode_durable(payload)
    if isinstance(event, Utterance):
        nothing = {"text": "", "words": (), "confidence": 0.0, "status": "unintelligible"}
        return msgspec.json.encode(msgspec.structs.replace(event, **nothing))
    return msgspec.json.encode(msgspec.structs.replace(event, insights=()))
