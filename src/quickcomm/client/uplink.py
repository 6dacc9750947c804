"""What is still to be sent and what may be forgotten: the client's bookkeeping, without any I/O.

Offsets are samples per speaker from the start of the conversation. Audio stays here until the server's ack passes it.
"""

from collections import deque
from typing import Final

import msgspec

from quickcomm.contracts.audio_socket import MAX_MESSAGE_MS, AudioFormat, End, Flush, Skip

LIVE_MEMORY_MS: Final = 600_000
"""Sound of a live source that is kept while no server takes it: 19 MB at 16 kHz."""
_CLOCK_MOVED_S: Final = 0.25
PIECE_BYTES: Final = 200
"""That a piece of sound, or a mark, takes beside its samples."""


class CapturedAt(msgspec.Struct, frozen=True, kw_only=True):
    """When the sample at `offset` was captured, in seconds of the client's own clock."""

    offset: int
    at: float


Outgoing = bytes | Skip | Flush | End | CapturedAt


class _Piece(msgspec.Struct, kw_only=True):
    """Neighbouring samples; `pcm` is None where they are missing. `at`: when the first was captured, where known.

    `released`: no samples at all; the offset at which the speaker let go of the key.
    """

    samples: int
    pcm: bytes | None
    at: float | None = None
    released: int | None = None


class Uplink:
    """`acked ≤ position ≤ produced`: forgotten, sent, waiting.

    A source that can wait is held back by `room`. One that cannot (`live`) loses its oldest audio when the memory is
    full: a declared gap stands in its place.
    """

    def __init__(
        self,
        fmt: AudioFormat,
        *,
        message_ms: int = 100,
        memory_ms: int | None = None,
        live: bool = False,
        eager: bool = False,
    ) -> None:
        """`eager`: messages are sent as soon as there is anything, and `message_ms` is the most that one has."""
        self._format = fmt
        self._message = fmt.samples(min(max(message_ms, 1), MAX_MESSAGE_MS))
        self._memory_ms = memory_ms
        self._window_ms = memory_ms or 60_000
        self.live = live
        self._eager = eager
        self._sent: deque[_Piece] = deque()
        self._unsent: deque[_Piece] = deque()
        self._held = 0
        self._joined = False
        self._already = 0
        self._end_sent = False
        self._clock: float | None = None
        """When sample 0 was captured, as the server was last told on this connection."""
        self.finished = False
        self.lost = 0
        """Samples that had to make room for newer ones."""
        self.acked = 0
        self.position = 0
        self.produced = 0

    @property
    def memory(self) -> int:
        """Samples that are kept at most."""
        usual = LIVE_MEMORY_MS if self.live else self._window_ms
        return self._format.samples(self._memory_ms or usual)

    @property
    def room(self) -> int:
        """Samples that may be taken in now."""
        return max(0, self.memory - self._held)

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that unacked sound takes, with what each piece of it costs."""
        return self._held * self._format.block_bytes + (len(self._sent) + len(self._unsent)) * PIECE_BYTES

    @property
    def unacked(self) -> int:
        return self.produced - self.acked

    def append(self, pcm: bytes, captured_at: float | None = None) -> None:
        """Take whole blocks in, captured until `captured_at`; those of a live source push out the oldest."""
        known = self._known(len(pcm) // self._format.block_bytes)
        pcm = pcm[known * self._format.block_bytes :]
        samples = len(pcm) // self._format.block_bytes
        if not samples:
            return
        at = None if captured_at is None else captured_at - self._format.seconds(samples)
        self._unsent.append(_Piece(samples=samples, pcm=pcm, at=at))
        self._held += samples
        self.produced += samples
        if self.live:
            self._make_room()

    def append_gap(self, samples: int) -> None:
        samples -= self._known(samples)
        if not samples:
            return
        last = self._unsent[-1] if self._unsent else None
        if last is not None and last.pcm is None and last.released is None:
            last.samples += samples
        else:
            self._unsent.append(_Piece(samples=samples, pcm=None))
        self.produced += samples

    def release(self, offset: int | None = None) -> None:
        """The speaker let go of the key: here, or after `offset` samples."""
        at = self.produced if offset is None else offset
        last = self._unsent[-1] if self._unsent else None
        if at and not (last is not None and last.released == at):
            self._unsent.append(_Piece(samples=0, pcm=None, released=at))

    def finish(self) -> None:
        self.finished = True

    def begin_at(self, offset: int) -> None:
        """Before anything is appended: what comes is behind `offset`, where the conversation stands."""
        self._joined = True
        self.acked = self.position = self.produced = offset

    def on_ready(self, next_offset: int, max_unacked_ms: int) -> None:
        """A (new) connection: everything from `next_offset` on has to be sent (again)."""
        self._window_ms = max_unacked_ms
        self._end_sent = False
        self._clock = None
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self.position = self.acked
        first, self._joined = not self._joined, True
        if first and self.live:
            # What a live source brings now was never heard before, wherever the conversation stands.
            self.acked = self.position = next_offset
            self.produced += next_offset
        elif next_offset < self.acked:
            self._unsent.appendleft(_Piece(samples=self.acked - next_offset, pcm=None))
            self.acked = self.position = next_offset
        else:
            self._go_to(next_offset)
            if first or next_offset > self.position:
                self._forget_until(next_offset)

    def begin_anew(self, offset: int) -> None:
        """The conversation ended with what lies before `offset`: the rest goes to another one, from 0 on."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self.position = self.acked
        self._go_to(offset)
        while self._sent:
            self._drop(self._sent.popleft())
        self.produced = sum(piece.samples for piece in self._unsent)
        self.acked = self.position = self._already = 0
        self._end_sent = False

    def on_ack(self, offset: int) -> None:
        while self._sent and self.acked < offset:
            piece = self._sent.popleft()
            if piece.samples > offset - self.acked:
                piece, rest = self._split(piece, offset - self.acked)
                self._sent.appendleft(rest)
            self._drop(piece)

    def next_message(self) -> Outgoing | None:
        """What to send now, or None: wait for audio or for an ack."""
        if not self._unsent:
            return self._end()
        if (released := self._unsent[0].released) is not None:
            self._mark_sent(self._unsent.popleft())
            return Flush(offset=released)
        if self.position + self._message > self.acked + self._window():
            return None
        if self._unsent[0].pcm is None:
            gap = self._unsent.popleft()
            self._mark_sent(gap)
            return Skip(samples=gap.samples)
        if self._moved(self._unsent[0]):
            return self._captured(self._unsent[0])
        return self._audio()

    def _end(self) -> End | None:
        if not self.finished or self._end_sent:
            return None
        self._end_sent = True
        return End()

    def _audio(self) -> bytes | None:
        size = self._message
        if not (self.finished or self._eager or self._available(size)):
            return None
        parts: list[bytes] = []
        while size and self._unsent:
            piece = self._unsent[0]
            if piece.pcm is None or self._moved(piece):
                break
            self._unsent.popleft()
            if piece.samples > size:
                piece, rest = self._split(piece, size)
                self._unsent.appendleft(rest)
            size -= piece.samples
            parts.append(piece.pcm or b"")
            self._mark_sent(piece)
        return b"".join(parts)

    def _available(self, size: int) -> bool:
        """Whether a whole message is there, or one that a gap cuts short."""
        for piece in self._unsent:
            size -= piece.samples
            if size <= 0 or piece.pcm is None:
                return True
        return False

    def _known(self, samples: int) -> int:
        """How much of what comes now the server has from an earlier life of this client."""
        known = min(samples, self._already)
        self._already -= known
        return known

    def _make_room(self) -> None:
        """Lose the oldest audio, sent or not, that does not fit."""
        excess = self._held - self.memory
        if excess > 0:
            self.lost += excess
            self._held -= excess
            self._lose(self._unsent, self._lose(self._sent, excess))

    def _lose(self, queue: deque[_Piece], excess: int) -> int:
        """Replace the first `excess` samples of audio by a gap; return how many there were too few."""
        gap = 0
        while queue and (excess or queue[0].pcm is None):
            piece = queue.popleft()
            if piece.pcm is not None:
                if piece.samples > excess:
                    piece, rest = self._split(piece, excess)
                    queue.appendleft(rest)
                excess -= piece.samples
            gap += piece.samples
        if gap:
            queue.appendleft(_Piece(samples=gap, pcm=None))
        return excess

    def _moved(self, piece: _Piece) -> bool:
        """Whether the server would take this piece for later or earlier than it was."""
        if piece.at is None:
            return False
        return self._clock is None or abs(self._start(piece.at) - self._clock) > _CLOCK_MOVED_S

    def _captured(self, piece: _Piece) -> CapturedAt:
        assert piece.at is not None  # noqa: S101 - it has moved
        self._clock = self._start(piece.at)
        return CapturedAt(offset=self.position, at=piece.at)

    def _start(self, at: float) -> float:
        """When sample 0 was captured, if the one at `position` was at `at`."""
        return at - self._format.seconds(self.position)

    def _window(self) -> int:
        return self._format.samples(min(self._window_ms, self._memory_ms or self._window_ms))

    def _mark_sent(self, piece: _Piece) -> None:
        self._sent.append(piece)
        self.position += piece.samples

    def _go_to(self, offset: int) -> None:
        """Leaves out what the server has, but keeps it: only an ack says that it is safe."""
        while self._unsent and self.position < offset:
            piece = self._unsent.popleft()
            if piece.samples > offset - self.position:
                piece, rest = self._split(piece, offset - self.position)
                self._unsent.appendleft(rest)
            self._mark_sent(piece)

    def _forget_until(self, offset: int) -> None:
        """The server has more than this client ever held: its earlier life sent it."""
        self.on_ack(offset)
        self._already += offset - self.position
        self.acked = self.position = offset
        self.produced = max(self.produced, offset)

    def _drop(self, piece: _Piece) -> None:
        self.acked += piece.samples
        if piece.pcm is not None:
            self._held -= piece.samples

    def _split(self, piece: _Piece, samples: int) -> tuple[_Piece, _Piece]:
        cut = samples * self._format.block_bytes
        head = None if piece.pcm is None else piece.pcm[:cut]
        tail = None if piece.pcm is None else piece.pcm[cut:]
        later = None if piece.at is None else piece.at + self._format.seconds(samples)
        return (
            _Piece(samples=samples, pcm=head, at=piece.at),
            _Piece(samples=piece.samples - samples, pcm=tail, at=later),
        )
