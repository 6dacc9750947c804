"""Drives the real front end tick by tick, without an event loop or a clock."""

from collections.abc import Iterable, Sequence

import msgspec

from quickcomm.audio.adapters.silero import Silero
from quickcomm.audio.model.checkpoint import Checkpoint
from quickcomm.audio.model.formats import Int16
from quickcomm.audio.model.segmenter import SegmenterSettings
from quickcomm.audio.model.track import Span, Track, TrackEvent
from quickcomm.audio.service.front_end import FrontEnd
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.clock import FakeClock

SILERO = Silero()
Spans = list[tuple[int, int]]


class Run:
    """One speaker's stream through the front end. `pieces` are samples, or a number of samples declared lost."""

    def __init__(
        self,
        audio_format: AudioFormat,
        at: Checkpoint | None = None,
        settings: SegmenterSettings | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.front_end = FrontEnd(SILERO, self.clock, capacity=4, snapshot_every_s=0.5)
        self.track = Track(0, audio_format, settings or SegmenterSettings(), at)
        self.lane = self.front_end.attach(self.track, self._hear)
        self.spans: list[Span] = []
        self.checkpoints: list[Checkpoint] = [at] if at else []

    def _hear(self, track: Track, events: Sequence[TrackEvent]) -> None:
        self.spans += [event for event in events if isinstance(event, Span) and event.complete]
        best = track.best_checkpoint(None)
        if best is not None:
            self.checkpoints.append(msgspec.msgpack.decode(msgspec.msgpack.encode(best), type=Checkpoint))

    def play(self, pieces: Iterable[Int16 | int], *, end: bool = True) -> Spans:
        for piece in pieces:
            if isinstance(piece, int):
                self.track.skip(piece)
            else:
                self.track.feed(piece)
                self.clock.advance(len(piece) / self.track.format.sample_rate)
            self._work()
        if end:
            self.track.end()
            self._work()
        return [(span.start, span.end) for span in self.spans]

    def _work(self) -> None:
        while self.track.has_work:
            self.front_end.tick()
