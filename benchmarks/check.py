"""`quickcomm check` over 100,000 utterances: of a stopped site, beside a running one, and by the server itself.

The data directory has generated talk in the tables of all three modules. Goals: 30 s; a tenth of a core.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.history import Talk, ended, history
from benchmarks.process import usage
from quickcomm.audio.adapters import tables as audio
from quickcomm.audio.module import Audio
from quickcomm.contracts.commands import CreateKey
from quickcomm.dashboard.adapters import tables as dashboard
from quickcomm.dashboard.model.projections import wanted_tasks, with_change
from quickcomm.dashboard.module import Dashboard
from quickcomm.intelligence.adapters.sql_results import results
from quickcomm.intelligence.module import Intelligence
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry import Budget
from quickcomm.operate.administration import administer
from quickcomm.operate.child import server

UTTERANCES: Final = 100_000
TOGETHER: Final = 5_000
GOAL_S: Final = 30.0
GOAL_SHARE: Final = 0.1
WAIT_MINUTES: Final = 0.25
"""Until the server begins by itself."""
HOURS: Final = "200"
"""What is checked with a tenth of a core, of the 60 days that there are: that takes its time."""
IDLE_S: Final = 8.0
Row = dict[str, Any]
Rows = dict[Any, list[Row]]


async def fill(path: Path, utterances: int) -> None:
    """Write the tables of audio, intelligence and the dashboard."""
    database = Database(path)
    database.open()
    Audio.migrate_tables(database)
    Intelligence.migrate_tables(database)
    Dashboard.stored_answers(database, Budget())
    left = history(utterances, seed=7)
    try:
        while batch := list(islice(left, TOGETHER)):
            rows = rows_of(batch)

            def run(connection: Any, rows: Rows = rows) -> None:
                for table, some in rows.items():
                    if some:
                        connection.execute(table.insert(), some)

            await database.write(run)
    finally:
        await database.aclose()


def rows_of(talks: Iterable[Talk]) -> Rows:
    """Return the rows of each table; a conversation has its own when its last utterance is there."""
    found: Rows = {table: [] for table in (dashboard.utterances, dashboard.tasks, dashboard.conversations)}
    found |= {table: [] for table in (audio.conversations, audio.events, results)}
    for talk in talks:
        heard, insights = talk.transcript, talk.insights
        key = {"site": heard.site, "utterance_id": heard.utterance_id}
        card: Row = {**key, "conversation_id": heard.conversation_id, "channel": heard.channel, "heard": True}
        card |= {"spoken_ns": heard.spoken_at_ns, "ended_ns": heard.speech_ended_ns, "change": heard.seq}
        card |= {"transcript": msgspec.json.encode(heard), "found": msgspec.json.encode(insights)}
        found[dashboard.utterances].append(card)
        for task in wanted_tasks(heard, insights).values():
            found[dashboard.tasks].append({**msgspec.structs.asdict(task), "rooms": msgspec.json.encode(task.rooms)})
        found[results].append({**key, "revision": 1, "at_ns": insights.published_ns})
        for seq, kind in enumerate(("utterance", "insights"), start=2 * heard.seq):
            event = {**key, "conversation_id": heard.conversation_id, "seq": seq, "kind": kind}
            found[audio.events].append({**event, "revision": 1, "payload": "{}"})
        if talk.last:
            _add_end(found, talk)
    return found


def _add_end(found: Rows, talk: Talk) -> None:
    change = ended(talk.transcript)
    shown = with_change(None, change)
    ledgers = msgspec.json.encode(change.ledgers)
    found[dashboard.conversations].append({**msgspec.structs.asdict(shown), "ledgers": ledgers})
    session: Row = {"site": change.site, "conversation_id": change.conversation_id, "channel": change.channel}
    session |= {"encoding": "linear16", "sample_rate": 16_000, "speakers": 1, "token_hash": b"", "epoch": 1, "seq": 0}
    session |= {"state": "ended", "checkpoints": b"[]", "ledgers": ledgers, "updated_ns": change.at_ns}
    found[audio.conversations].append(session)


async def checked(data: Path, *options: str) -> Row:
    """Run the command; return its totals, with the seconds of the whole process."""
    began = time.perf_counter()
    command = (sys.executable, "-m", "quickcomm.cli.main", "check", "--json", "--data-dir", str(data), *options)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    totals: Row = json.loads(output.splitlines()[-1])
    return {**totals, "seconds": round(time.perf_counter() - began, 2), "status": process.returncode}


async def by_itself(data: Path, url: str) -> Row:
    """Wait for the server's own check; return how long it took, and what share of a core."""
    [key] = await administer(data, CreateKey(role="read"), needs_server=True)
    running = DataDirectory(data).running()
    assert running is not None
    before, began = usage(running.pid), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    idle = usage(running.pid).since(before).cpu_s / (time.perf_counter() - began)
    start = usage(running.pid)
    headers = {"Authorization": f"Bearer {key['key']}"}
    async with aiohttp.ClientSession(headers=headers) as client:
        while True:
            async with client.get(f"{url}/metrics") as answer:
                told = _figures(await answer.text())
            if told.get("quickcomm_check_seconds"):
                break
            await asyncio.sleep(1)
    spent, took_s = usage(running.pid).since(start).cpu_s, told["quickcomm_check_seconds"]
    waited_s = time.perf_counter() - began - IDLE_S
    share = round((spent - idle * waited_s) / took_s, 3)
    compared = int(told["quickcomm_check_utterances"])
    return {"utterances": compared, "seconds": took_s, "share": share, "idle_share": round(idle, 3)}


def _figures(text: str) -> dict[str, float]:
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


async def run(utterances: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        directory = DataDirectory(folder / "data")
        directory.create()
        await fill(directory.database, utterances)
        found = {"stopped": await checked(directory.path)}
        os.environ |= {"QUICKCOMM_CHECK_EVERY_MINUTES": str(WAIT_MINUTES), "QUICKCOMM_CHECK_HOURS": HOURS}
        async with server(directory.path, 0, folder / "log") as url:
            found["by_itself"] = await by_itself(directory.path, url)
            found["running"] = await checked(directory.path)
            found["online"] = await checked(directory.path, "--online", "--since", HOURS)
    print(f"{'':12} utterances  seconds  findings  share of a core")
    for kind, row in found.items():
        findings, share = row.get("findings", "-"), row.get("share", "-")
        print(f"{kind:12} {row['utterances']:>10,} {row['seconds']:>8.1f} {findings:>9} {share:>16}")
    print(json.dumps({"utterances": utterances, **found}))
    slow = max(found[kind]["seconds"] for kind in ("stopped", "running")) > GOAL_S
    return int(slow or found["by_itself"]["share"] > GOAL_SHARE or any(row.get("findings") for row in found.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=UTTERANCES, help="how many (default: %(default)s)")
    return asyncio.run(run(parser.parse_args().utterances))


if __name__ == "__main__":
    sys.exit(main())
