"""Sound on its way in: from an ingest to the tracks of a conversation, held back while too much is unacknowledged."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from quickcomm.audio.model.formats import Int16
from quickcomm.audio.model.track import Track
from quickcomm.audio.model.twins import Twins
from quickcomm.audio.ports import Stored
from quickcomm.audio.service.arrivals import Arrivals
from quickcomm.audio.service.front_end import Fail, Sink
from quickcomm.audio.service.listener import Tools
from quickcomm.audio.service.pace import Pace
from quickcomm.audio.service.voice import Voice
from quickcomm.contracts.audio_socket import HELD_BACK_BYTES_S

SAMPLE_BYTES: Final = 2
LOOK_AGAIN_S: Final = 1.0
LEAST_S: Final = 30
"""Sound that each client may be ahead by however much the process holds: enough for the longest utterance to end."""

log = structlog.get_logger(__name__)


class Intake:
    def __init__(self, stored: Stored, tools: Tools) -> None:
        settings, clock = tools.settings, tools.clock
        self._format = stored.format
        self._clock = clock
        self._front_end = tools.front_end
        self._process = tools.held
        self._held = 0
        self._gaps: deque[tuple[int, int]] = deque()
        """Declared gaps that are not acknowledged, as (end, samples), and how much that is."""
        self._gap_ahead = 0
        self._window = stored.format.sample_rate * settings.max_unacked_ms // 1000
        self._least = stored.format.sample_rate * LEAST_S
        self._room = asyncio.Event()
        self._room.set()
        self._pace = Pace(clock)
        self._stopped_at: int | None = None
        """The next sample, where the client seemed to have stopped at the last look."""
        self._twins = Twins(stored.format.sample_rate, stored.format.speakers)
        self._note = {"conversation_id": stored.conversation_id, "channel": stored.channel}
        self.voices = [
            Voice(
                Track(speaker, stored.format, settings.segmenter, checkpoint),
                checkpoint,
                ledger,
                taken_over=not stored.created,
            )
            for speaker, (checkpoint, ledger) in enumerate(zip(stored.checkpoints, stored.ledgers, strict=True))
        ]
        self._tracks = [voice.track for voice in self.voices]
        self._acked = self.on_grid(min(checkpoint.offset for checkpoint in stored.checkpoints))
        self.next_offset = self._received()
        """The offset at which the client goes on: of what comes from there."""
        self.last_sound = clock.monotonic()
        self.arrivals = Arrivals(
            stored.format.sample_rate, clock.now_ns(), self.next_offset, stored.checkpoints[0].origin_ns
        )

    @property
    def same_tracks(self) -> bool:
        """Return True if two speakers' tracks carry the same sound."""
        return self._twins.same

    def has_stopped(self) -> bool:
        """Return True if the client sends no more, though it could, as a radio whose key was let go. Ask at each look.

        It is believed at the second look in a row: a process that could not read for a second finds what the client
        has sent meanwhile before that.
        """
        stopped = self._room.is_set() and self._pace.stopped
        seen, self._stopped_at = self._stopped_at, self.next_offset if stopped else None
        return stopped and seen == self.next_offset

    @property
    def window(self) -> int:
        """Samples that the client may be ahead of the acks."""
        return self._least if self._process.full else self._window

    def attach(self, sink: Sink, fail: Fail) -> None:
        """Have the tracks heard. Raises `BusyError` where the front end has no place."""
        for voice, track in zip(self.voices, self._tracks, strict=True):
            voice.lane = self._front_end.attach(track, sink, fail)

    def detach(self) -> None:
        """Give back places and memory."""
        for voice in self.voices:
            voice.take_back()
            if voice.lane is not None:
                self._front_end.detach(voice.lane)
                voice.lane = None
        self._window = 0  # from now on nothing is held
        self._hold(0)
        self._room.set()

    def connected(self) -> None:
        """Take the sound of a new connection."""
        self.arrivals.connected()
        self._pace = Pace(self._clock)  # how long it was cut off is not its pace
        self._stopped_at = None
        self.last_sound = self._clock.monotonic()
        self.next_offset = self._received()

    def disconnected(self) -> None:
        """Let no one wait for room any more."""
        self._room.set()

    async def take(self, tracks: Sequence[Int16 | None], samples: int) -> None:
        """Take the next `samples` of each speaker: int16[samples], or None for a gap. Wait while there is no room."""
        if not any(track is None for track in tracks):
            self._compare([track for track in tracks if track is not None])
        for track, part in zip(self._tracks, tracks, strict=True):
            known = max(0, track.received - self.next_offset)
            if part is None:
                track.skip(max(0, samples - known))
            else:
                track.feed(part[known:])
        self.next_offset += samples
        if any(track is None for track in tracks):
            self._note_gap(samples)
        self._hold(self.next_offset - self._acked)
        self._pace.came(self._format.seconds(samples))
        self.last_sound = self._clock.monotonic()
        self.arrivals.add(self.next_offset, self._clock.now_ns())
        self._tracks[0].origin_ns = self.arrivals.steady_origin
        self._wake(*self.voices)
        if self._full():
            self._room.clear()
            await self._wait_for_room(samples)

    def acknowledged(self, offset: int) -> None:
        """Forget what lies before an acknowledged offset, and let the client go on where there is room again."""
        self._acked = offset
        while self._gaps and self._gaps[0][0] <= offset:
            self._gap_ahead -= self._gaps.popleft()[1]
        self.arrivals.forget(offset)
        self._hold(self.next_offset - offset)
        if not self._full():
            self._room.set()

    def captured(self, offset: int, at_ns: int) -> None:
        """Date the sample at `offset`, and so the ones behind it, by the client's word."""
        self.arrivals.tell(offset, at_ns, self._clock.now_ns())

    def flush(self, offset: int) -> None:
        """End what is open after `offset` samples. Raises `InvalidInputError` where too many are announced."""
        for track in self._tracks:
            track.flush(offset)
        self._wake(*self.voices)

    def flush_open(self) -> None:
        """End what is open now. Idempotent."""
        for voice, track in zip(self.voices, self._tracks, strict=True):
            if not track.idle or track.has_work:
                track.flush()
                self._wake(voice)

    def end(self) -> None:
        """Take no more."""
        for track in self._tracks:
            track.end()
        self._wake(*self.voices)

    def on_grid(self, offset: int) -> int:
        return offset - offset % self._format.frame

    def _wake(self, *voices: Voice) -> None:
        """Have the front end look at the tracks."""
        for voice in voices:
            if voice.lane is not None:
                self._front_end.poke(voice.lane)

    def _received(self) -> int:
        """Return where a client goes on: on the frame grid, though a stream may have begun anew within a frame."""
        received = min(track.received for track in self._tracks)
        return received if self._tracks[0].ended else self.on_grid(received)

    def _compare(self, tracks: Sequence[Int16]) -> None:
        if self._twins.compare(tracks):
            log.warning("conversation.tracks_identical", **self._note)

    def _full(self) -> bool:
        return self.next_offset - self._acked >= self.window

    async def _wait_for_room(self, samples: int) -> None:
        """Wait until the client may be read on. While the process has memory, read slowly: its pings lie behind."""
        pause_s = min(LOOK_AGAIN_S, samples * self._format.block_bytes / HELD_BACK_BYTES_S)
        while True:
            try:
                async with self._clock.timeout(pause_s):
                    await self._room.wait()
                    return
            except TimeoutError:
                if not self._process.full:
                    return
                pause_s = LOOK_AGAIN_S

    def _note_gap(self, samples: int) -> None:
        self._gap_ahead += samples
        if self._gaps and self._gaps[-1][0] == self.next_offset - samples:
            samples += self._gaps.pop()[1]
        self._gaps.append((self.next_offset, samples))

    def _hold(self, ahead: int) -> None:
        """Count the bytes that are held. A declared gap is no sound."""
        held = max(0, ahead - self._gap_ahead) * len(self._tracks) * SAMPLE_BYTES if self._window else 0
        self._process.total += held - self._held
        self._held = held
