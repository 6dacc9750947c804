"""Cuts a stream of voice probabilities into utterances. Pure: the same frames give the same spans, always.

Everything is counted in frames from where the stream began. The state is small and copyable: a stream that
is restarted from a copy goes on exactly as the undisturbed one (see `Track.snapshot`).
"""

from typing import Final

import msgspec

from quickcomm.contracts.audio_socket import FRAME_MS


def frames(milliseconds: float) -> int:
    return round(milliseconds / FRAME_MS)


class SegmenterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Endpointing. Durations are frames of 32 ms."""

    voiced_on: float = 0.5
    """Probability from which a frame opens an utterance."""
    voiced_off: float = 0.35
    """Probability from which a frame prolongs it."""
    open_frames: int = 2
    """So many voiced frames in a row open an utterance."""
    preroll: int = frames(384)
    """Sound kept from before the first voiced frame."""
    hangover: int = frames(512)
    """Silence that ends an utterance."""
    tail: int = frames(192)
    """Sound kept after the last voiced frame; also the pause after which decoding may start early."""
    min_voiced: int = 4
    """Fewer voiced frames in all are a click, not speech."""
    patient: int = frames(10_000)
    """After this length a shorter pause is enough."""
    short_hangover: int = frames(224)
    longest: int = frames(16_000)
    """An utterance that is still going on is cut, at the quietest point of the last `search` frames."""
    search: int = frames(1_500)


class SegmenterState(msgspec.Struct, kw_only=True):
    position: int = 0
    """The next frame to come."""
    floor: int = 0
    """No utterance starts before this frame."""
    run: int = 0
    """Voiced frames in a row while nothing is open."""
    start: int = -1
    """First frame of the open utterance, or -1."""
    voiced_end: int = 0
    voiced: int = 0


class Opened(msgspec.Struct, frozen=True):
    start: int


class Paused(msgspec.Struct, frozen=True):
    """Silence for `tail` frames: the utterance may be over, its sound is complete if it is."""

    start: int
    end: int


class QuietPoint(msgspec.Struct, frozen=True):
    """The best place so far to cut an utterance that gets too long: keep a copy of the state for it."""

    at: int


class Closed(msgspec.Struct, frozen=True):
    """The utterance covers frames start … end-1, `voiced` of them voice. `cut` if it goes on behind."""

    start: int
    end: int
    voiced: int = 0
    cut: bool = False


class Dropped(msgspec.Struct, frozen=True):
    """Too little voice to be speech."""

    start: int


SegmentEvent = Opened | Paused | QuietPoint | Closed | Dropped
NEVER: Final = float("inf")


class Segmenter:
    def __init__(self, settings: SegmenterSettings, state: SegmenterState | None = None) -> None:
        self.settings = settings
        self.state = state or SegmenterState()
        self._quietest = NEVER
        self._quiet_at = -1
        self._voiced_since = 0
        self._last_energy = NEVER

    @property
    def idle(self) -> bool:
        return self.state.start < 0 and self.state.run == 0

    @property
    def stride(self) -> int:
        """Frames that may be taken at once: only the last may close an utterance, or be the place to cut one."""
        settings, state = self.settings, self.state
        if state.start < 0:
            close = settings.open_frames - state.run + min(settings.hangover, settings.short_hangover)
            return min(close, settings.longest - settings.search)
        length = state.position - state.start
        silence = state.position - state.voiced_end
        close = min(settings.hangover - silence, max(settings.short_hangover - silence, settings.patient - length))
        return max(1, min(close, settings.longest - settings.search - 1 - length))

    @property
    def safe_until(self) -> int:
        """No utterance yet to come, nor the open one, starts before this frame."""
        state = self.state
        if state.start >= 0:
            return state.start
        return max(state.floor, state.position - state.run - self.settings.preroll)

    def skip_silence(self, count: int) -> None:
        """Pass `count` frames that are known to be unvoiced, while idle."""
        self.state.position += count

    def step(self, probability: float, energy: float) -> SegmentEvent | None:
        """Take the next frame. At most one thing happens in a frame."""
        state = self.state
        frame = state.position
        state.position += 1
        if state.start < 0:
            return self._step_closed(frame, voiced=probability >= self.settings.voiced_on)
        return self._step_open(frame, voiced=probability >= self.settings.voiced_off, energy=energy)

    def flush(self) -> Closed | Dropped | None:
        """Close what is open, at the last voiced frame."""
        self.state.run = 0
        return self._close(self.state.voiced_end) if self.state.start >= 0 else None

    def restart(self) -> None:
        """Begin anew with frame 0 (flushed before)."""
        self.state = SegmenterState()
        self._forget_quiet_point()

    def _step_closed(self, frame: int, *, voiced: bool) -> Opened | None:
        state, settings = self.state, self.settings
        state.run = state.run + 1 if voiced else 0
        if state.run < settings.open_frames:
            return None
        first = frame + 1 - state.run
        state.start = max(state.floor, first - settings.preroll)
        state.voiced_end = frame + 1
        state.voiced = state.run
        state.run = 0
        self._forget_quiet_point()
        return Opened(state.start)

    def _step_open(self, frame: int, *, voiced: bool, energy: float) -> SegmentEvent | None:
        state, settings = self.state, self.settings
        if voiced:
            state.voiced_end = frame + 1
            state.voiced += 1
            self._voiced_since += 1
        length = frame + 1 - state.start
        silence = frame + 1 - state.voiced_end
        if silence >= (settings.hangover if length < settings.patient else settings.short_hangover):
            return self._close(state.voiced_end)
        if length >= settings.longest:
            return self._cut()
        quiet = self._look_for_quiet(frame, length, energy)
        if quiet is not None:
            return quiet
        if silence == settings.tail and state.voiced_end > state.start:
            return Paused(state.start, state.voiced_end)
        return None

    def _look_for_quiet(self, frame: int, length: int, energy: float) -> QuietPoint | None:
        pair, self._last_energy = self._last_energy + energy, energy
        if length < self.settings.longest - self.settings.search or pair >= self._quietest:
            return None
        self._quietest = pair
        self._quiet_at = frame + 1
        self._voiced_since = 0
        return QuietPoint(frame + 1)

    def _cut(self) -> Closed:
        state = self.state
        event = Closed(state.start, self._quiet_at, state.voiced - self._voiced_since, cut=True)
        state.start = state.floor = self._quiet_at
        state.voiced = self._voiced_since
        self._forget_quiet_point()
        return event

    def _close(self, end: int) -> Closed | Dropped:
        state = self.state
        start, voiced = state.start, state.voiced
        state.start = -1
        state.run = 0
        state.floor = max(state.floor, end)
        self._forget_quiet_point()
        if voiced < self.settings.min_voiced or end <= start:
            return Dropped(start)
        return Closed(start, end, voiced)

    def _forget_quiet_point(self) -> None:
        self._quietest = NEVER
        self._quiet_at = -1
        self._voiced_since = 0
        self._last_energy = NEVER
