"""One speaker of a conversation: the stream, what is stored of it, and guesses about the utterance in progress.

Guesses are decoding ahead (in the pause before the utterance is known to be over) and live partials; both run only
where the engine has nothing better to do.
"""

import asyncio
from collections.abc import Callable

from quickcomm.audio.model.checkpoint import Checkpoint
from quickcomm.audio.model.formats import ENGINE_RATE
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.model.track import Opening, Span, Track, TrackEvent
from quickcomm.audio.ports import Transcript
from quickcomm.audio.service.front_end import Lane
from quickcomm.audio.service.metrics import SPEECH
from quickcomm.audio.service.transcriber import Transcriber
from quickcomm.audio.service.turns import Line
from quickcomm.contracts.audio_socket import FRAME_MS
from quickcomm.contracts.conversations import Ledger
from quickcomm.kernel.clock import Clock

ShowPartial = Callable[[int, int, str], None]
"""Speaker, start offset, text."""
_Settled = tuple[int, int, bool]
"""An utterance that is settled: start, end, whether there were words in it."""
_Standing = tuple[Checkpoint, Ledger, tuple[_Settled, ...], int]


class Voice:
    def __init__(self, track: Track, checkpoint: Checkpoint, ledger: Ledger, *, taken_over: bool = False) -> None:
        """`taken_over`: the conversation goes on here after another process had it."""
        self.track = track
        self.checkpoint = checkpoint
        self.ledger = ledger
        self._ahead: list[_Settled] = []
        self._wordless = ledger.silence - checkpoint.silence
        """Samples of utterances without words, which count as silence."""
        self.lane: Lane | None = None
        self._early: tuple[int, int, asyncio.Future[Transcript]] | None = None
        self._partial: asyncio.Future[Transcript] | None = None
        self._partial_at: float | None = None
        """When the next partial of this utterance is due, in monotonic seconds; None: the first one."""
        self._awaited = taken_over
        """Nothing was shown yet of a conversation that was shown elsewhere before."""

    @property
    def heard(self) -> bool:
        """Whether everything received went through the front end, but for less than a frame."""
        return not (self.track.has_work or (self.lane is not None and self.lane.busy))

    def settled(self, span: Span, *, speech: bool) -> None:
        """It is published, or (`speech` is false) there was no word in it and it counts as silence.

        The ledger counts it as soon as a checkpoint is behind it: it says what lies before the ack.
        """
        self._ahead.append((span.start, span.end, speech))

    def move_to(self, checkpoint: Checkpoint) -> None:
        """Settle the ledger at a checkpoint. Silence is what the track has counted, not what the rest leaves."""
        passed = [item for item in self._ahead if item[1] <= checkpoint.offset]
        self._ahead = [item for item in self._ahead if item[1] > checkpoint.offset]
        speech = sum(end - start for start, end, words in passed if words)
        self._wordless += sum(end - start for start, end, words in passed if not words)
        self.checkpoint = checkpoint
        self.ledger = Ledger(
            received=checkpoint.offset,
            speech=self.ledger.speech + speech,
            silence=checkpoint.silence + self._wordless,
            gap=checkpoint.gap,
        )

    def standing(self) -> _Standing:
        return self.checkpoint, self.ledger, tuple(self._ahead), self._wordless

    def back_to(self, standing: _Standing) -> None:
        """What was tried was not stored."""
        tried = self.checkpoint
        self.checkpoint, self.ledger, ahead, self._wordless = standing
        self._ahead = list(ahead)
        if tried is not self.checkpoint:
            self.track.put_back(tried)

    def finish(self, span: Span, line: Line, transcriber: Transcriber, ended_at: float) -> asyncio.Future[Transcript]:
        """Return the transcript of a finished utterance: the guess if it was right, else a new decoding.

        `line`: its conversation. `ended_at`: when its speech ended, in monotonic seconds.
        """
        early, self._early = self._early, None
        self._awaited = False
        SPEECH.inc(len(span.samples) / ENGINE_RATE)
        if self._partial is not None:
            self._partial.cancel()
        if early is not None and early[:2] == (span.start, span.end):
            text = early[2]
            if not text.done() or not (text.cancelled() or text.exception() is not None):
                transcriber.adopt(text, ended_at)
                return text
        elif early is not None:
            early[2].cancel()
        return transcriber.submit(span.samples, line, ended_at)

    def guess(self, span: Span, line: Line, transcriber: Transcriber) -> None:
        """Decode in a pause, in case the utterance is over."""
        self.take_back()
        text = transcriber.guess(span.samples, line, word_times=True)
        self._early = None if text is None else (span.start, span.end, text)

    def note(self, event: TrackEvent) -> None:
        if isinstance(event, Opening):
            self._partial_at = None
        elif not isinstance(event, Span):
            self.take_back()

    def maybe_partial(
        self, line: Line, transcriber: Transcriber, settings: AudioSettings, clock: Clock, show: ShowPartial
    ) -> None:
        """Decode what was said so far, if it is time."""
        if self._partial is not None or self._early is not None:
            return
        sound = self.track.open_sound() if self._partial_due(settings, clock) else None
        text = None if sound is None else transcriber.guess(sound[1], line, word_times=False, awaited=self._awaited)
        if sound is None or text is None:
            return
        self._partial = text
        start = sound[0]

        def done(future: asyncio.Future[Transcript]) -> None:
            self._partial = None
            self._partial_at = clock.monotonic() + settings.partial_every_s
            if future.cancelled() or future.exception() is not None or self.track.open_start != start:
                return
            if future.result().text:
                self._awaited = False
                show(self.track.speaker, start, future.result().text)

        text.add_done_callback(done)

    def _partial_due(self, settings: AudioSettings, clock: Clock) -> bool:
        """Return True if it is time for a partial.

        The first is due by how much was said, once all that came is heard: where a conversation is taken over in the
        middle of an utterance, the sound comes again in a burst, and its text at once.
        """
        if self._partial_at is not None:
            return clock.monotonic() >= self._partial_at
        start = self.track.open_start
        if start is None or self.track.has_work:
            return False
        before = settings.segmenter.preroll * FRAME_MS / 1000
        return self.track.format.seconds(self.track.position - start) >= before + settings.partial_every_s

    def take_back(self) -> None:
        """Forget guesses about an utterance that went another way."""
        if self._early is not None:
            self._early[2].cancel()
            self._early = None
        if self._partial is not None:
            self._partial.cancel()
