"""What is heard in a conversation: from the front end's events to finished utterances on their way to a text."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from quickcomm.audio.model import events as wire
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.model.track import Span, Track, TrackEvent
from quickcomm.audio.ports import Captions, Recorder, SessionStore, Transcript
from quickcomm.audio.service.front_end import FrontEnd
from quickcomm.audio.service.transcriber import Transcriber
from quickcomm.audio.service.turns import LATE_AFTER_S
from quickcomm.audio.service.utterance import Finished, Origin
from quickcomm.audio.service.voice import Voice
from quickcomm.contracts.captions import Caption
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.clock import Clock

NS: Final = 1_000_000_000


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


class Listener:
    """`news` is called when something was heard or has its text; `note` tells the client what may be lost."""

    def __init__(
        self,
        origin: Origin,
        voices: Sequence[Voice],
        tools: Tools,
        news: Callable[[], None],
        note: Callable[[wire.Json], None],
    ) -> None:
        self.pending: deque[Finished] = deque()
        """Finished utterances in the order they ended, the oldest first. Bounded by the client's window."""
        self.voiced_s = 0.0
        """Seconds of speech since the last text came out."""
        self._origin = origin
        self._voices = voices
        self._tools = tools
        self._news = news
        self._note = note
        for voice in voices:
            voice.line = self

    @property
    def over(self) -> bool:
        """Nothing more will be said: those who still talk go first at the engine."""
        return all(voice.over for voice in self._voices)

    @property
    def all_heard(self) -> bool:
        """Whether everything received went through the front end, but for less than a frame."""
        return all(voice.heard for voice in self._voices)

    def hear(self, track: Track, events: Sequence[TrackEvent]) -> None:
        """From the front end: what happened on a track in this tick."""
        voice = self._voices[track.speaker]
        for event in events:
            self._handle(voice, event)
        if track.open_start is not None and self._watched():
            voice.maybe_partial(self._tools.transcriber, self._tools.settings, self._tools.clock, self._partial)
        self._news()

    def caption(self, speaker: int, start: int, text: str, identifier: str | None = None) -> None:
        """Show what is said; with the utterance's identifier it is final."""
        self._tools.captions.caption(
            Caption(
                site=self._origin.site,
                conversation_id=self._origin.id,
                channel=self._origin.channel,
                speaker=speaker,
                start_offset=start,
                text=text,
                final=identifier is not None,
                utterance_id=identifier,
            )
        )

    def published(self, message: UtteranceTranscribed, after: str | None) -> None:
        """An utterance is durable: show it. `after`: see `Captions`."""
        self._tools.captions.published(message, after)
        self.caption(message.speaker, message.start_offset, message.text, message.utterance_id)

    def _handle(self, voice: Voice, event: TrackEvent) -> None:
        voice.note(event, self._tools.settings, self._tools.clock)
        if not isinstance(event, Span):
            return
        if event.complete:
            self._finished(voice, event)
        elif self._tools.settings.early_decoding:
            voice.guess(event, self._tools.transcriber)

    def _finished(self, voice: Voice, span: Span) -> None:
        now = self._tools.clock.now_ns()
        late = bool(self.pending) and self.pending[0].waits and now - self.pending[0].closed_ns > LATE_AFTER_S * NS
        text = voice.finish(span, self._tools.transcriber, late=late)
        self.voiced_s += self._origin.format.seconds(span.end - span.start)
        finished = Finished(track=voice.track, span=span, text=text, closed_ns=now)
        self.pending.append(finished)

        def done(_: asyncio.Future[Transcript]) -> None:
            finished.text_ns = self._tools.clock.now_ns()
            self._news()

        text.add_done_callback(done)

    def _watched(self) -> bool:
        return self._tools.captions.watched(self._origin.site, self._origin.channel)

    def _partial(self, speaker: int, start: int, text: str) -> None:
        self._note(wire.partial(speaker, start, text))
        self.caption(speaker, start, text)
