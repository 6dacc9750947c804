"""What is still to be sent and what may be forgotten: the client's bookkeeping, without any I/O.

Offsets are samples per speaker from the start of the conversation. Audio stays here until the server's ack passes it.
"""

from collections import deque
from typing import Final

import msgspec

from quickcomm.client.formats import MAX_MESSAGE_MS, AudioFormat

_REFILL_MS: Final = 1_000


class Skip(msgspec.Struct, frozen=True, kw_only=True, tag="skip"):
    """Audio that the client does not have any more: a declared gap."""

    samples: int


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """No more audio will come."""


Outgoing = bytes | Skip | End


class _Piece(msgspec.Struct, kw_only=True):
    """Neighbouring samples; `pcm` is None where they are missing."""

    samples: int
    pcm: bytes | None


class Uplink:
    """`acked ≤ position ≤ produced`: forgotten, sent, waiting.

    A source that can wait is held back by `room`; one that cannot (`live`) loses its newest audio when the memory is
    full, which becomes a declared gap. Nothing that was taken in is ever thrown out again.
    """

    def __init__(
        self, fmt: AudioFormat, *, message_ms: int = 100, memory_ms: int | None = None, live: bool = False
    ) -> None:
        self._format = fmt
        self._message = fmt.samples(min(max(message_ms, 1), MAX_MESSAGE_MS))
        self._memory_ms = memory_ms
        self._window_ms = memory_ms or 60_000
        self._live = live
        self._sent: deque[_Piece] = deque()
        self._unsent: deque[_Piece] = deque()
        self._held = 0
        self._overrun = False
        self._joined = False
        self._already = 0
        self._end_sent = False
        self.finished = False
        self.acked = 0
        self.position = 0
        self.produced = 0

    @property
    def room(self) -> int:
        """Samples that may be taken in now."""
        return max(0, self._format.samples(self._memory_ms or self._window_ms) - self._held)

    @property
    def unacked(self) -> int:
        return self.produced - self.acked

    def append(self, pcm: bytes) -> None:
        """Takes whole blocks in; what a live source brings while there is no room becomes a gap."""
        known = self._known(len(pcm) // self._format.block)
        pcm = pcm[known * self._format.block :]
        samples = len(pcm) // self._format.block
        if not samples:
            return
        if self._live and not self._takes(samples):
            self.append_gap(samples)
            return
        self._unsent.append(_Piece(samples=samples, pcm=pcm))
        self._held += samples
        self.produced += samples

    def append_gap(self, samples: int) -> None:
        samples -= self._known(samples)
        if not samples:
            return
        last = self._unsent[-1] if self._unsent else None
        if last is not None and last.pcm is None:
            last.samples += samples
        else:
            self._unsent.append(_Piece(samples=samples, pcm=None))
        self.produced += samples

    def finish(self) -> None:
        self.finished = True

    def on_ready(self, next_offset: int, max_unacked_ms: int) -> None:
        """A (new) connection: everything from `next_offset` on has to be sent (again)."""
        self._window_ms = max_unacked_ms
        self._end_sent = False
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self.position = self.acked
        first, self._joined = not self._joined, True
        if first and self._live:
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
        if self.position + self._message > self.acked + self._window():
            return None
        if self._unsent[0].pcm is None:
            gap = self._unsent.popleft()
            self._mark_sent(gap)
            return Skip(samples=gap.samples)
        return self._audio()

    def _end(self) -> End | None:
        if not self.finished or self._end_sent:
            return None
        self._end_sent = True
        return End()

    def _audio(self) -> bytes | None:
        size = self._message
        if not self.finished and not self._available(size):
            return None
        parts: list[bytes] = []
        while size and self._unsent:
            piece = self._unsent[0]
            if piece.pcm is None:
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

    def _takes(self, samples: int) -> bool:
        refill = self._format.samples(_REFILL_MS) if self._overrun else 0
        self._overrun = self.room < max(samples, refill)
        return not self._overrun

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
        cut = samples * self._format.block
        head = None if piece.pcm is None else piece.pcm[:cut]
        tail = None if piece.pcm is None else piece.pcm[cut:]
        return _Piece(samples=samples, pcm=head), _Piece(samples=piece.samples - samples, pcm=tail)
