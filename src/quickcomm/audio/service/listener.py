"""What is heard in a conversation: from the front end's events to finished utterances on their way to a text."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Final

import msgspec

from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.model.track import Span, Track, TrackEvent
from quickcomm.audio.ports import Captions, Recorder, SessionStore, Transcript
from quickcomm.audio.service.arrivals import Arrivals
from quickcomm.audio.service.front_end import FrontEnd
from quickcomm.audio.service.lateness import BOUND_S, URGENT_BOUND_S
from quickcomm.audio.service.load import Tempo
from quickcomm.audio.service.sound_copy import Copying, NoCopies
from quickcomm.audio.service.transcriber import Transcriber
from quickcomm.audio.service.utterance import Finished, Origin, transcribed, understood
from quickcomm.audio.service.voice import Voice
from quickcomm.contracts.audio_socket import Partial
from quickcomm.contracts.captions import Caption
from quickcomm.contracts.identity import utterance_id
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.telemetry.side import stamp

NS: Final = 1_000_000_000
ALERT_S: Final = 120.0
"""So long after an emergency was heard on a line it is urgent."""


def _ignored(_message: UtteranceTranscribed) -> None:
    """Do nothing."""


class Held(msgspec.Struct):
    """Bytes of sound that a process holds until they are acknowledged. Above `most` clients are slowed down."""

    most: int
    total: int = 0

    @property
    def full(self) -> bool:
        return self.total >= self.most


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What every conversation of a process shares."""

    settings: AudioSettings
    clock: Clock
    store: SessionStore
    front_end: FrontEnd
    transcriber: Transcriber
    captions: Captions
    recorder: Recorder | None
    held: Held
    emergencies: EmergencyRules
    published: Callable[[UtteranceTranscribed], None] = _ignored
    """Called with each utterance once it is durable."""
    copies: Copying = NoCopies()


class Listener:
    """`news` is called when something was heard or has its text; `note` tells the client what may be lost."""

    def __init__(
        self,
        origin: Origin,
        voices: Sequence[Voice],
        arrivals: Arrivals,
        tools: Tools,
        news: Callable[[], None],
        note: Callable[[Partial], None],
    ) -> None:
        self.pending: deque[Finished] = deque()
        """Finished utterances in the order they ended, the oldest first. Bounded by the client's window."""
        self.voiced_s = 0.0
        """Seconds of speech since the last text came out."""
        self._origin = origin
        self._voices = voices
        self._arrivals = arrivals
        self._tools = tools
        self._tempo = Tempo()
        self._alert_until = 0.0
        self._for_emergencies = tools.emergencies.is_channel(origin.channel)
        self._news = news
        self._note = note

    @property
    def over(self) -> bool:
        """Nothing more will be said: of two lines with the same deadline the other goes first at the engine."""
        return all(voice.track.ended for voice in self._voices)

    @property
    def urgent(self) -> bool:
        """Its channel is for emergencies, or one was heard on it a moment ago."""
        return self._for_emergencies or self._tools.clock.monotonic() < self._alert_until

    @property
    def behind_s(self) -> float:
        """How long the end of speech of the oldest utterance lies back that has no text yet; 0 where there is none."""
        oldest = next((item for item in self.pending if item.waits), None)
        return 0.0 if oldest is None else max(0.0, self._tools.clock.monotonic() - oldest.ended_at)

    @property
    def too_late(self) -> bool:
        """Whether it is behind beyond its bound."""
        return self.behind_s > (URGENT_BOUND_S if self.urgent else BOUND_S)

    @property
    def all_heard(self) -> bool:
        """Whether everything received went through the front end, but for less than a frame."""
        return all(voice.heard for voice in self._voices)

    @property
    def next_with_text(self) -> Finished | None:
        """The oldest finished utterance, if it has its text."""
        return self.pending[0] if self.pending and not self.pending[0].waits else None

    def pop(self) -> None:
        """Forget the oldest finished utterance: it is published."""
        self.pending.popleft()

    def hear(self, track: Track, events: Sequence[TrackEvent]) -> None:
        """From the front end: what happened on a track in this tick."""
        voice = self._voices[track.speaker]
        for event in events:
            self._handle(voice, event)
        if track.open_start is not None and self._watched():
            voice.maybe_partial(self, self._tools.transcriber, self._tools.settings, self._tools.clock, self._partial)
        self._news()

    def caption(
        self, speaker: int, start: int, text: str, identifier: str | None = None, *, emergency: bool = False
    ) -> None:
        """Show what is said; with the utterance's identifier it is final, unless it is an unconfirmed `emergency`."""
        self._tools.captions.caption(
            Caption(
                site=self._origin.site,
                conversation_id=self._origin.id,
                channel=self._origin.channel,
                speaker=speaker,
                start_offset=start,
                text=text,
                final=identifier is not None and not emergency,
                utterance_id=identifier,
                emergency=emergency,
                side=stamp(),
            )
        )

    def message(self, item: Finished) -> UtteranceTranscribed | None:
        """Build the message of a finished utterance; None for no speech."""
        clock, model = self._tools.clock, self._tools.transcriber.model
        return transcribed(self._origin, item, self._arrivals, model, clock.now_ns())

    def published(self, message: UtteranceTranscribed, after: str | None) -> None:
        """Show a durable utterance. `after`: see `Captions`."""
        self.voiced_s = 0.0
        self._tools.published(message)
        self._tools.captions.published(message, after)
        self.caption(message.speaker, message.start_offset, message.text, message.utterance_id)

    def _handle(self, voice: Voice, event: TrackEvent) -> None:
        voice.note(event)
        if not isinstance(event, Span):
            return
        if event.complete:
            self._finished(voice, event)
        elif self._tools.settings.early_decoding:
            voice.guess(event, self, self._tools.transcriber)

    def _finished(self, voice: Voice, span: Span) -> None:
        clock, rate = self._tools.clock, self._origin.format.sample_rate
        now = clock.now_ns()
        came_at = clock.monotonic() - (now - self._arrivals.at(span.end, now)) / NS
        ended_at = self._tempo.ended_at(came_at, span.end / rate, waits=bool(self.pending))
        text = voice.finish(span, self, self._tools.transcriber, ended_at)
        self.voiced_s += self._origin.format.seconds(span.end - span.start)
        finished = Finished(track=voice.track, span=span, text=text, closed_ns=now, ended_at=ended_at)
        self.pending.append(finished)

        def done(_: asyncio.Future[Transcript]) -> None:
            finished.text_ns = clock.now_ns()
            self._judge(finished)
            self._news()

        text.add_done_callback(done)

    def _judge(self, item: Finished) -> None:
        """An emergency makes the line urgent; where others must be published first, it is told ahead of them."""
        text = item.transcript.text
        sure = understood(item.transcript, item.span.voiced) == "ok"
        if not sure or self._tools.emergencies.first(text) is None:
            return
        self._alert_until = self._tools.clock.monotonic() + ALERT_S
        if any(other.waits for other in _before(item, self.pending)):
            speaker, start = item.track.speaker, item.span.start
            self._note(Partial(speaker=speaker, start_offset=start, text=text, emergency=True))
            self.caption(speaker, start, text, utterance_id(self._origin.id, speaker, start), emergency=True)

    def _watched(self) -> bool:
        return self._tools.captions.watched(self._origin.site, self._origin.channel)

    def _partial(self, speaker: int, start: int, text: str) -> None:
        self._note(Partial(speaker=speaker, start_offset=start, text=text))
        self.caption(speaker, start, text)


def _before(item: Finished, pending: Iterable[Finished]) -> Iterator[Finished]:
    return takewhile(lambda other: other is not item, pending)
