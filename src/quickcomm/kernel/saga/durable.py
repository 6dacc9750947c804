"""Durable execution on DBOS: after a crash at any instruction an operation goes on from its last recorded turn.

DBOS records the progress in a database of its own, SQLite or PostgreSQL: after turns that took `TOGETHER_S` together,
and before anything is taken back. What was done since is done again, with the same keys, and so has no second effect.
The import takes long: only `open` does it. Its workflows run in a loop of its own thread; each turn is done in the loop
of the process.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
import structlog

from quickcomm.kernel.errors import BusyError, ConfigurationError, QuickCommError
from quickcomm.kernel.saga.executors import Journal, Told, ignore
from quickcomm.kernel.saga.progress import Progress
from quickcomm.kernel.saga.running import Runner

NAME: Final = "quickcomm"
EXECUTOR: Final = "operations"
"""One a site: the executor with the lease takes over what the one before left."""
AT_WORK: Final = frozenset({"PENDING", "ENQUEUED", "DELAYED"})
SQLITE: Final = "sqlite:///"
POLL_S: Final = 1.0
AT_ONCE: Final = 100
"""Operations; more are refused until one of them rests."""
THREADS_EACH: Final = 2
"""DBOS has each workflow wait in a thread, and writes its records in others: with too few, none would go on."""
CANCELLED: Final = "Asyncio task cancelled"
TOGETHER_S: Final = 0.2
SAID_S: Final = 60.0
_decode: Final = msgspec.json.Decoder(Progress).decode

log = structlog.get_logger(__name__)


class Durable:
    """An `Executor`. `open()` first, `aclose()` last; one in a process at a time."""

    def __init__(self, runner: Runner, journal: Journal, url: str, version: str, at_once: int = AT_ONCE) -> None:
        """`url`: `sqlite:///FILE`, or that of a PostgreSQL. `version`: the digest of the definitions."""
        self.told: Told = ignore
        """Called with how an operation stands after each record."""
        self._runner = runner
        self._journal = journal
        self._url = url
        self._version = version
        self._at_once = at_once
        self._starting: set[str] = set()
        self._at_work: set[str] = set()
        self._dbos: Any = None
        self._is_launched = False
        self._workflow: Callable[..., Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resting: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Of operations that are waited for."""

    async def open(self) -> int:
        """Take over what the last executor left unfinished; return how many operations that is.

        DBOS itself goes on with workflows of the same definitions. Others, and those that it had not begun, begin anew
        from the journal: the steps that are done are not done again, by their keys.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._launch)
        self._is_launched = True
        left = [each for each in await self._journal.unfinished() if each.status != "parked"]
        for progress in left:
            if await asyncio.to_thread(self._status, progress) not in AT_WORK:
                await self._begin(progress, again=True)
        return len(left)

    async def run(self) -> None:
        """Work until cancelled."""
        left = await self.open()
        if left:
            log.info("operations.taken_over", operations=left)
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Leave what is at work to the next executor. May be called again."""
        dbos, self._dbos, self._is_launched = self._dbos, None, False
        if dbos is not None:
            await asyncio.to_thread(lambda: dbos.destroy(destroy_registry=True))

    async def start(self, progress: Progress) -> None:
        """Return once it is certain that it will be executed. Raises `BusyError` before `open`, and for too many."""
        if not self._is_launched:
            raise BusyError("Operations are not executed yet; try again in a moment.")
        if len(self._at_work | self._starting) >= self._at_once:
            raise BusyError(f"{self._at_once} operations are at work, the most at once. Try again in a moment.")
        self._starting.add(progress.id)
        try:
            await self._journal.store(progress)
            await self._begin(progress)
        finally:
            self._starting.discard(progress.id)

    async def rest(self, operation_id: str, within_s: float) -> Progress:
        resting = self._resting[operation_id]
        found = await self._journal.find(operation_id)
        if not found.rests:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await resting.wait()
            found = await self._journal.find(operation_id)
        if found.rests:
            self._resting.pop(operation_id, None)
        return found

    # -- inside -----------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        try:
            from dbos import DBOS  # noqa: PLC0415 - takes half a second, and most processes do without
        except ImportError as error:
            raise ConfigurationError("Operations over several services need `dbos`: pip install dbos") from error
        if self._url.startswith(SQLITE):
            with sqlite3.connect(self._url.removeprefix(SQLITE)) as file:
                file.execute("PRAGMA journal_mode=WAL")  # stays so
        logs = logging.getLogger("dbos")
        logs.handlers, logs.propagate = [logging.NullHandler()], False
        self._dbos = DBOS(
            config={
                "name": NAME,
                "system_database_url": self._url,
                "executor_id": EXECUTOR,
                "application_version": self._version,
                "enable_otlp": False,
                "log_level": "WARNING",
                "max_executor_threads": THREADS_EACH * self._at_once,
                "notification_listener_polling_interval_sec": POLL_S,
            }
        )
        logs.handlers, logs.propagate = [_ToStructlog()], False

        @DBOS.workflow(name="operation", max_recovery_attempts=1_000)
        async def operation(told: str) -> str:
            return await self._run(told)

        self._workflow = operation
        DBOS.launch()

    async def _begin(self, progress: Progress, *, again: bool = False) -> None:
        from dbos import SetWorkflowID  # noqa: PLC0415 - as above

        def begin() -> None:
            with SetWorkflowID(_name(progress, again=again)):
                self._dbos.start_workflow(self._workflow, msgspec.json.encode(progress).decode())

        await asyncio.to_thread(begin)

    def _status(self, progress: Progress) -> str | None:
        """Return what DBOS says of the newest workflow of an operation, if it is of these definitions."""
        found = self._dbos.list_workflows(workflow_id_prefix=f"{progress.id}#", sort_desc=True, limit=1)
        return found[0].status if found and found[0].app_version == self._version else None

    async def _run(self, told: str) -> str:
        """The workflow: turns, each few recorded with the progress after them."""
        progress = _decode(told)
        self._at_work.add(progress.id)
        try:
            while not progress.rests:
                told = await self._dbos.run_step_async({"name": "turns"}, self._turns_here, told)
                progress = _decode(told)
        finally:
            self._at_work.discard(progress.id)
        return told

    async def _turns_here(self, told: str) -> str:
        assert self._loop is not None, "opened before"  # noqa: S101 - a programming error
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._turns(told), self._loop))

    async def _turns(self, told: str) -> str:
        """Go forward for `TOGETHER_S`. A failure is recorded before its compensation begins: it must stay one."""
        until_s, after = time.monotonic() + TOGETHER_S, _decode(told)
        while True:
            after = await self._turn(after, until_s)
            if after.status != "running" or time.monotonic() >= until_s:
                break
        before = self._resting.get(after.id)
        await self._stored(after)
        self.told(after)
        if after.rests:
            for waiting in (before, self._resting.pop(after.id, None)):
                if waiting is not None:
                    waiting.set()
        return msgspec.json.encode(after).decode()

    async def _turn(self, progress: Progress, until_s: float) -> Progress:
        """Do a turn. Where it takes longer than until then, those who ask are told meanwhile what was done before."""

        async def show() -> None:
            await asyncio.sleep(until_s - time.monotonic())
            await self._stored(progress)

        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(show())
            after = await self._runner.turn(progress)
            showing.cancel()
        assert after is not None, "it does not rest"  # noqa: S101 - a programming error
        return after

    async def _stored(self, progress: Progress) -> None:
        """Store progress, however long that takes: an error would end the workflow until the next start."""
        waits = False
        while True:
            try:
                await self._journal.store(progress)
            except QuickCommError as error:
                if not waits:  # each of many operations, each second, would be a flood
                    log.warning("operation.not_stored", operation_id=progress.id, error=str(error)[:200])
                waits = True
                await asyncio.sleep(POLL_S)
            else:
                return


def forget(url: str, operation_ids: Sequence[str]) -> None:
    """Delete what DBOS has recorded of operations that rest, if it has; also while their executor works."""
    if url.startswith(SQLITE) and not Path(url.removeprefix(SQLITE)).is_file():
        return
    from dbos import DBOSClient  # noqa: PLC0415 - as above

    client = DBOSClient(system_database_url=url)
    try:
        prefixes = [f"{operation_id}#" for operation_id in operation_ids]
        found = client.list_workflows(workflow_id_prefix=prefixes, load_input=False, load_output=False)
        client.delete_workflows([each.workflow_id for each in found])
    finally:
        client.destroy()


def _name(progress: Progress, *, again: bool = False) -> str:
    """Return the id of the workflow that goes on from here; a new one where an operator or an executor begins anew."""
    return f"{progress.id}#{progress.events:04d}" + (f"-{uuid4().hex[:8]}" if again else "")


class _ToStructlog(logging.Handler):
    """Says the same once a minute, without the input of an operation, which may have names of people."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        error, now = _kind_of(record), time.monotonic()
        message = record.getMessage().partition("{")[0].partition("functools.partial")[0][:300].strip()
        if error == "CancelledError" or message.startswith(CANCELLED):  # it is stopped; the next one goes on
            return
        self._said = {said: at for said, at in self._said.items() if now - at < SAID_S}
        if self._said.setdefault(f"{message} {error}", now) == now:
            log.log(record.levelno, "dbos.said", message=message, error=error)


def _kind_of(record: logging.LogRecord) -> str:
    return "" if record.exc_info is None or record.exc_info[0] is None else record.exc_info[0].__name__
