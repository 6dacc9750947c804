"""Supervisor (supervisord.org) as the parent of all processes. It outlives `up`, so that a crash of `up` stops nothing.

It starts, reaps, stops and logs; when to start again is decided by the keepers (its own back-off is linear).
"""

import asyncio
import hashlib
import os
import resource
import shlex
import sys
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from xmlrpc.client import Fault, ServerProxy

import msgspec
import structlog
from supervisor.states import ProcessStates
from supervisor.xmlrpc import Faults, SupervisorTransport

from quickcomm.kernel.errors import BusyError, ConfigurationError
from quickcomm.topology.adapters.processes import RecordedProcesses
from quickcomm.topology.model.program import Program

NAME: Final = "supervisor"
START_S: Final = 15.0
POLL_S: Final = 0.02
LOG_BYTES: Final = 10 * 1024 * 1024
LOG_BACKUPS: Final = 3
LEFT_WITHIN_S: Final = 20.0
WHO: Final = "up"
"""No secret: the mode of the socket lets nobody else in. Without a name there is a critical line in its log."""
AS_ROOT: Final = "user=root\n"
"""Said so, it is no critical line either."""

log = structlog.get_logger(__name__)

_MAIN: Final = """\
[unix_http_server]
file={root}/supervisor.sock
chmod=0600
username={who}
password={who}

[supervisord]
nodaemon=true
silent=true
logfile={logs}/supervisor.log
logfile_maxbytes={log_bytes}
logfile_backups=1
loglevel=warn
pidfile={root}/supervisor.pid
childlogdir={logs}
nocleanup=true
directory={root}
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[include]
files={root}/programs/*.conf
"""

_PROGRAM: Final = """\
[program:{name}]
command={command}
environment={environment}
autostart=false
autorestart=false
startsecs=0
startretries=0
stopsignal=TERM
stopwaitsecs={drain_s}
killasgroup=true
redirect_stderr={together}
stdout_logfile={logs}/{output}.log
stdout_logfile_maxbytes={log_bytes}
stdout_logfile_backups={log_backups}
"""

_ERRORS_APART: Final = """\
stderr_logfile={logs}/{name}.log
stderr_logfile_maxbytes={log_bytes}
stderr_logfile_backups={log_backups}
"""


class SupervisorError(BusyError):
    code = "topology.supervisor"


class SupervisorFaultError(SupervisorError):
    """It answers, and refuses."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"The supervisor refuses: {fault.faultString}")
        self.fault = fault.faultCode


class _Info(msgspec.Struct, frozen=True):
    name: str
    state: int
    pid: int
    spawnerr: str = ""


class Supervisord:
    def __init__(self, root: Path, logs: Path, processes: RecordedProcesses) -> None:
        self._root = root
        self._logs = logs
        self._processes = processes
        self._lock = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self.pid: int | None = None

    # -- itself -----------------------------------------------------------------------------------------------------

    async def launch(self, environment: Mapping[str, str]) -> bool:
        """Adopt the one that a former `up` left behind, if it has the same environment, or start one.

        True if it was adopted.
        """
        left = self._processes.find(NAME)
        if left is not None and self._same_environment(environment) and await self._answers():
            self.pid = left.pid
            return True
        await self.clear()
        await self._spawn(environment)
        return False

    async def clear(self) -> None:
        """Stop whatever a former `up` left behind, by its recorded identity, in the reverse order of its start.

        The supervisor, which was started first, goes last: it reads what the others log, and starts nobody by itself.
        """
        living = [each for each in self._processes.living() if each.pid != os.getpid()]
        if living:
            log.warning("topology.left_behind", processes=[each.name for each in living])
        for each in sorted(living, key=lambda each: each.started, reverse=True):
            await self._processes.stop([each], LEFT_WITHIN_S)
        for each in living:
            self._processes.erase(each.name)
        if self._child is not None:
            await self._child.wait()
            self._child = None
        for file in ("supervisor.sock", "supervisor.pid"):
            (self._root / file).unlink(missing_ok=True)

    async def shut_down(self) -> None:
        """Stop it. Its children were stopped before."""
        if self.pid is None:
            return
        pid, self.pid = self.pid, None
        try:
            await self._call("shutdown")
        except SupervisorError as error:
            log.warning("supervisor.not_asked", error=str(error))
        left = self._processes.find(NAME)
        try:
            async with asyncio.timeout(START_S):
                await self._processes.gone(pid)
        except TimeoutError:
            await self._processes.stop([left] if left else [], 0.0)
        if self._child is not None:
            await self._child.wait()
            self._child = None
        self._processes.erase(NAME)

    async def gone(self) -> None:
        """Come back when it has ended."""
        if self.pid is not None:
            await self._processes.gone(self.pid)

    async def _spawn(self, environment: Mapping[str, str]) -> None:
        (self._root / "programs").mkdir(exist_ok=True, mode=0o700)
        for old in (self._root / "programs").glob("*.conf"):
            old.unlink()
        config = self._root / "supervisord.conf"
        user = "" if os.getuid() else AS_ROOT
        places = {"root": _plain(self._root), "logs": _plain(self._logs), "log_bytes": LOG_BYTES}
        config.write_text(_MAIN.format(**places, who=WHO, user=user))
        _raise_limit()
        command = (sys.executable, "-m", "supervisor.supervisord", "--configuration", str(config), "--nodaemon")
        self._child = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for `up`, which stops all in its order
        )
        self.pid = self._child.pid
        self._processes.record(NAME, self._child.pid)
        self._digest.write_text(_digest(environment))
        try:
            async with asyncio.timeout(START_S):
                while not await self._answers():
                    if self._child.returncode is not None:
                        raise ConfigurationError(f"The supervisor did not start. See {self._logs}/supervisor.log.")
                    await asyncio.sleep(POLL_S)  # it tells nobody when it listens
        except TimeoutError:
            raise ConfigurationError(f"The supervisor does not answer. See {self._logs}/supervisor.log.") from None

    @property
    def _digest(self) -> Path:
        return self._root / "environment.sha256"

    def _same_environment(self, environment: Mapping[str, str]) -> bool:
        try:
            return self._digest.read_text() == _digest(environment)
        except OSError:
            return False

    async def _answers(self) -> bool:
        try:
            await self._call("getState")
        except SupervisorError:
            return False
        return True

    # -- its programs (the port `Supervisor`) -------------------------------------------------------------------------

    async def running(self) -> dict[str, int]:
        """Name and process id of all that run."""
        return {info.name: info.pid for info in await self._infos() if info.pid}

    async def define(self, program: Program) -> int | None:
        path = self._root / "programs" / f"{program.name}.conf"
        text = self._text(program)
        async with self._lock:
            known = {info.name: info for info in await self._infos()}.get(program.name)
            if known is not None:
                if known.pid and path.is_file() and path.read_text() == text:
                    return known.pid
                await self._remove(known)
            # Never half of one, on a full disk: the supervisor could read none of them.
            new = path.with_name(f".{path.name}.new")
            new.touch(mode=0o600)
            new.write_text(text)
            new.replace(path)
            await self._call("reloadConfig")
            await self._call("addProcessGroup", program.name)
        return None

    async def start(self, name: str) -> int:
        try:
            async with asyncio.timeout(START_S):
                while True:
                    try:
                        await self._call("startProcess", name, False)  # noqa: FBT003 - its own signature
                        return (await self._info(name)).pid
                    except SupervisorFaultError as error:
                        if error.fault != Faults.ALREADY_STARTED:
                            raise
                        await asyncio.sleep(POLL_S)  # it has not noticed yet that the former one has ended
        except TimeoutError:
            raise SupervisorError(f"{name} cannot be started: it seems to be running.") from None

    async def stop(self, name: str) -> None:
        info = await self._info(name)
        if not info.pid:
            return
        try:
            await self._call("stopProcess", name, False)  # noqa: FBT003 - its own signature
        except SupervisorFaultError as error:
            if error.fault != Faults.NOT_RUNNING:
                raise
        await self._processes.gone(info.pid)
        while (await self._info(name)).state == ProcessStates.STOPPING:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)  # it tells nobody when it has noticed

    async def forget(self, name: str) -> None:
        async with self._lock:
            known = {info.name: info for info in await self._infos()}.get(name)
            if known is not None:
                await self._remove(known)
            (self._root / "programs" / f"{name}.conf").unlink(missing_ok=True)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _remove(self, known: _Info) -> None:
        await self.stop(known.name)
        await self._call("removeProcessGroup", known.name)

    async def _info(self, name: str) -> _Info:
        return msgspec.convert(await self._call("getProcessInfo", name), _Info)

    async def _infos(self) -> list[_Info]:
        return msgspec.convert(await self._call("getAllProcessInfo"), list[_Info])

    async def _call(self, method: str, *arguments: object) -> Any:
        return await asyncio.to_thread(self._call_now, method, *arguments)

    def _call_now(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(WHO, WHO, serverurl=f"unix://{self._root / 'supervisor.sock'}")
        try:
            proxy = ServerProxy("http://supervisor", transport=transport)
            return getattr(proxy.supervisor, method)(*arguments)
        except Fault as fault:
            raise SupervisorFaultError(fault) from fault
        except (OSError, HTTPException) as error:
            raise SupervisorError(f"The supervisor does not answer: {error}") from error
        finally:
            transport.close()

    def _text(self, program: Program) -> str:
        """A program as Supervisor's configuration has it: `%` doubled, values in quotes."""
        places: dict[str, object] = {
            "name": program.name,
            "command": _plain(shlex.join(program.command)),
            "environment": ",".join(f'{key}="{_quotable(value)}"' for key, value in program.environment.items()),
            "drain_s": max(1, round(program.drain_s)),
            "together": str(not program.output_apart).lower(),
            "output": f"{program.name}-access" if program.output_apart else program.name,
            "logs": _plain(self._logs),
            "log_bytes": LOG_BYTES,
            "log_backups": LOG_BACKUPS,
        }
        return (_PROGRAM + (_ERRORS_APART if program.output_apart else "")).format(**places)


def _plain(text: object) -> str:
    return str(text).replace("%", "%%")


def _quotable(value: str) -> str:
    if '"' in value or "\n" in value:
        raise ConfigurationError(f"The supervisor cannot pass on a value with quotes or line ends: {value[:20]}…")
    return _plain(value)


def _digest(environment: Mapping[str, str]) -> str:
    ours = sorted((name, value) for name, value in environment.items() if name.startswith("QUICKCOMM_"))
    return hashlib.sha256(msgspec.json.encode([sys.executable, os.getuid(), ours])).hexdigest()


def _raise_limit() -> None:
    """A thousand conversations are two thousand open files in the edge."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
