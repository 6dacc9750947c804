"""Checks a site from outside, running or not; compares it with another one; repairs what is simple and safe."""

from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from quickcomm.contracts.checking import MAX_RANGE, ListBacklog, ListTranscripts, PublishAgain
from quickcomm.contracts.commands import Command, ListDeadLetters, ReplayDeadLetter
from quickcomm.contracts.operations import ListOperations
from quickcomm.kernel.checking.checker import ALL, Checker, CheckOptions, Parity, Report
from quickcomm.kernel.checking.repairs import DEAD_LETTER, REPLAY, may_be_answered
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import QuickCommError, UnavailableError
from quickcomm.kernel.runtime.admin_socket import UnknownCommandError, ask
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.administration import administer
from quickcomm.operate.settings import load_settings
from quickcomm.operate.up.layout import Layout

LISTS: Final = (ListBacklog, ListDeadLetters, ListOperations)
"""Requests that are answered with any number of rows."""
ONLINE_SHARE: Final = 0.1
ONLINE_PAGE: Final = 500
ONE_SIDE: Final = "The dashboard runs on one side only: there is nothing to compare."


class Site:
    """Asks the processes of a site, or its data where none runs. An `Ask`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    async def __call__(self, request: Command, /) -> Any:
        rows = await administer(self.data_dir, request)
        return rows if isinstance(request, LISTS) else rows[0]

    @property
    def runs(self) -> bool:
        """Whether something may be on its way between the modules."""
        directory = DataDirectory(self.data_dir)
        return directory.running() is not None or Layout(directory).is_owned()


async def check(data_dir: Path, *, since_ns: int | None = None, settle_s: float = 10.0, online: bool = False) -> Report:
    """Check a site; `online`: with a tenth of a core at most. Raises `QuickCommError` where nothing can be asked."""
    site, clock = Site(data_dir), SystemClock()
    options = CheckOptions(
        page=MAX_RANGE,
        settle_s=settle_s if site.runs else 0.0,
        retention_days=load_settings(data_dir).storage.retention_days,
    )
    if online:
        options = msgspec.structs.replace(options, page=ONLINE_PAGE, share=ONLINE_SHARE)
    checker = Checker(site, clock, options)
    return await checker.run([ALL] if since_ns is None else await checker.recent(since_ns))


class Side:
    """Asks the dashboard of one side of a site that is being moved. An `Ask`."""

    def __init__(self, *sockets: Path) -> None:
        """`sockets`: of its processes, of which some may have been killed. They have one database."""
        self._sockets = sockets

    async def __call__(self, request: Command, /) -> Any:
        failed: Exception | None = None
        for socket in self._sockets:
            try:
                return (await ask(socket, request))[0]
            except UnknownCommandError as error:
                raise UnavailableError(ONE_SIDE) from error
            except (aiohttp.ClientError, OSError) as error:
                failed = error
        where = self._sockets[-1].parent
        raise UnavailableError(f"The dashboard at {where} does not answer: {failed}") from failed


async def compare_sides(data_dir: Path, settle_s: float) -> Report:
    """Compare the monolith's dashboard with the service beside it. Raises `QuickCommError` where one is away."""
    directory = DataDirectory(data_dir)
    if Layout(directory).is_owned() and not directory.is_owned():  # no monolith runs
        raise UnavailableError(ONE_SIDE)
    options = CheckOptions(page=MAX_RANGE, settle_s=settle_s)
    service = Side(*Layout(directory).administrations("dashboard"), directory.dashboard.socket)
    return await Parity(Side(directory.socket), service, SystemClock(), options).run()


async def compare(data_dir: Path, other: Path, settle_s: float) -> Report:
    """Compare the dashboard of a site with another one's. Raises `QuickCommError` where one cannot be asked."""
    here, there = Site(data_dir), Site(other)
    options = CheckOptions(page=MAX_RANGE, settle_s=settle_s if here.runs or there.runs else 0.0)
    return await Parity(here, there, SystemClock(), options).run()


async def repair(data_dir: Path, report: Report) -> list[str]:
    """Do what is safe: replay dead letters, publish transcripts again that were never answered. Return what was done.

    Each message may come twice: who has handled it drops it by its id.
    """
    wanted: list[tuple[str, Command]] = []
    for finding in report.findings:
        if finding.code == DEAD_LETTER:
            number = int(finding.repair.removeprefix(REPLAY))
            wanted.append((f"dead letter {number}: replayed", ReplayDeadLetter(id=number)))
    keys = [(finding.site, finding.id) for finding in report.findings if may_be_answered(finding)]
    if keys:
        rows = await administer(data_dir, ListTranscripts(keys=keys[:MAX_RANGE]))
        wanted += [("transcript: published again", PublishAgain(message=row["message"])) for row in rows]
    return [await _done(data_dir, what, request) for what, request in wanted]


async def _done(data_dir: Path, what: str, request: Command) -> str:
    try:
        await administer(data_dir, request)
    except QuickCommError as error:
        return f"{what.partition(':')[0]}: {error}"
    return what
