"""Copies some of the conversations that this side serves to the other one, which hears them in the shadow.

It copies a share of all; and where these are fewer than `AT_LEAST`, others in which somebody was just heard, so that a
side that hears wrongly is found soon on a small site, too.

Nothing here waits, and nothing is kept for a peer: what the live channel cannot carry is lost, and the peer begins that
conversation anew. See docs/adr/0048.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from quickcomm.audio.model.formats import Int16
from quickcomm.audio.service.share import Share
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.identity import BUCKETS, bucket
from quickcomm.contracts.link import ServedText, SoundCopy
from quickcomm.contracts.messaging import Topic
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.clock import Clock

TOGETHER_S: Final = 0.2
"""So much sound goes in one message, if nothing else is to be said."""
MOST_BYTES: Final = 32_768
"""Of sound in a message."""
SAMPLE_BYTES: Final = 2
SALT: Final = "shadow-of-sound"
AT_LEAST: Final = 3
QUIET_S: Final = 60.0
"""A conversation beside the share in which nobody was heard for so long makes room for another one."""
Key = tuple[str, str]


class Source(Protocol):
    """A conversation. `told_until`: what lies before it is written down, and was told."""

    id: str
    format: AudioFormat

    @property
    def key(self) -> Key: ...

    @property
    def told_until(self) -> int: ...


class Hearers(Protocol):
    """The processes of the other side."""

    def takes_copies(self, name: str) -> bool: ...

    def hearer(self, conversation_id: str) -> str | None: ...


class Copying(Protocol):
    """What a conversation tells of its sound."""

    def sound(self, source: Source, offset: int, tracks: Sequence[Int16 | None], samples: int) -> None: ...

    def flush(self, source: Source, offset: int) -> None: ...

    def over(self, key: Key) -> None: ...

    def forget(self, source: Source) -> None: ...


class NoCopies:
    """Implements `Copying` where nothing moves."""

    def sound(self, source: Source, offset: int, tracks: Sequence[Int16 | None], samples: int) -> None:
        """Do nothing."""

    def flush(self, source: Source, offset: int) -> None:
        """Do nothing."""

    def over(self, key: Key) -> None:
        """Do nothing."""

    def forget(self, source: Source) -> None:
        """Do nothing."""


class _Line(msgspec.Struct, eq=False, kw_only=True):
    """A conversation that is copied to the process `to`. `next_offset`: of what is sent next."""

    source: Source
    to: str
    next_offset: int
    held: list[bytearray]
    number: int = 0
    flushed: int = -1

    @property
    def known(self) -> int:
        """The offset before which everything is sent, or held to be sent."""
        return self.next_offset + len(self.held[0]) // SAMPLE_BYTES


class Copies:
    def __init__(
        self, share: Share, hearers: Hearers, portion: float, publish: Callable[[Topic], None], clock: Clock
    ) -> None:
        """`portion`: of all conversations, 0 to 1; at 0 none is copied."""
        self._share = share
        self._hearers = hearers
        self._below = round(portion * BUCKETS)
        self._publish = publish
        self._clock = clock
        self._lines: dict[Key, _Line] = {}
        self._beside: dict[Key, float] = {}
        """Conversations that are copied beside the share, and when somebody was last heard in each."""

    def takes(self, conversation_id: str) -> bool:
        """Return True for the share: the same in every process, and each time."""
        return bucket(SALT, conversation_id) < self._below

    def sound(self, source: Source, offset: int, tracks: Sequence[Int16 | None], samples: int) -> None:
        """Copy `samples` of each speaker from `offset` on; None is a gap. What was copied before is left out."""
        if not self.takes(source.id) and source.key not in self._beside:
            return
        line = self._line(source, offset)
        if line is None:
            return
        known = max(0, line.known - offset)
        if known >= samples:
            return
        if offset > line.known or any(track is None for track in tracks):
            self._send_held(line)
            line.next_offset = offset + known
            self._send(line, [None if each is None else each[known:].tobytes() for each in tracks], samples - known)
            return
        for held, track in zip(line.held, tracks, strict=True):
            assert track is not None  # noqa: S101 - looked at just above
            held.extend(track[known:].tobytes())
        if len(line.held[0]) >= SAMPLE_BYTES * TOGETHER_S * source.format.sample_rate:
            self._send_held(line)

    def flush(self, source: Source, offset: int) -> None:
        """Tell that a key was let go after `offset` samples, once."""
        line = self._lines.get(source.key)
        if line is not None and offset > line.flushed:
            line.flushed = offset
            self._send_held(line)
            self._send(line, (), 0, flush=offset)

    def served(self, message: UtteranceTranscribed) -> None:
        """Tell what this side has written down. What is said next is copied, where few are."""
        key = (message.site, message.conversation_id)
        self._heard(key)
        line = self._lines.get(key)
        if line is None:
            return
        self._send_held(line)
        told = ServedText(
            to=line.to,
            site=message.site,
            conversation_id=message.conversation_id,
            number=line.number,
            speaker=message.speaker,
            start_offset=message.start_offset,
            end_offset=message.end_offset,
            text=message.text,
            settled=line.source.told_until,
        )
        line.number += 1
        self._publish(told)

    def over(self, key: Key) -> None:
        """Tell that a conversation has ended, and all of it is written down."""
        self._beside.pop(key, None)
        line = self._lines.pop(key, None)
        if line is not None:
            self._send_held(line)
            self._send(line, (), 0, over=True)

    def forget(self, source: Source) -> None:
        """Copy no more of it: another process goes on with it."""
        line = self._lines.get(source.key)
        if line is None or line.source is source:
            self._lines.pop(source.key, None)
            self._beside.pop(source.key, None)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _heard(self, key: Key) -> None:
        """Copy this conversation beside the share, if there is a place."""
        now = self._clock.monotonic()
        if key not in self._beside:
            if not self._below or self.takes(key[1]) or not self._share.copied:
                return
            for quiet in [each for each, at in self._beside.items() if at < now - QUIET_S]:
                self.over(quiet)
            if len(self._beside.keys() | self._lines.keys()) >= AT_LEAST:
                return
        self._beside[key] = now

    def _line(self, source: Source, offset: int) -> _Line | None:
        """Return the line of a conversation, begun anew where there is none; None where nobody can hear it."""
        line = self._lines.get(source.key)
        if line is not None and self._share.copied and self._hearers.takes_copies(line.to):
            line.source = source
            return line
        to = self._hearers.hearer(source.id) if self._share.copied else None
        if to is None:
            self._lines.pop(source.key, None)
            return None
        held = [bytearray() for _ in range(source.format.speakers)]
        line = self._lines[source.key] = _Line(source=source, to=to, next_offset=offset, held=held)
        return line

    def _send_held(self, line: _Line) -> None:
        """Send the sound that has come together, in pieces of bounded size."""
        sound = [bytes(held) for held in line.held]
        for held in line.held:
            held.clear()
        step = MOST_BYTES // len(sound) // SAMPLE_BYTES * SAMPLE_BYTES
        for at in range(0, len(sound[0]), step):
            piece = [each[at : at + step] for each in sound]
            self._send(line, piece, len(piece[0]) // SAMPLE_BYTES)

    def _send(
        self,
        line: _Line,
        tracks: Sequence[bytes | None],
        samples: int,
        *,
        flush: int | None = None,
        over: bool = False,
    ) -> None:
        site, conversation_id = line.source.key
        told = SoundCopy(
            to=line.to,
            site=site,
            conversation_id=conversation_id,
            number=line.number,
            sample_rate=line.source.format.sample_rate,
            offset=line.next_offset,
            samples=samples,
            tracks=tuple(tracks) or (None,) * line.source.format.speakers,
            flush=flush,
            settled=line.source.told_until,
            over=over,
        )
        line.number += 1
        line.next_offset += samples
        self._publish(told)
