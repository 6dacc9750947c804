"""The shared front end: all streams through resampler, energy gate and voice activity model in one batch a tick.

State is kept as arrays over slots (one a stream), so that a tick costs a few vector operations however many streams
there are. The arrays are touched by one worker thread at a time, and by the event loop only between ticks.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from quickcomm.audio.model.checkpoint import FrontEndState
from quickcomm.audio.model.formats import ENGINE_FRAME, ENGINE_RATE, Int16
from quickcomm.audio.model.gate import energies, gate, learn
from quickcomm.audio.model.resample import MAX_HISTORY, RESAMPLERS
from quickcomm.audio.model.track import Click, Track, TrackEvent
from quickcomm.audio.ports import VAD_CONTEXT, VoiceActivity
from quickcomm.audio.service.front_end_state import SlotStates
from quickcomm.contracts.audio_socket import FRAME_MS
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError

MAX_FRAMES_A_TICK: Final = 32
"""A stream that is behind (a file sent at full speed) catches up by at most a second a tick."""
QUIET_EVERY_S: Final = 0.256
"""Streams in which nothing stirs are looked at so often, all others every 32 ms: quiet ones are most of them."""
FULL_SCALE: Final = np.float32(1 / 32768)

Sink = Callable[[Track, Sequence[TrackEvent]], None]
Fail = Callable[[Exception], None]
log = structlog.get_logger(__name__)


def _give_up(error: Exception) -> None:
    raise error


class Lane(msgspec.Struct, eq=False):
    """A stream at the front end: its slot in the arrays and who hears of its events."""

    track: Track
    sink: Sink
    slot: int
    fail: Fail
    unkept: int = 0
    """Frames since the last snapshot. Counted in sound, not in time: a burst leaves as many as a slow talk."""
    busy: bool = False
    quiet: bool = False
    """Nothing is open, and the gate is shut."""


class _Work(msgspec.Struct, eq=False):
    """What a stream brings to a tick, int16[k, frame] at the client's rate, and the answer for its frames."""

    lane: Lane
    frames: Int16
    sound: Int16 | None = None
    """int16[k, 512] at 16 kHz."""
    probabilities: Sequence[float] = ()
    energies: Sequence[float] = ()


class FrontEnd:
    def __init__(self, vad: VoiceActivity, clock: Clock, *, capacity: int, snapshot_every_s: float) -> None:
        self._vad = vad
        self._clock = clock
        self._snapshot_frames = round(snapshot_every_s * 1000 / FRAME_MS)
        self._lanes: dict[int, Lane] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._now = SlotStates(capacity, vad.rest)
        self._voiced = SlotStates(capacity, vad.rest)
        """After the newest frame of each stream that could be the last of an utterance."""
        self._voiced_off = np.zeros(capacity, np.float32)
        self._fresh: set[int] = set()
        """Slots of streams that may have work for the next tick."""
        self._waiting: set[int] = set()
        """Slots of quiet streams with something new: for the next tick that looks at them."""
        self._wake = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, "front-end")

    def attach(self, track: Track, sink: Sink, fail: Fail = _give_up) -> Lane:
        """Raises `BusyError` when every slot is taken. `fail` hears of an error that concerns this stream alone."""
        if not self._free:
            raise BusyError("Every place for a live stream is taken.")
        lane = Lane(track, sink, self._free.pop(), fail)
        self._now.restore(lane.slot, track.front_end, track.format.sample_rate)
        self._voiced.restore(lane.slot, track.front_end, track.format.sample_rate)
        self._voiced_off[lane.slot] = track.voiced_off
        self._lanes[lane.slot] = lane
        self.poke(lane)
        return lane

    def detach(self, lane: Lane) -> None:
        """Forget a stream. One that is in a tick right now is let go when the tick is over."""
        if self._lanes.get(lane.slot) is not lane:
            return
        del self._lanes[lane.slot]
        if not lane.busy:
            self._free.append(lane.slot)

    def poke(self, lane: Lane) -> None:
        """There is something new in its inbox."""
        if not lane.quiet or lane.track.ended:
            self._fresh.add(lane.slot)
            self._wake.set()
        elif lane.slot not in self._waiting:
            self._waiting.add(lane.slot)
            if len(self._waiting) == 1:
                self._wake.set()  # from now on there is something to look at

    def export(self, lane: Lane) -> FrontEndState:
        """The state after the last frame that was processed. Only between ticks."""
        return self._now.export(lane.slot, lane.track.format.sample_rate)

    async def run(self) -> None:
        """Tick while there is work; at most one tick every frame length where streams keep up."""
        loop = asyncio.get_running_loop()
        look = loop.time()
        while True:
            await self._news_by(look)
            started = loop.time()
            if started >= look:
                self._fresh |= self._waiting
                self._waiting.clear()
                look = started + QUIET_EVERY_S
            work = self._gather()
            if work:
                await loop.run_in_executor(self._executor, self._compute, work)
                self._apply(work)
            if not self._fresh:
                await asyncio.sleep(max(0.0, FRAME_MS / 1000 - (loop.time() - started)))

    async def _news_by(self, look: float) -> None:
        """Wait until a stream has something new, or until `look` where quiet ones have."""
        while not self._fresh:
            self._wake.clear()
            until = look if self._waiting else None
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                return

    def tick(self) -> None:
        """One tick over all streams in the caller's thread, for work offline."""
        self._fresh |= self._lanes.keys()
        work = self._gather()
        if work:
            self._compute(work)
            self._apply(work)

    def close(self) -> None:
        self._executor.shutdown(wait=True)

    # -- a tick -----------------------------------------------------------------------------------------------------

    def _gather(self) -> list[_Work]:
        """Take frames from all fresh streams; those that have more stay fresh."""
        work: list[_Work] = []
        fresh, self._fresh = self._fresh, set()
        for slot in fresh:
            lane = self._lanes.get(slot)
            if lane is None or not lane.track.has_work:
                continue
            try:
                frames = self._next_frames(lane)
            except Exception as error:  # noqa: BLE001 - one stream's trouble must not silence all others
                self._drop(lane, error)
                continue
            if lane.track.has_work:
                self._fresh.add(slot)
            if len(frames):
                lane.busy = True
                work.append(_Work(lane, frames))
        return work

    def _next_frames(self, lane: Lane) -> Int16:
        track = lane.track
        events = track.pass_breaks()
        if track.front_end is None:
            self._now.restore(lane.slot, None, track.format.sample_rate)
        if events:
            lane.sink(track, events)
        frames = track.take(min(MAX_FRAMES_A_TICK, track.stride))
        if not len(frames):
            lane.sink(track, ())
        return frames

    def _drop(self, lane: Lane, error: Exception) -> None:
        log.error("front_end.stream_failed", error=f"{type(error).__name__}: {error}")
        self.detach(lane)
        lane.fail(error)

    def _apply(self, work: Sequence[_Work]) -> None:
        for item in work:
            lane = item.lane
            lane.busy = False
            if self._lanes.get(lane.slot) is not lane:
                self._free.append(lane.slot)
                continue
            try:
                self._step(item)
            except Exception as error:  # noqa: BLE001 - as in _gather
                self._drop(lane, error)

    def _step(self, item: _Work) -> None:
        lane, track = item.lane, item.lane.track
        lane.unkept += len(item.frames)
        due = lane.unkept >= self._snapshot_frames
        if due or track.stride == 1 or track.front_end is None:
            track.front_end = self.export(lane)
        assert item.sound is not None  # noqa: S101 - computed before it is applied
        events = track.step(item.sound, item.probabilities, item.energies)
        lane.quiet = track.idle and self._now.hang[lane.slot] == 0
        closed = any(isinstance(event, Click) or getattr(event, "complete", False) for event in events)
        if closed:
            track.snapshot_end(self._voiced.export(lane.slot, track.format.sample_rate))
        if due or closed:
            track.front_end = self.export(lane)
            track.snapshot()
            lane.unkept = 0
        lane.sink(track, events)

    def _compute(self, work: list[_Work]) -> None:
        """In the worker thread: round r takes the r-th frame of every stream that has one, the longest first."""
        work.sort(key=_length, reverse=True)
        slots = np.array([item.lane.slot for item in work])
        lengths = np.array([len(item.frames) for item in work])
        longest = int(lengths[0])
        sound = np.empty((len(work), longest, ENGINE_FRAME), np.int16)
        rates = _by_rate(work)
        for row in rates.pop(ENGINE_RATE, ()):
            sound[row, : lengths[row]] = work[row].frames
        probabilities = np.zeros((len(work), longest), np.float32)
        energy = np.zeros((len(work), longest), np.float32)
        for index in range(longest):
            active = int(np.searchsorted(-lengths, -index))  # rows 0 … active-1 have a frame `index`
            if rates:
                self._resample(work, rates, active, index, sound)
            now = slots[:active]
            scaled = sound[:active, index].astype(np.float32) * FULL_SCALE
            energy[:active, index] = energies(scaled)
            state = self._now
            opened, state.floor[now], state.hang[now] = gate(energy[:active, index], state.floor[now], state.hang[now])
            probabilities[:active, index] = self._voice(now, scaled, opened)
            heard = now[opened]
            found = probabilities[:active, index][opened]
            state.floor[heard] = learn(energy[:active, index][opened], state.floor[heard], found)
            state.context[now] = sound[:active, index, -VAD_CONTEXT:]
            voiced = now[probabilities[:active, index] >= self._voiced_off[now]]
            if len(voiced):
                self._voiced.copy(state, voiced)
        for row, item in enumerate(work):
            length = len(item.frames)
            item.sound = sound[row, :length]
            item.probabilities = probabilities[row, :length].tolist()
            item.energies = energy[row, :length].tolist()

    def _voice(
        self, slots: npt.NDArray[np.int64], scaled: npt.NDArray[np.float32], opened: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        probabilities = np.zeros(len(slots), np.float32)
        if not opened.all():
            self._now.rest(slots[~opened])
        if opened.any():
            through = slots[opened]
            context = self._now.context[through].astype(np.float32) * FULL_SCALE
            state = self._now.vad[:, through]
            found, self._now.vad[:, through] = self._vad.step(np.hstack([context, scaled[opened]]), state)
            probabilities[opened] = found
        return probabilities

    def _resample(
        self, work: Sequence[_Work], rates: Mapping[int, Sequence[int]], active: int, index: int, sound: Int16
    ) -> None:
        """Frame `index` of the streams that are not at 16 kHz."""
        for rate, rows in rates.items():
            own = [row for row in rows if row < active]
            if not own:
                continue
            resampler = RESAMPLERS[rate]
            slots = [work[row].lane.slot for row in own]
            history = self._now.history[slots, MAX_HISTORY - resampler.history :]
            frames = np.hstack([history, np.stack([work[row].frames[index] for row in own])])
            self._now.history[slots, MAX_HISTORY - resampler.history :] = frames[:, -resampler.history :]
            sound[own, index] = resampler(frames)


def _length(item: _Work) -> int:
    return len(item.frames)


def _by_rate(work: Sequence[_Work]) -> dict[int, list[int]]:
    """Rows by the rate of their stream."""
    rates: dict[int, list[int]] = {}
    for row, item in enumerate(work):
        rates.setdefault(item.lane.track.format.sample_rate, []).append(row)
    return rates
