"""From a finished span and its transcript to the message that the other modules get."""

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from quickcomm.audio.model.segmenter import frames
from quickcomm.audio.model.track import Span, Track
from quickcomm.audio.ports import Transcript
from quickcomm.audio.service.arrivals import Arrivals
from quickcomm.contracts.identity import utterance_id
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import Status, UtteranceTranscribed, Word
from quickcomm.kernel.telemetry import tracing
from quickcomm.kernel.telemetry.side import stamp

if TYPE_CHECKING:
    from quickcomm.contracts.audio_socket import AudioFormat

NS_PER_MS: Final = 1_000_000
LEAST_VOICED: Final = frames(1_000)
"""So many frames of voice without a word are speech that was not understood; fewer are a noise."""
LEAST_CONFIDENCE: Final = 0.36
"""Spanish heard as English stays below it, English above: docs/adr/0032."""


class Finished(msgspec.Struct, eq=False):
    """An utterance that is over, on its way through speech-to-text."""

    track: Track
    span: Span
    text: asyncio.Future[Transcript]
    closed_ns: int
    """When it was known to be over."""
    ended_at: float
    """When its speech counts as ended, in monotonic seconds (`Tempo`)."""
    text_ns: int = 0
    """When its transcript was there."""

    @property
    def waits(self) -> bool:
        return not self.text.done()

    @property
    def transcript(self) -> Transcript:
        """What the engine made of it; empty where it failed, or was not asked to the end."""
        failed = self.text.cancelled() or self.text.exception() is not None
        return Transcript(text="") if failed else self.text.result()


class Origin(Protocol):
    """Where an utterance belongs."""

    site: str
    id: str
    channel: str
    format: "AudioFormat"


def understood(transcript: Transcript, voiced: int) -> Status | None:
    """Return how far a transcript of a span with `voiced` frames of voice can be relied on; None for no speech."""
    if not transcript.text and voiced < LEAST_VOICED:
        return None
    if transcript.foreign:
        return "not_english"
    if not transcript.text:
        return "unintelligible"
    return "low_confidence" if 0.0 < transcript.confidence < LEAST_CONFIDENCE else "ok"


def transcribed(
    origin: Origin, item: Finished, arrivals: Arrivals, stt_model: str, now_ns: int
) -> UtteranceTranscribed | None:
    """Build the message of an utterance; None for no speech. Where the engine failed, it is unintelligible."""
    failed = item.text.exception() is not None
    transcript = item.transcript
    status: Status | None = "unintelligible" if failed else understood(transcript, item.span.voiced)
    if status is None:
        return None
    span, rate = item.span, origin.format.sample_rate
    came_ns = arrivals.at(span.end, item.closed_ns)
    ended_ns = arrivals.said(span.end, item.closed_ns)
    identifier = utterance_id(origin.id, item.track.speaker, span.start)
    return UtteranceTranscribed(
        site=origin.site,
        conversation_id=origin.id,
        utterance_id=identifier,
        channel=origin.channel,
        speaker=item.track.speaker,
        seq=0,
        start_offset=span.start,
        end_offset=span.end,
        sample_rate=rate,
        text=transcript.text,
        words=_words(transcript, span, rate),
        confidence=round(transcript.confidence, 4),
        unintelligible=failed,
        status=status,
        stt_model=stt_model,
        spoken_at_ns=min(arrivals.said(span.start + 1, ended_ns), ended_ns),
        speech_ended_ns=ended_ns,
        published_ns=now_ns,
        late_ms=_ms(came_ns - ended_ns),
        latency=Latency(
            endpoint=_ms(item.closed_ns - came_ns),
            stt=_ms(item.text_ns - item.closed_ns),
            publish=_ms(now_ns - max(item.text_ns, item.closed_ns)),
        ),
        traceparent=tracing().traceparent(origin.site, identifier),
        side=stamp(),
    )


def _words(transcript: Transcript, span: Span, rate: int) -> tuple[Word, ...]:
    def offset(seconds: float) -> int:
        return min(span.end, span.start + max(0, round(seconds * rate)))

    return tuple(
        Word(
            text=word.text,
            start_offset=offset(word.start),
            end_offset=offset(word.end),
            confidence=round(word.confidence, 4),
        )
        for word in transcript.words
    )


def _ms(nanoseconds: int) -> float:
    return round(max(0, nanoseconds) / NS_PER_MS, 2)
