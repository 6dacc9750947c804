"""Pipecat as a server: runs in an environment of its own, see `benchmarks.peers.pipecat`.

`python pipecat_server.py MODEL_FOLDER`. WebSocket on a free port of 127.0.0.1, told on standard output. Takes 16 kHz
PCM as binary messages, one pipeline a connection in one process, as pipecat has it: Silero, then its local Whisper.
Answers `{"text": …, "end": SAMPLES}` for each final transcript: `end` is where in the stream Silero heard speech end.
"""

# mypy: ignore-errors

import asyncio
import json
import os
import signal
import sys
from collections import deque

from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    EndFrame,
    InputAudioRawFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.whisper.stt import WhisperSTTService
from pipecat.transcriptions.language import Language
from pipecat.workers.runner import WorkerRunner
from websockets.asyncio.server import serve

RATE = 16_000
_models = {}


class SharedWhisper(WhisperSTTService):
    """The weights once a process, not once a connection; and where each segment ended goes with its text."""

    def __init__(self, folder, ends):
        self._ends = ends
        super().__init__(device="cpu", compute_type="int8", settings=self.Settings(model=folder, language=Language.EN))

    def _load(self):
        name = self._settings.model
        if name not in _models:
            super()._load()
            _models[name] = self._model
        self._model = _models[name]

    async def run_stt(self, audio):
        end = self._ends.popleft() if self._ends else None
        async for frame in super().run_stt(audio):
            if isinstance(frame, TranscriptionFrame):
                frame.metadata["end"] = end
            yield frame


class Position(FrameProcessor):
    """Between Silero and Whisper: counts samples, and keeps where each segment ended."""

    def __init__(self, ends):
        super().__init__()
        self._ends = ends
        self._samples = 0

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if direction == FrameDirection.DOWNSTREAM:
            if isinstance(frame, InputAudioRawFrame):
                self._samples += frame.num_frames
            elif isinstance(frame, VADUserStoppedSpeakingFrame):
                self._ends.append(self._samples - int(frame.stop_secs * RATE))
        await self.push_frame(frame, direction)


class Tell(FrameProcessor):
    def __init__(self, socket):
        super().__init__()
        self._socket = socket

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            await self._socket.send(json.dumps({"text": frame.text, "end": frame.metadata.get("end")}))
        await self.push_frame(frame, direction)


async def talk(socket, folder):
    """One connection: a text message says that no more comes; the pipeline then finishes what it has."""
    ends = deque()
    pipeline = Pipeline(
        [
            VADProcessor(vad_analyzer=SileroVADAnalyzer(sample_rate=RATE)),
            Position(ends),
            SharedWhisper(folder, ends),
            Tell(socket),
        ]
    )
    worker = PipelineWorker(
        pipeline,
        params=PipelineParams(audio_in_sample_rate=RATE),
        cancel_on_idle_timeout=False,
        enable_rtvi=False,
        enable_turn_tracking=False,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    async for message in socket:
        if isinstance(message, str):
            break
        await worker.queue_frame(InputAudioRawFrame(audio=message, sample_rate=RATE, num_channels=1))
    await worker.queue_frame(EndFrame())
    await running


async def main():
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    folder = sys.argv[1]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    SharedWhisper(folder, deque())  # loads the weights before anybody talks
    async with serve(lambda socket: talk(socket, folder), "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], os.getpid(), flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
