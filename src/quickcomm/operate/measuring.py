"""Samples of a running site, from the metrics of its processes, and what is found there that a split needs."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp

from quickcomm.capacity.adapters.metrics import sample_of
from quickcomm.capacity.model.findings import MODULES
from quickcomm.capacity.model.samples import Sample
from quickcomm.contracts.commands import GetMetrics
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.runtime.admin_socket import Rows, ask
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.administration import administer
from quickcomm.operate.erasures import copies
from quickcomm.operate.settings import load_settings
from quickcomm.operate.up.client import topology_status
from quickcomm.operate.up.layout import Layout

MONOLITH: Final = "monolith"
BACKUP_DAYS: Final = 7
ANSWER_S: Final = 10.0


async def samples_of_urls(urls: Sequence[str], key: str | None) -> list[Sample]:
    """Return a sample of each address, which may begin with `MODULE=`.

    Raises `ConfigurationError` where a key is wanted, `aiohttp.ClientError` where no metrics come.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    found = []
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as client:
        for given in urls:
            named, is_named, address = given.partition("=http")
            module, url = (named, f"http{address}") if is_named else (MONOLITH, given)
            async with client.get(url) as answer:
                if answer.status in {401, 403}:
                    raise ConfigurationError(f"{url} wants a key that may read: --key. {await answer.text()}")
                answer.raise_for_status()
                text, machine = await answer.text(), answer.url.host or ""
            found.append(sample_of(text, time.time(), f"{module}@{answer.url.authority}", module, machine=machine))
    return found


async def samples_of_site(data_dir: Path) -> list[Sample]:
    """Return a sample of each process that has metrics: of `serve` one, of `up` those of its modules."""
    status = await asyncio.to_thread(topology_status, data_dir)
    if not status:
        rows = await administer(data_dir, GetMetrics(), needs_server=True, timeout_s=ANSWER_S)
        return [sample_of(rows[0]["text"], time.time(), MONOLITH, MONOLITH)]
    layout = Layout(DataDirectory(data_dir))
    own = {MONOLITH: layout.directory.socket, "dashboard": layout.directory.dashboard.socket}
    found = []
    for row in status:
        for socket in (layout.administration(row["process"]), own.get(row["module"])):
            if socket is not None and socket.exists():
                rows = await _asked(socket)
                found += [sample_of(each["text"], time.time(), row["process"], row["module"]) for each in rows]
                break
    return [each for each in found if each.module in {MONOLITH, *MODULES}]


async def _asked(socket: Path) -> Rows:
    """Return nothing for a process that has just ended: its steps are missing then."""
    try:
        return await ask(socket, GetMetrics(), ANSWER_S)
    except (QuickCommError, aiohttp.ClientError, OSError, TimeoutError):
        return []


def found_ready(data_dir: Path) -> dict[str, float]:
    """Return what of the things that a split needs is found in the data directory."""
    last = max((datetime.fromisoformat(each.taken_at) for each in copies(DataDirectory(data_dir))), default=None)
    found = {
        "tracing": bool(load_settings(data_dir).telemetry.otlp_url),
        "tokens": Layout(DataDirectory(data_dir)).is_owned(),
        "backups": last is not None and last > datetime.now(UTC) - timedelta(days=BACKUP_DAYS),
    }
    return {f"ready.{name}": float(value) for name, value in found.items()}
