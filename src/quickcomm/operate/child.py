"""A `quickcomm serve` as a process of its own, for the demo and for benchmarks."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp

from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import DataDirectory

START_S: Final = 300.0
STOP_S: Final = 20.0


@contextlib.asynccontextmanager
async def server(data_dir: Path, port: int, log: Path) -> AsyncIterator[str]:
    """A `quickcomm serve` of its own; gives its URL once it is ready. Raises `ConfigurationError` if it fails."""
    command = [sys.executable, "-m", "quickcomm.cli.main", "serve", "--port", str(port)]
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, "--data-dir", str(data_dir), stdout=asyncio.subprocess.DEVNULL, stderr=errors, process_group=0
        )
    try:
        yield await _ready(process, DataDirectory(data_dir), log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _ready(process: asyncio.subprocess.Process, directory: DataDirectory, log: Path) -> str:
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as client:
        while True:
            if process.returncode is not None:
                raise ConfigurationError(f"The server did not start:\n{_tail(log)}")
            running = directory.running()
            if running is not None and running.pid == process.pid:
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(f"{running.url}/readyz") as answer:
                        if answer.ok:
                            return running.url
            await asyncio.sleep(0.1)  # the other process tells nobody when it is ready


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
