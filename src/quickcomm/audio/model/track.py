"""One speaker's stream: samples in, frames to the front end, utterance spans out, and how far it may be acked.

Data waits in `_inbox` in the order it came: sound, and breaks (a declared gap, a key that was let go, the end). Frames
are handed out with `take`, their voice probabilities come back with `step`.
"""

import bisect
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from quickcomm.audio.model.checkpoint import Checkpoint, FrontEndState
from quickcomm.audio.model.formats import ENGINE_FRAME, Int16
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
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.kernel.errors import InvalidInputError

MAX_SNAPSHOTS: Final = 64
MAX_PLANNED: Final = 1_024
TRIM_FRAMES: Final = 16


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of speech in samples at the client's rate, with its sound: int16[n] at 16 kHz."""

    start: int
    end: int
    samples: Int16
    complete: bool = True
    """False for a pause: the utterance may still go on."""
    voiced: int = 0
    """Frames of voice in a complete one."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody began to speak at sample `start`."""

    start: int


class Click(msgspec.Struct, frozen=True):
    """What opened was too short for speech."""


TrackEvent = Span | Opening | Click


class _Break(msgspec.Struct):
    """What is open ends here, and the stream begins anew `lost` samples further on."""

    lost: int = 0


class Track:
    """The stream of one speaker, from the beginning or from a checkpoint."""

    def __init__(
        self, speaker: int, audio_format: AudioFormat, settings: SegmenterSettings, at: Checkpoint | None = None
    ) -> None:
        at = at or Checkpoint()
        self.speaker = speaker
        self.format = audio_format
        self._frame = audio_format.frame
        self.front_end = at.front_end
        self.voiced_off = settings.voiced_off
        self.received = at.offset
        """Samples accepted so far, gaps included."""
        self.gap = at.gap
        self.origin_ns = at.origin_ns
        """Goes into checkpoints, see there."""
        self.ended = False
        state = _moved(at.segmenter, -(at.start_floor // self._frame))
        self._segmenter = Segmenter(settings, state)
        self._origin = at.offset - state.position * self._frame
        """Where the stream began anew; the segmenter counts its frames from there."""
        self._next_origin = self._origin
        """The same for what was received last."""
        self._inbox: deque[bytearray | _Break] = deque()
        self._base = state.position
        self._sound = bytearray()
        self._snapshots: deque[Checkpoint] = deque()
        self._quiet: Checkpoint | None = None
        self._processed_gap = at.gap
        self._silence = at.silence
        self._counted = at.offset
        """Every sample before it is in an utterance, in a gap, or counted as silence."""
        self._limit: int | None = None
        self._planned: list[int] = []
        """Offsets still to come at which the speaker lets go of the key, in order."""

    # -- in ---------------------------------------------------------------------------------------------------------

    def feed(self, samples: Int16) -> None:
        """Take sound, int16[n]."""
        while self._planned and self._planned[0] - self.received <= len(samples):
            before = self._planned.pop(0) - self.received
            self._take_in(samples[:before])
            samples = samples[before:]
            self.flush()
        self._take_in(samples)

    def _take_in(self, samples: Int16) -> None:
        if not len(samples):
            return
        if not self._inbox or isinstance(self._inbox[-1], _Break):
            self._inbox.append(bytearray())
        tail = self._inbox[-1]
        assert isinstance(tail, bytearray)  # noqa: S101 - appended just above
        tail += samples.tobytes()
        self.received += len(samples)

    def skip(self, samples: int) -> None:
        """Declare a gap."""
        if samples:
            self.received += samples
            self.gap += samples
            self._planned = [offset for offset in self._planned if offset > self.received]
            self._break(samples)

    def flush(self, offset: int | None = None) -> None:
        """The speaker let go of the key after `offset` samples, or now: what is open ends there, for good.

        What was heard beyond `offset` already stays as it is. Less than a frame since the last break is no
        transmission: it goes with what follows. Raises `InvalidInputError` where too many are announced.
        """
        if offset is not None and offset > self.received:
            if len(self._planned) >= MAX_PLANNED:
                raise InvalidInputError("Too many flushes are announced for sound that has not come.")
            if offset not in self._planned:
                bisect.insort(self._planned, offset)
        elif offset in {None, self.received} and self.received - self._next_origin >= self._frame:
            self._break(0)

    def end(self) -> None:
        """No more will come; what is left is padded to a whole frame."""
        if self.received > self._next_origin:
            self._break(0)
        self.ended = True

    def _break(self, lost: int) -> None:
        self._inbox.append(_Break(lost))
        self._next_origin = self.received

    # -- frames -----------------------------------------------------------------------------------------------------

    @property
    def stride(self) -> int:
        """Most frames that may be taken at once: only the last may close an utterance, or be the place of a cut."""
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
        return isinstance(head, _Break) or len(head) >= 2 * self._frame or len(self._inbox) > 1

    @property
    def drained(self) -> bool:
        return not self._inbox

    def pass_breaks(self) -> list[TrackEvent]:
        """Pass the breaks that are next, closing what is open; the front end starts afresh behind them."""
        events: list[TrackEvent] = []
        while self._inbox and isinstance(head := self._inbox[0], _Break):
            self._inbox.popleft()
            event = self._segmenter.flush()
            events += [] if event is None else [self._span(event)]
            self._begin_anew(head.lost)
        return events

    def take(self, limit: int) -> Int16:
        """Up to `limit` whole frames: int16[k, frame] at the client's rate; k is 0 where nothing is ready."""
        frame = self._frame
        if not self._inbox or isinstance(head := self._inbox[0], _Break):
            return np.empty((0, frame), np.int16)
        count = min(limit, len(head) // (2 * frame))
        if count == 0 and len(self._inbox) > 1:
            self._limit = self.position + len(head) // 2
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

    # -- out --------------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Samples that went through the front end."""
        if self._limit is not None:
            return self._limit
        return self._at(self._segmenter.state.position)

    @property
    def open_start(self) -> int | None:
        start = self._segmenter.state.start
        return None if start < 0 else self._at(start)

    def open_sound(self) -> tuple[int, Int16] | None:
        """Start (in samples) and sound of the utterance that is still open."""
        state = self._segmenter.state
        if state.start < 0:
            return None
        return self._at(state.start), self._slice(state.start, state.position)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Remember the present state as a place to restart from. Only useful while nothing is open."""
        state = self._segmenter.state
        if state.start < 0 and self._limit is None:
            self._keep(self._checkpoint(state.position))

    def snapshot_end(self, front_end: FrontEndState) -> None:
        """Remember the end of what has just closed as a place to restart from: nothing to come starts before it.

        So there is one however soon the next utterance opens. `front_end`: the state after its last voiced frame.
        """
        state = self._segmenter.state
        if state.start < 0 and self._limit is None and state.floor == state.voiced_end:
            self._keep(msgspec.structs.replace(self._checkpoint(state.floor), front_end=front_end))

    def best_checkpoint(self, unresolved_from: int | None) -> Checkpoint | None:
        """The furthest restart point before which everything is settled; None if there is no new one.

        `unresolved_from` is the first sample of the earliest utterance that is not published yet.
        """
        limit = self._at(self._segmenter.safe_until)
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
            start, end = self._at(event.start), self._at(event.end)
            if isinstance(event, Closed):
                self._count(start, end)
                return Span(start=start, end=end, samples=samples, voiced=event.voiced)
            return Span(start=start, end=end, samples=samples, complete=False)
        if isinstance(event, Opened):
            start = self._at(event.start)
            while self._snapshots and self._snapshots[-1].offset > start:
                self._snapshots.pop()  # inside the utterance, by its pre-roll
            return Opening(start=start)
        return Click()

    def _begin_anew(self, lost: int) -> None:
        self._count(self.position, self.position + lost)
        self._origin, self._limit = self.position + lost, None
        self._processed_gap += lost
        self._segmenter.restart()
        self.front_end = None
        self._base = 0
        self._sound.clear()
        self._keep(self._checkpoint(0))

    def _count(self, until: int, further: int) -> None:
        """What was not counted before `until` is silence; from there to `further` it is speech, or a gap."""
        self._silence += until - self._counted
        self._counted = further

    def _checkpoint(self, position: int, start: int = -1) -> Checkpoint:
        state = _moved(self._segmenter.state)
        state.position = position
        if start >= 0:
            state.start, state.floor, state.voiced = start, start, 0
        offset = self._at(position)
        return Checkpoint(
            offset=offset,
            start_floor=self._origin,
            gap=self._processed_gap,
            # Where an utterance is cut, all before it is in it.
            silence=self._silence + (offset - self._counted if start < 0 else self._silent_before_open()),
            origin_ns=self.origin_ns,
            segmenter=_moved(state, self._origin // self._frame),
            front_end=self.front_end,
        )

    def _silent_before_open(self) -> int:
        return self._at(self._segmenter.state.start) - self._counted

    def _keep(self, checkpoint: Checkpoint) -> None:
        """The newest for an offset is what counts: the stream may have begun anew there."""
        while self._snapshots and self._snapshots[-1].offset >= checkpoint.offset:
            self._snapshots.pop()
        if len(self._snapshots) >= MAX_SNAPSHOTS:
            self._drop_one()
        self._snapshots.append(checkpoint)

    def _drop_one(self) -> None:
        """Not one where the stream began anew, or a restart would join what was said before and behind it."""
        for index in range(MAX_SNAPSHOTS // 2, len(self._snapshots)):
            if self._snapshots[index].offset > self._snapshots[index].start_floor:
                del self._snapshots[index]
                return

    def _at(self, position: int) -> int:
        """The sample with which a frame begins; never past what came."""
        offset = self._origin + position * self._frame
        return offset if self._limit is None else min(offset, self._limit)

    def _slice(self, start: int, end: int) -> Int16:
        first = max(0, start - self._base) * ENGINE_FRAME * 2
        return np.frombuffer(bytes(self._sound[first : (end - self._base) * ENGINE_FRAME * 2]), np.int16)

    def _trim(self) -> None:
        spare = self._segmenter.safe_until - self._base
        if spare >= TRIM_FRAMES:
            del self._sound[: spare * ENGINE_FRAME * 2]
            self._base += spare


def _moved(state: SegmenterState, frames: int = 0) -> SegmenterState:
    """Copy a state, counting frames from elsewhere: a checkpoint counts them from the start of the conversation."""
    return msgspec.structs.replace(
        state,
        position=state.position + frames,
        floor=max(0, state.floor + frames),
        start=state.start + frames if state.start >= 0 else state.start,
        voiced_end=max(0, state.voiced_end + frames),
    )
