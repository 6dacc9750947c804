"""Asks a running topology, over its local socket."""

import asyncio
from pathlib import Path

import aiohttp

from quickcomm.contracts.commands import Command, GetStatus
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.admin_socket import Rows, ask
from quickcomm.kernel.runtime.data_directory import DataDirectory, data_dir_flag, is_trusted
from quickcomm.operate.up.layout import Layout


class NotRunningError(ConfigurationError):
    code = "topology.not_running"


def tell(data_dir: Path, request: Command) -> Rows:
    """Raises `NotRunningError` where nobody answers."""
    layout = Layout(DataDirectory(data_dir))
    directory = layout.directory.path
    try:
        if is_trusted(layout.control, directory):
            return asyncio.run(ask(layout.control, request))
    except (aiohttp.ClientConnectionError, OSError):
        pass
    flag = data_dir_flag(directory)
    if _left_behind(layout):
        raise NotRunningError(
            f"`quickcomm up` on {directory} was cut off, and what it has started still runs. Take it over with: "
            f"quickcomm up{flag}. Stop it with: quickcomm down{flag}"
        )
    raise NotRunningError(f"No topology runs on {directory}. Start one with: quickcomm up{flag}")


def topology_status(data_dir: Path) -> Rows | None:
    """A line a process of what `up` runs, or has left behind; None where there is nothing."""
    try:
        return tell(data_dir, GetStatus())
    except NotRunningError:
        return _left_behind(Layout(DataDirectory(data_dir))) or None


def _left_behind(layout: Layout) -> Rows:
    """`up` was killed: what it started may be at work, but nobody looks after it."""
    from quickcomm.topology.adapters.processes import RecordedProcesses  # noqa: PLC0415 - seldom needed

    living = RecordedProcesses(layout.processes).living()
    rows = [{"module": each.name, "process": each.name, "pid": each.pid, "state": "left behind"} for each in living]
    return [row | {"healthy": False, "version": None} for row in rows]
