"""A prompt is deployed while people talk: when it is in force, whether anybody notices, what it does to the audio.

`python -m benchmarks.deploy [--talkers N]` (needs QUICKCOMM_SPEECH_DATA): a real server with `quickcomm dev fake-llm`,
talkers for a minute and a half, a page; in the middle `prompts deploy`. Compares the audio latency before and after.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any, Final

import aiohttp
import msgspec

from benchmarks.capacity import Site, connections, lines, site, talks_of, until
from benchmarks.house import fake_llm
from benchmarks.load import percentile, talk
from quickcomm.contracts.commands import DeployPrompt, ShowPrompt
from quickcomm.operate.administration import administer

LEAD_S: Final = 30.0
HALF_S: Final = 30.0
TAIL_S: Final = 6.0


async def watch(client: aiohttp.ClientSession, place: Site, versions: list[tuple[float, str]]) -> None:
    """A page: when insights came, and of which prompt version."""
    headers = {"Authorization": f"Bearer {place.read}"}
    async with client.ws_connect(f"{place.url}/v1/live", headers=headers, max_msg_size=0) as page:
        async for message in page:
            if message.type is aiohttp.WSMsgType.TEXT and '"type":"card"' in message.data[:20]:
                found = [
                    insight.get("prompt_version") for insight in msgspec.json.decode(message.data)["card"]["insights"]
                ]
                versions += [(time.monotonic(), version) for version in found if version]


async def measure(talkers: int) -> dict[str, Any]:
    speakers = lines(talks_of(talkers, LEAD_S + 2 * HALF_S + TAIL_S))
    versions: list[tuple[float, str]] = []
    async with fake_llm(median_ms=800, p99_ms=2500) as fake:
        os.environ["QUICKCOMM_LLM_URL"] = fake.url
        async with site(talkers) as place, connections() as client, asyncio.TaskGroup() as tasks:
            page = tasks.create_task(watch(client, place, versions))
            begin, stop = time.monotonic() + 2.0, asyncio.Event()
            speaking = [
                tasks.create_task(talk(client, place.url, place.key(index), line, begin + index / 50, stop))
                for index, line in enumerate(speakers)
            ]
            await until(begin + LEAD_S + HALF_S)
            deployed = time.monotonic()
            new = await _deploy(place)
            answered = time.monotonic()
            await asyncio.gather(*speaking)
            closed = page.done()
            page.cancel()
    first = min((at for at, version in versions if version == new), default=float("inf"))
    last_old = max((at for at, version in versions if version != new), default=0.0)
    return {
        "talkers": talkers,
        "deploy_command_s": round(answered - deployed, 2),
        "first_insight_with_it_s": round(first - deployed, 2),
        "last_insight_without_it_s": round(last_old - deployed, 2),
        "page_closed": closed,
        "conversations_ended_early": sum(line.ledger is None for line in speakers),
        "audio_p95_before_s": _p95(speakers, begin + LEAD_S, deployed),
        "audio_p95_after_s": _p95(speakers, deployed, deployed + HALF_S),
    }


async def _deploy(place: Site) -> str:
    [live] = await administer(place.data, ShowPrompt(prompt="live"), needs_server=True)
    source = live["source"].replace("You label", "Carefully, you label", 1)
    arguments = {"source": source, "name": "bench.toml", "by": "bench", "weight": 100, "force": True}
    [record] = await administer(place.data, msgspec.convert(arguments, DeployPrompt), needs_server=True)
    return str(record["prompt_id"])


def _p95(speakers: list[Any], since: float, before: float) -> float:
    heard = [one.latency_s for line in speakers for one in line.heard if since <= one.ended_at < before]
    return round(percentile(heard, 0.95), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talkers", type=int, default=8)
    result = asyncio.run(measure(parser.parse_args().talkers))
    for name, value in result.items():
        print(f"{name:26} {value}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
