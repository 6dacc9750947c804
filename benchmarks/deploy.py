"""A prompt is deployed while people talk: how soon insights have it, whether a socket closes, what the audio feels.

`python -m benchmarks.deploy [talkers] [seconds]` starts a server with a fake model (300 ms) and talkers in real time on
real sockets. After half of the time it deploys another prompt version by `quickcomm prompts deploy`, as people do.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks.house import fake_llm
from benchmarks.load import Line, percentile, talk
from benchmarks.talkers import speech_folder
from benchmarks.talkers import talk as stream
from quickcomm.entrypoints.administration import administer
from quickcomm.entrypoints.child import server

TALKERS: Final = 12
SECONDS: Final = 60.0
OTHER: Final = 'format = 1\nname = "other"\nsystem = "Label what is said. Intents:\\n$intents"\n'


@dataclass(slots=True)
class Watched(Line):
    """A talker who also notes which prompt version answered, and when."""

    versions: list[tuple[float, str | None]] = field(default_factory=list)

    def note(self, message: dict[str, Any], now: float) -> None:
        Line.note(self, message, now)
        if message["type"] == "insights":
            self.versions += [(now, one["prompt_version"]) for one in message["insights"]]


async def operator(data: Path, file: Path) -> tuple[float, float, str]:
    """Deploy by the command line: when it was typed, when it was done, and the version."""
    typed = time.monotonic()
    command = [sys.executable, "-m", "quickcomm.entrypoints.cli", "prompts", "deploy", str(file), "--force", "--json"]
    process = await asyncio.create_subprocess_exec(
        *command, "--data-dir", str(data), stdout=asyncio.subprocess.PIPE, process_group=0
    )
    said, _ = await process.communicate()
    return typed, time.monotonic(), str(json.loads(said)["prompt_id"])


async def measure(talkers: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        data, folder = Path(name) / "data", Path(name)
        (folder / "other.toml").write_text(OTHER)
        async with fake_llm(median_ms=300) as fake:
            os.environ["QUICKCOMM_LLM_URL"] = fake.url
            async with server(data, 0, folder / "log") as url:
                [key] = await administer(data, "keys.create", {"role": "ingest"}, needs_server=True)
                lines = [Watched(f"talker-{number}", stream(number, seconds).samples) for number in range(talkers)]
                deployed = await _run(lines, (url, key["key"]), data, folder / "other.toml", seconds)
                [status] = await administer(data, "status", {}, needs_server=True)
    return _result(lines, deployed, seconds) | {"model": status["llm"]["state"]}


async def _run(
    lines: list[Watched], server_and_key: tuple[str, str], data: Path, file: Path, seconds: float
) -> tuple[float, float, str]:
    url, key = server_and_key
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as client:
        begin, never = time.monotonic() + 1.0, asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for number, line in enumerate(lines):
                tasks.create_task(talk(client, url, key, line, begin + number * 0.037, never))
            await asyncio.sleep(seconds / 2)
            deployed = await operator(data, file)
    return deployed


def _result(lines: list[Watched], deployed: tuple[float, float, str], seconds: float) -> dict[str, Any]:
    typed, done, version = deployed
    heard = [one for line in lines for one in line.heard]
    with_it = [next((at for at, found in line.versions if found == version), None) for line in lines]
    late = [at for line in lines for at, found in line.versions if found not in {None, version} and at > done]

    def audio(utterances: list[float]) -> float:
        return round(1_000 * percentile(utterances, 0.95))

    return {
        "talkers": len(lines),
        "seconds": seconds,
        "utterances": len(heard),
        "command_s": round(done - typed, 2),
        "first_insight_after_s": round(min(at for at in with_it if at is not None) - typed, 2),
        "last_old_insight_after_s": round(max([at - typed for at in late], default=0.0), 2),
        "talkers_without_it": with_it.count(None),
        "sockets_closed": sum(line.ledger is None for line in lines),
        "samples_lost": sum(line.ledger["gap"] for line in lines if line.ledger is not None),
        "utterance_p95_ms_before": audio([one.latency_s for one in heard if one.ended_at < typed]),
        "utterance_p95_ms_after": audio([one.latency_s for one in heard if one.ended_at >= typed]),
    }


def main() -> None:
    speech_folder()
    arguments = sys.argv[1:]
    result = asyncio.run(
        measure(int(arguments[0]) if arguments else TALKERS, float(arguments[1]) if arguments[1:] else SECONDS)
    )
    for name, value in result.items():
        print(f"{name:26} {value}")
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(result))


if __name__ == "__main__":
    main()
