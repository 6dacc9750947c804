"""The shared front end: all streams through resampler, energy gate and voice activity model in one batch a tick.

State is kept as arrays over slots (one a stream), so that a tick costs a few vector operations however many streams
there are. The arrays are touched by one worker thread at a time, and by the event loop only between ticks.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from quickcomm.audio.model.checkpoint import FrontEndState
from quickcomm.audio.model.formats import ENGINE_FRAME, FRAME_MS, Int16
from quickcomm.audio.model.gate import INITIAL_FLOOR, energies, gate
from quickcomm.audio.model.resample import MAX_HISTORY, RESAMPLERS
from quickcomm.audio.model.track import Track, TrackEvent
from quickcomm.audio.ports import VAD_CONTEXT, VAD_STATE, VoiceActivity
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError

MAX_FRAMES_A_TICK: Final = 32
"""A stream that is behind (a file sent at full speed) catches up by at most a second a tick."""
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
    snapshot_at: float = 0.0
    busy: bool = False


class _Work(msgspec.Struct):
    lane: Lane
    frames: Int16
    sound: list[Int16]
    probabilities: list[float]
    energies: list[float]


class FrontEnd:
    def __init__(self, vad: VoiceActivity, clock: Clock, *, capacity: int, snapshot_every_s: float) -> None:
        self._vad = vad
        self._clock = clock
        self._snapshot_every_s = snapshot_every_s
        self._lanes: dict[int, Lane] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._floor = np.full(capacity, INITIAL_FLOOR, np.float32)
        self._hang = np.zeros(capacity, np.int32)
        self._vad_state = np.zeros((VAD_STATE[0], capacity, VAD_STATE[1]), np.float32)
        self._context = np.zeros((capacity, VAD_CONTEXT), np.int16)
        self._history = np.zeros((capacity, MAX_HISTORY), np.int16)
        self._wake = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, "front-end")
        self.ticks = 0
        self.frames = 0
        self.gated_frames = 0

    def attach(self, track: Track, sink: Sink, fail: Fail = _give_up) -> Lane:
        """Raises `BusyError` when every slot is taken. `fail` hears of an error that concerns this stream alone."""
        if not self._free:
            raise BusyError("Every place for a live stream is taken.")
        lane = Lane(track, sink, self._free.pop(), fail, snapshot_at=self._clock.monotonic() + self._snapshot_every_s)
        self._restore(lane.slot, track.front_end, track.format.sample_rate)
        self._lanes[lane.slot] = lane
        self._wake.set()
        return lane

    def detach(self, lane: Lane) -> None:
        """Forget a stream. One that is in a tick right now is let go when the tick is over."""
        if self._lanes.get(lane.slot) is not lane:
            return
        del self._lanes[lane.slot]
        if not lane.busy:
            self._free.append(lane.slot)

    def poke(self) -> None:
        """There is something new in some inbox."""
        self._wake.set()

    def export(self, lane: Lane) -> FrontEndState:
        """The state after the last frame that was processed. Only between ticks."""
        slot = lane.slot
        vad = self._vad_state[:, slot]
        length = RESAMPLERS[lane.track.format.sample_rate].history
        return FrontEndState(
            noise_floor=float(self._floor[slot]),
            hang=int(self._hang[slot]),
            vad=vad.tobytes() if vad.any() else b"",
            context=self._context[slot].tobytes(),
            history=self._history[slot, MAX_HISTORY - length :].tobytes(),
        )

    async def run(self) -> None:
        """Tick while there is work; at most one tick every frame length where streams keep up."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            started = self._clock.monotonic()
            work, behind = self._gather()
            if work:
                await loop.run_in_executor(self._executor, self._compute, work)
                self._apply(work)
            if behind:
                self._wake.set()
            else:
                await asyncio.sleep(max(0.0, FRAME_MS / 1000 - (self._clock.monotonic() - started)))

    def tick(self) -> bool:
        """One tick in the caller's thread, for work offline; True while streams are behind."""
        work, behind = self._gather()
        if work:
            self._compute(work)
            self._apply(work)
        return behind

    def close(self) -> None:
        self._executor.shutdown(wait=True)

    # -- a tick -----------------------------------------------------------------------------------------------------

    def _gather(self) -> tuple[list[_Work], bool]:
        work: list[_Work] = []
        behind = False
        for lane in list(self._lanes.values()):
            if not lane.track.has_work:
                continue
            try:
                frames = self._next_frames(lane)
            except Exception as error:  # noqa: BLE001 - one stream's trouble must not silence all others
                self._drop(lane, error)
                continue
            behind = behind or lane.track.has_work
            if len(frames):
                lane.busy = True
                work.append(_Work(lane, frames, [], [], []))
        return work, behind

    def _next_frames(self, lane: Lane) -> Int16:
        track = lane.track
        events = track.pass_gaps()
        if track.front_end is None:
            self._restore(lane.slot, None, track.format.sample_rate)
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
        now = self._clock.monotonic()
        self.ticks += 1
        for item in work:
            lane = item.lane
            lane.busy = False
            if self._lanes.get(lane.slot) is not lane:
                self._free.append(lane.slot)
                continue
            try:
                self._step(item, now)
            except Exception as error:  # noqa: BLE001 - as in _gather
                self._drop(lane, error)

    def _step(self, item: _Work, now: float) -> None:
        lane, track = item.lane, item.lane.track
        # Who sends faster than real time may have sent all before the time comes: there, a second of sound counts.
        due = now >= lane.snapshot_at or len(item.frames) == MAX_FRAMES_A_TICK
        if due or track.stride == 1 or track.front_end is None:
            track.front_end = self.export(lane)
        events = track.step(np.stack(item.sound), item.probabilities, item.energies)
        if due or any(getattr(event, "complete", False) for event in events):
            track.front_end = self.export(lane)
            track.snapshot()
            lane.snapshot_at = now + self._snapshot_every_s
        lane.sink(track, events)

    def _compute(self, work: Sequence[_Work]) -> None:
        """In the worker thread: round r takes the r-th frame of every stream that has one."""
        for index in range(max(len(item.frames) for item in work)):
            active = [item for item in work if len(item.frames) > index]
            slots = np.array([item.lane.slot for item in active])
            sound = self._resample(active, slots, index)
            scaled = sound.astype(np.float32) * FULL_SCALE
            energy = energies(scaled)
            opened, self._floor[slots], self._hang[slots] = gate(energy, self._floor[slots], self._hang[slots])
            probabilities = self._voice(slots, scaled, opened)
            self._context[slots] = sound[:, -VAD_CONTEXT:]
            self.frames += len(active)
            for row, item in enumerate(active):
                item.sound.append(sound[row])
                item.probabilities.append(float(probabilities[row]))
                item.energies.append(float(energy[row]))

    def _voice(
        self, slots: npt.NDArray[np.int64], scaled: npt.NDArray[np.float32], opened: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        probabilities = np.zeros(len(slots), np.float32)
        self._vad_state[:, slots[~opened]] = 0.0
        if opened.any():
            through = slots[opened]
            context = self._context[through].astype(np.float32) * FULL_SCALE
            state = self._vad_state[:, through]
            found, self._vad_state[:, through] = self._vad.step(np.hstack([context, scaled[opened]]), state)
            probabilities[opened] = found
            self.gated_frames += len(through)
        return probabilities

    def _resample(self, active: Sequence[_Work], slots: npt.NDArray[np.int64], index: int) -> Int16:
        sound = np.empty((len(active), ENGINE_FRAME), np.int16)
        by_rate: dict[int, list[int]] = {}
        for row, item in enumerate(active):
            by_rate.setdefault(item.lane.track.format.sample_rate, []).append(row)
        for rate, rows in by_rate.items():
            resampler = RESAMPLERS[rate]
            frames = np.stack([active[row].frames[index] for row in rows])
            if resampler.history:
                own = slots[rows]
                history = self._history[own, MAX_HISTORY - resampler.history :]
                frames = np.hstack([history, frames])
                self._history[own, MAX_HISTORY - resampler.history :] = frames[:, -resampler.history :]
            sound[rows] = resampler(frames)
        return sound

    def _restore(self, slot: int, state: FrontEndState | None, rate: int) -> None:
        self._floor[slot] = INITIAL_FLOOR
        self._hang[slot] = 0
        self._vad_state[:, slot] = 0.0
        self._context[slot] = 0
        self._history[slot] = 0
        if state is None:
            return
        self._floor[slot] = state.noise_floor
        self._hang[slot] = state.hang
        if state.vad:
            self._vad_state[:, slot] = np.frombuffer(state.vad, np.float32).reshape(VAD_STATE)
        self._context[slot] = np.frombuffer(state.context, np.int16)
        length = RESAMPLERS[rate].history
        if length:
            self._history[slot, MAX_HISTORY - length :] = np.frombuffer(state.history, np.int16)
