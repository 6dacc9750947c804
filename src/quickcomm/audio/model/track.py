"""One speaker's stream: samples in, frames to the front end, utterance spans out, and how far it may be acked.

Data waits in `_inbox` in the order it came: sound, declared gaps, the end. Frames are handed out with `take`, their
voice probabilities come back with `step`.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from quickcomm.audio.model.checkpoint import Checkpoint
from quickcomm.audio.model.formats import ENGINE_FRAME, AudioFormat, Int16
from quickcomm.audio.model.segmenter import (
    Closed,
    Opened,
    Paused,
    QuietPoint,
    Segmenter,
    SegmenterSettings,
    SegmenterState,
    SegmentEvent,
)

MAX_SNAPSHOTS: Final = 64
TRIM_FRAMES: Final = 16


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of speech in samples at the client's rate, with its sound: int16[n] at 16 kHz."""

    start: int
    end: int
    samples: Int16
    complete: bool = True
    """False for a pause: the utterance may still go on."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody began to speak at sample `start`."""

    start: int


class Click(msgspec.Struct, frozen=True):
    """What opened was too short for speech."""


TrackEvent = Span | Opening | Click


class _Gap(msgspec.Struct):
    samples: int


class Track:
    def __init__(
        self, speaker: int, audio_format: AudioFormat, settings: SegmenterSettings, at: Checkpoint | None = None
    ) -> None:
        at = at or Checkpoint()
        self.speaker = speaker
        self.format = audio_format
        self._frame = audio_format.frame
        self.front_end = at.front_end
        self.received = at.offset
        """Samples accepted so far, gaps included."""
        self.gap = at.gap
        self.origin_ns = at.origin_ns
        """Goes into checkpoints, see there."""
        self.ended = False
        self._gap_end = at.start_floor
        self._segmenter = Segmenter(settings, _copy(at.segmenter))
        self._start_floor = at.start_floor
        self._inbox: deque[bytearray | _Gap] = deque()
        self._base = at.offset // audio_format.frame
        self._sound = bytearray()
        self._snapshots: deque[Checkpoint] = deque()
        self._quiet: Checkpoint | None = None
        self._processed_gap = at.gap
        self._limit: int | None = None

    # -- in ---------------------------------------------------------------------------------------------------------

    def feed(self, samples: Int16) -> None:
        if not len(samples):
            return
        if not self._inbox or isinstance(self._inbox[-1], _Gap):
            self._inbox.append(bytearray())
        tail = self._inbox[-1]
        assert isinstance(tail, bytearray)  # noqa: S101 - appended just above
        tail += samples.tobytes()
        self.received += len(samples)

    def skip(self, samples: int) -> None:
        """Declare a gap."""
        if samples:
            self._inbox.append(_Gap(samples))
            self.received += samples
            self.gap += samples
            self._gap_end = self.received

    def end(self) -> None:
        """No more will come; what is left is padded to a whole frame."""
        self.ended = True

    def forget_partial_frame(self) -> None:
        """Drop what does not fill a frame: the client will send it again from `received`."""
        if self.ended:
            return  # the rest counts as it is
        own = min(self.received % self._frame, self.received - self._gap_end)
        if own and self._inbox:  # else it began within a frame: at the very end, which could not be stored as such
            tail = self._inbox[-1]
            assert isinstance(tail, bytearray)  # noqa: S101 - samples came after the last gap
            del tail[-2 * own :]
            if not tail:
                self._inbox.pop()
            self.received -= own

    # -- frames -----------------------------------------------------------------------------------------------------

    @property
    def stride(self) -> int:
        """Most frames that may be taken at once: near a forced cut every single frame counts."""
        return self._segmenter.stride

    @property
    def idle(self) -> bool:
        """Nobody speaks, nor has just begun to."""
        return self._segmenter.idle

    @property
    def has_work(self) -> bool:
        """Whether `pass_gaps` or `take` would get on."""
        if not self._inbox:
            return False
        head = self._inbox[0]
        return isinstance(head, _Gap) or len(head) >= 2 * self._frame or len(self._inbox) > 1 or self.ended

    @property
    def drained(self) -> bool:
        return not self._inbox

    def pass_gaps(self) -> list[TrackEvent]:
        """Jump over the gaps that are next, closing what is open; the front end starts afresh behind them."""
        events: list[TrackEvent] = []
        while self._inbox and isinstance(head := self._inbox[0], _Gap):
            self._inbox.popleft()
            events += self.flush()
            self._jump(head.samples)
        return events

    def take(self, limit: int) -> Int16:
        """Up to `limit` whole frames: int16[k, frame] at the client's rate; k is 0 where nothing is ready."""
        frame = self._frame
        if not self._inbox or isinstance(head := self._inbox[0], _Gap):
            return np.empty((0, frame), np.int16)
        count = min(limit, len(head) // (2 * frame))
        if count == 0 and (self.ended or len(self._inbox) > 1):
            self._limit = self._segmenter.state.position * frame + len(head) // 2
            head += bytes(2 * frame - len(head))
            count = 1
        data = bytes(head[: count * 2 * frame])
        del head[: len(data)]
        if not head:
            self._inbox.popleft()
        return np.frombuffer(data, np.int16).reshape(count, frame)

    def step(self, sound: Int16, probabilities: Sequence[float], energies: Sequence[float]) -> list[TrackEvent]:
        """The front end's answer for the frames last taken. sound: int16[k, 512] at 16 kHz.

        `front_end` must hold the state after the last of them where `stride` was 1.
        """
        self._sound += sound.tobytes()
        segmenter = self._segmenter
        if segmenter.idle and max(probabilities) < segmenter.settings.voiced_on:
            segmenter.skip_silence(len(probabilities))
            self._trim()
            return []
        events: list[TrackEvent] = []
        for probability, energy in zip(probabilities, energies, strict=True):
            event = segmenter.step(probability, energy)
            if isinstance(event, QuietPoint):
                self._quiet = self._checkpoint(event.at, start=event.at)
            elif event is not None:
                events.append(self._span(event))
        if segmenter.state.start < 0:
            self._trim()
        return events

    def flush(self) -> list[TrackEvent]:
        """Close what is open (the client ended, a gap, or nobody came back)."""
        event = self._segmenter.flush()
        return [] if event is None else [self._span(event)]

    # -- out --------------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Samples that went through the front end."""
        if self._limit is not None:
            return self._limit
        return self._segmenter.state.position * self._frame

    @property
    def open_start(self) -> int | None:
        start = self._segmenter.state.start
        return None if start < 0 else self._clip(start)[0]

    def open_sound(self) -> tuple[int, Int16] | None:
        """Start (in samples) and sound of the utterance that is still open."""
        state = self._segmenter.state
        if state.start < 0:
            return None
        return self._clip(state.start)[0], self._slice(state.start, state.position)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Remember the present state as a place to restart from. Only useful while nothing is open."""
        state = self._segmenter.state
        if state.start < 0 and self._limit is None:
            self._keep(self._checkpoint(state.position))

    def best_checkpoint(self, unresolved_from: int | None) -> Checkpoint | None:
        """The furthest restart point before which everything is settled; None if there is no new one.

        `unresolved_from` is the first sample of the earliest utterance that is not published yet.
        """
        limit = self._segmenter.safe_until * self._frame
        if unresolved_from is not None:
            limit = min(limit, unresolved_from)
        best = None
        while self._snapshots and self._snapshots[0].offset <= limit:
            best = self._snapshots.popleft()
        return best

    def put_back(self, checkpoint: Checkpoint) -> None:
        """The last `best_checkpoint` could not be stored: offer it again."""
        self._snapshots.appendleft(checkpoint)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _span(self, event: SegmentEvent) -> TrackEvent:
        if isinstance(event, Closed | Paused):
            cut = isinstance(event, Closed) and event.cut
            if cut and self._quiet is not None:
                self._keep(self._quiet)
            samples = self._slice(event.start, event.end + (0 if cut else self._segmenter.settings.tail))
            start, end = self._clip(event.start)[0], self._clip(event.end)[1]
            return Span(start=start, end=end, samples=samples, complete=isinstance(event, Closed))
        if isinstance(event, Opened):
            start = self._clip(event.start)[0]
            while self._snapshots and self._snapshots[-1].offset > start:
                self._snapshots.pop()  # inside the utterance, by its pre-roll
            return Opening(start=start)
        return Click()

    def _jump(self, samples: int) -> None:
        start, frame = self.position, self._frame
        before = self._segmenter.state.position
        resumed = start + samples
        grid = resumed // frame
        spare = resumed - grid * frame
        self._limit = None
        self._processed_gap += samples
        self._segmenter.jump(grid)
        self._start_floor = resumed
        self.front_end = None
        self._base = grid
        self._sound.clear()
        if grid >= before:
            self._keep(msgspec.structs.replace(self._checkpoint(grid), gap=self._processed_gap - spare))
        if spare:
            if not self._inbox or isinstance(self._inbox[0], _Gap):
                self._inbox.appendleft(bytearray())
            head = self._inbox[0]
            assert isinstance(head, bytearray)  # noqa: S101 - see above
            head[:0] = bytes(2 * spare)

    def _checkpoint(self, position: int, start: int = -1) -> Checkpoint:
        state = _copy(self._segmenter.state)
        if start >= 0:
            state.start, state.voiced = start, 0
        return Checkpoint(
            offset=position * self._frame,
            start_floor=self._start_floor,
            gap=self._processed_gap,
            origin_ns=self.origin_ns,
            segmenter=state,
            front_end=self.front_end,
        )

    def _keep(self, checkpoint: Checkpoint) -> None:
        if self._snapshots and self._snapshots[-1].offset >= checkpoint.offset:
            return
        if len(self._snapshots) >= MAX_SNAPSHOTS:
            del self._snapshots[MAX_SNAPSHOTS // 2]
        self._snapshots.append(checkpoint)

    def _clip(self, frame: int) -> tuple[int, int]:
        """A frame boundary as a start and as an end, in samples: never inside a gap, never past the end."""
        offset = frame * self._frame
        return max(offset, self._start_floor), offset if self._limit is None else min(offset, self._limit)

    def _slice(self, start: int, end: int) -> Int16:
        first = max(0, start - self._base) * ENGINE_FRAME * 2
        return np.frombuffer(bytes(self._sound[first : (end - self._base) * ENGINE_FRAME * 2]), np.int16)

    def _trim(self) -> None:
        spare = self._segmenter.safe_until - self._base
        if spare >= TRIM_FRAMES:
            del self._sound[: spare * ENGINE_FRAME * 2]
            self._base += spare


def _copy(state: SegmenterState) -> SegmenterState:
    return msgspec.structs.replace(state)
