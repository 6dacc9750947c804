"""Hears a share of the other side's conversations as well, and compares: nothing of it is published.

Fed by the live channel with copies of the sound and with what the other side has written down (`sound_copy`). It has
places of its own at the front end, and the engine only while that is idle. See docs/adr/0048.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import numpy as np
import structlog

from quickcomm.audio.model.comparing import Compared, Group, Uttered, compare, groups
from quickcomm.audio.model.formats import Int16
from quickcomm.audio.model.segmenter import SegmenterSettings
from quickcomm.audio.model.track import Span, Track, TrackEvent
from quickcomm.audio.ports import Transcript
from quickcomm.audio.service.front_end import FrontEnd, Lane
from quickcomm.audio.service.metrics import SHADOWED_SOUND
from quickcomm.audio.service.share import Share
from quickcomm.audio.service.transcriber import Transcriber
from quickcomm.audio.service.utterance import understood
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.evidence import MAX_DIFFERENCES, MAX_SAMPLES, Difference, HeardInShadow
from quickcomm.contracts.identity import utterance_id
from quickcomm.contracts.link import ServedText, SoundCopy
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError, QuickCommError
from quickcomm.kernel.messaging.live import HERE, Peer

MAX_HEARINGS: Final = 32
"""Conversations that are heard at the same time."""
MAX_WAITING: Final = 256
"""Utterances of a speaker that wait to be compared."""
_NOTHING: Final[Int16] = np.empty(0, np.int16)
SILENT_S: Final = 60.0
"""A conversation of which nothing comes for so long went elsewhere."""
LOOK_EVERY_S: Final = 1.0
WHOLE_S: Final = 1.0
"""What begins sooner behind the beginning of a copy may have begun before it."""
Key = tuple[str, str]

log = structlog.get_logger(__name__)


class _Own(msgspec.Struct, eq=False):
    """An utterance of this side. `text`: None where it was left out."""

    span: Span
    future: asyncio.Future[Transcript] | None

    @property
    def waits(self) -> bool:
        return self.future is not None and not self.future.done()

    @property
    def is_noise(self) -> bool:
        """Return True where nobody said anything: no utterance would come of it."""
        found = self._transcript
        return found is not None and understood(found, self.span.voiced) is None

    @property
    def uttered(self) -> Uttered:
        found = self._transcript
        return Uttered(start=self.span.start, end=self.span.end, text=None if found is None else found.text)

    @property
    def _transcript(self) -> Transcript | None:
        """What the engine made of it; empty where it failed, as where it serves."""
        if self.future is None or self.future.cancelled():
            return None
        return Transcript(text="") if self.future.exception() is not None else self.future.result()


class _Voice(msgspec.Struct, eq=False, kw_only=True):
    """A speaker of a conversation."""

    track: Track
    lane: Lane | None = None
    own: list[_Own] = msgspec.field(default_factory=list)
    served: list[Uttered] = msgspec.field(default_factory=list)


class Hearing:
    """A conversation that is heard in the shadow; a `Line` of the engine, behind all others."""

    urgent = False

    def __init__(self, copy: SoundCopy, settings: SegmenterSettings) -> None:
        self.key = copy.site, copy.conversation_id
        self.next_number = 0
        self.settled = 0
        self.over = False
        self.last = 0.0
        self.begins = copy.offset
        self._rate = copy.sample_rate
        self._flushed = 0
        audio_format = AudioFormat(sample_rate=copy.sample_rate, speakers=len(copy.tracks))
        self.voices = [_Voice(track=Track(speaker, audio_format, settings)) for speaker in range(len(copy.tracks))]
        for voice in self.voices:
            voice.track.skip(copy.offset)

    def take(self, copy: SoundCopy) -> None:
        """Hear a piece. Raises `ValueError` where it is none, or does not go on from the last one."""
        for voice, sound in zip(self.voices, copy.tracks, strict=True):
            track = voice.track
            if copy.offset < track.received:
                raise ValueError("This sound came before.")
            track.skip(copy.offset - track.received)  # nothing, but for a gap that the client has not declared
            if sound is None:
                track.skip(copy.samples)
            else:
                track.feed(np.frombuffer(sound, "<i2"))
            if copy.flush is not None:
                track.flush(copy.flush)
            if copy.over:
                track.end()
        self._flushed = max(self._flushed, copy.flush or 0)
        self.settled = max(self.settled, copy.settled)
        self.over |= copy.over

    def ready(self) -> list[tuple[int, Group]]:
        """Return what both sides have heard to the end by now, by speaker, and forget it."""
        return [(speaker, group) for speaker, voice in enumerate(self.voices) for group in self._ready(voice)]

    @property
    def done(self) -> bool:
        """Return True if everything was heard and compared."""
        return self.over and not any(
            voice.own or voice.served or voice.track.has_work or (voice.lane is not None and voice.lane.busy)
            for voice in self.voices
        )

    def _ready(self, voice: _Voice) -> list[Group]:
        voice.own = [each for each in voice.own if each.waits or not each.is_noise]
        told = [
            Uttered(start=each.span.start, end=each.span.end, text=None) if each.waits else each.uttered
            for each in voice.own
        ]
        first_waiting = min((each.span.start for each in voice.own if each.waits), default=None)
        found: list[Group] = []
        for group in groups(voice.served, told, self._rate):
            if not self._heard(voice, group.end) or (first_waiting is not None and group.end > first_waiting):
                break
            found.append(group)
        if found:
            until = max(group.end for group in found)
            voice.own = [each for each in voice.own if each.span.end > until]
            voice.served = [each for each in voice.served if each.end > until]
        return [group for group in found if group.start >= self.begins + self._grace]

    @property
    def _grace(self) -> int:
        return round(WHOLE_S * self._rate) if self.begins else 0

    def _heard(self, voice: _Voice, end: int) -> bool:
        """Return True if neither side can come with anything more that begins before `end`."""
        track = voice.track
        if track.open_start is not None and track.open_start < end:
            return False
        if self.over:
            return not track.has_work and (voice.lane is None or not voice.lane.busy)
        passed = track.position >= end + round(WHOLE_S * self._rate) or end <= self._flushed <= track.position
        return passed and self.settled >= end


class SoundShadow:
    def __init__(
        self,
        name: str,
        share: Share,
        front_end: FrontEnd,
        transcriber: Transcriber,
        clock: Clock,
        segmenter: SegmenterSettings,
    ) -> None:
        """`name`: of this process, as the other side knows it."""
        self._name = name
        self._share = share
        self._front_end = front_end
        self._transcriber = transcriber
        self._clock = clock
        self._segmenter = segmenter
        self._hearings: dict[Key, Hearing] = {}
        self._tally = Tally(clock, share.side)

    @property
    def hears(self) -> int:
        """Return how many conversations are heard now."""
        return len(self._hearings)

    def copied(self, copy: SoundCopy, peer: Peer) -> None:
        """Take a piece of sound; a conversation of which something was lost begins anew with it."""
        if peer is HERE or copy.to != self._name or not self._share.shadows:
            return
        hearing = self._of(copy) or self._begin(copy)
        if hearing is None:
            return
        try:
            hearing.take(copy)
        except (ValueError, QuickCommError):  # of a defective or foreign peer
            self._drop(hearing, "lost")
            return
        for voice in hearing.voices:
            if voice.lane is not None:
                self._front_end.poke(voice.lane)
        self._judge(hearing)

    def served(self, told: ServedText, peer: Peer) -> None:
        """Take what the other side has written down."""
        if peer is HERE or told.to != self._name or not self._share.shadows:
            return
        hearing = self._of(told)
        if hearing is None or told.speaker >= len(hearing.voices):
            return
        voice = hearing.voices[told.speaker]
        voice.served.append(Uttered(start=told.start_offset, end=told.end_offset, text=told.text))
        hearing.settled = max(hearing.settled, told.settled)
        if len(voice.served) > MAX_WAITING:
            self._drop(hearing, "lost")
            return
        self._judge(hearing)

    def since(self, since_ns: int) -> HeardInShadow | None:
        """Return what was compared since then; None where this side is no shadow."""
        return self._tally.since(since_ns) if self._share.shadows else None

    async def run(self) -> None:
        """Forget what goes on elsewhere, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            self.expire()

    def expire(self) -> None:
        """Forget conversations of which nothing comes any more, and all once this side is no shadow any more."""
        before = self._clock.monotonic() - SILENT_S
        for hearing in list(self._hearings.values()):
            if hearing.last < before or not self._share.shadows:
                self._drop(hearing)
            else:
                self._judge(hearing)  # the end of its sound may have been heard since

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(self, copy: SoundCopy) -> Hearing | None:
        if not copy.samples or len(self._hearings) >= MAX_HEARINGS:
            return None
        try:
            hearing = Hearing(copy, self._segmenter)
        except ValueError:  # a format that is not known here
            return None
        try:
            for voice in hearing.voices:
                hear = partial(self._hear, hearing, voice)
                voice.lane = self._front_end.attach(voice.track, hear, partial(self._failed, hearing))
        except BusyError:
            self._drop(hearing)
            return None
        self._hearings[hearing.key] = hearing
        hearing.next_number = copy.number
        return self._of(copy)

    def _of(self, message: SoundCopy | ServedText) -> Hearing | None:
        """Return the conversation of a message; None where one before it was lost."""
        hearing = self._hearings.get((message.site, message.conversation_id))
        if hearing is None:
            return None
        if message.number != hearing.next_number:
            self._drop(hearing, "lost")
            return None
        hearing.next_number += 1
        hearing.last = self._clock.monotonic()
        return hearing

    def _hear(self, hearing: Hearing, voice: _Voice, _track: Track, events: Sequence[TrackEvent]) -> None:
        """From the front end: what happened on a track in this tick."""
        for event in events:
            if isinstance(event, Span) and event.complete:
                self._finished(hearing, voice, event)
        if events:
            self._judge(hearing)

    def _finished(self, hearing: Hearing, voice: _Voice, span: Span) -> None:
        if len(voice.own) >= MAX_WAITING:
            self._drop(hearing, "lost")
            return
        text = self._transcriber.beside(span.samples, hearing)
        voice.own.append(_Own(msgspec.structs.replace(span, samples=_NOTHING), text))
        if text is None:
            self._tally.count("shed")
        else:
            text.add_done_callback(partial(self._has_text, hearing))

    def _has_text(self, hearing: Hearing, text: asyncio.Future[Transcript]) -> None:
        if text.cancelled() and self._hearings.get(hearing.key) is hearing:
            self._tally.count("shed")
        self._judge(hearing)

    def _judge(self, hearing: Hearing) -> None:
        if self._hearings.get(hearing.key) is not hearing:
            return
        for speaker, group in hearing.ready():
            found = compare(group, hearing.voices[speaker].track.format.sample_rate)
            if found is not None:
                self._tally.compared(found, hearing.key[1], utterance_id(hearing.key[1], speaker, _first(group).start))
        if hearing.done:
            self._drop(hearing)

    def _failed(self, hearing: Hearing, _error: Exception) -> None:
        self._drop(hearing, "lost")

    def _drop(self, hearing: Hearing, result: str = "") -> None:
        if self._hearings.get(hearing.key) is hearing:
            del self._hearings[hearing.key]
        for voice in hearing.voices:
            if voice.lane is not None:
                self._front_end.detach(voice.lane)
                voice.lane = None
            for each in voice.own:
                if each.future is not None:
                    each.future.cancel()
        if result:
            self._tally.count(result)


class Tally:
    """What a shadow has counted: bounded, the newest to stay."""

    def __init__(self, clock: Clock, side: str) -> None:
        self._clock = clock
        self._side = side
        self._counted: deque[tuple[int, str]] = deque(maxlen=MAX_SAMPLES)
        self._compared: deque[tuple[int, Compared]] = deque(maxlen=MAX_SAMPLES)
        self._differences: deque[Difference] = deque(maxlen=MAX_DIFFERENCES)

    def count(self, result: str) -> None:
        self._counted.append((self._clock.now_ns(), result))
        SHADOWED_SOUND.labels(result).inc()

    def compared(self, found: Compared, conversation_id: str, identifier: str) -> None:
        now_ns, difference = self._clock.now_ns(), found.difference
        self._compared.append((now_ns, found))
        SHADOWED_SOUND.labels(difference or "alike").inc()
        if difference:
            told = Difference(
                at_ns=now_ns,
                by=self._side,
                conversation_id=conversation_id,
                utterance_id=identifier,
                fields=(difference,),
            )
            self._differences.append(told)
            log.info("sound_shadow.differs", utterance_id=identifier, what=difference)

    def since(self, since_ns: int) -> HeardInShadow:
        """Return what was counted since then, as far back as it is kept."""
        counted = [result for at_ns, result in self._counted if at_ns >= since_ns]
        found = [each for at_ns, each in self._compared if at_ns >= since_ns]
        return HeardInShadow(
            utterances=sum(each.utterances for each in found),
            words=sum(each.words for each in found),
            wrong=sum(each.wrong for each in found),
            missed=sum(each.missed for each in found),
            extra=sum(each.extra for each in found),
            starts_ms=_times(found, lambda each: each.start_ms),
            ends_ms=_times(found, lambda each: each.end_ms),
            shed=counted.count("shed"),
            lost=counted.count("lost"),
            differences=tuple(each for each in reversed(self._differences) if each.at_ns >= since_ns),
        )


def _first(group: Group) -> Uttered:
    return (group.served or group.own)[0]


def _times(found: Sequence[Compared], of: Callable[[Compared], float | None]) -> tuple[float, ...]:
    return tuple(round(ms, 1) for ms in map(of, found) if ms is not None)
