"""A whole recording through the same front end and engine as live sound, without a server."""

from collections.abc import Iterator, Sequence

from quickcomm.audio.model.formats import ENGINE_RATE, Int16
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.model.track import Span, Track, TrackEvent
from quickcomm.audio.ports import Clip, SpeechToText, Transcript, VoiceActivity
from quickcomm.audio.service.front_end import FrontEnd
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.clock import SystemClock


def transcribe_offline(
    samples: Int16, engine: SpeechToText, vad: VoiceActivity, settings: AudioSettings
) -> Iterator[tuple[float, float, Transcript]]:
    """Start and end in seconds, and what was said, for each utterance. samples: int16[n], 16 kHz mono."""
    spans: list[Span] = []

    def hear(track: Track, events: Sequence[TrackEvent]) -> None:
        del track
        spans.extend(event for event in events if isinstance(event, Span) and event.complete)

    front_end = FrontEnd(vad, SystemClock(), capacity=1, snapshot_every_s=3_600.0)
    track = Track(0, AudioFormat(), settings.segmenter)
    front_end.attach(track, hear)
    track.feed(samples)
    track.end()
    while track.has_work:
        front_end.tick()
        while spans:
            span = spans.pop(0)
            [transcript] = engine.transcribe([Clip(samples=span.samples)])
            if transcript.text:
                yield span.start / ENGINE_RATE, span.end / ENGINE_RATE, transcript
    front_end.close()
