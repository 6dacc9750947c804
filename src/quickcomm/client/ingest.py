"""`quickcomm ingest`: files, a folder, standard input or a device → conversations; what comes back is told at once."""

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.client.assembly import RECEIPT_WAIT_S, Assembly, UtteranceReport
from quickcomm.client.audio_client import AudioClient, Continued, Disconnected, Event, Forgotten
from quickcomm.client.calls import Call, CallFolder
from quickcomm.client.device import DeviceSource
from quickcomm.client.errors import SourceError
from quickcomm.client.files import FileSource
from quickcomm.client.level import Metered, Show
from quickcomm.client.options import Patience, StreamOptions
from quickcomm.client.sources import AudioSource, Paced, StdinSource
from quickcomm.contracts.audio_socket import DEFAULT_CHANNEL, AudioFormat, Ended, Ready
from quickcomm.contracts.conversations import Ledger
from quickcomm.kernel.errors import InvalidInputError, QuickCommError

_FAST_MESSAGE_MS: Final = 500
_NAME_LENGTH: Final = 80
_TELL_AGAIN_S: Final = 60.0
_LOOK_EVERY_S: Final = 1.0
_CALLS_AT_ONCE: Final = 4
STDIN: Final = "-"


class IngestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`raw` is the shape of what comes on standard input or from the device; files say theirs themselves."""

    files: tuple[str, ...] = ()
    url: str
    key: str
    channel: str | None = None
    fast: bool = False
    device: str | None = None
    watch: str | None = None
    """A folder whose recorded calls are sent as they come: `CallFolder`."""
    speakers: int = 1
    raw: AudioFormat = AudioFormat()
    together: bool = False
    conversation_id: str | None = None
    receipt_wait_s: float = RECEIPT_WAIT_S
    resume_token: str | None = None
    patience: Patience = Patience()


class ConversationResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one source came through: `ledger` is of all its conversations, None where the last did not end."""

    source: str
    conversation_id: str
    ledger: Ledger | None = None
    utterances: int = 0
    unclassified: int = 0
    delivered: bool = False
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and self.delivered and self.ledger is not None and self.ledger.balanced


class IngestResult(msgspec.Struct, frozen=True, kw_only=True):
    conversations: tuple[ConversationResult, ...]
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        return not self.interrupted and all(each.ok for each in self.conversations)


class Ingest:
    """Runs the conversations of one command. `finish` ends them properly; later ones are not begun."""

    def __init__(
        self,
        options: IngestOptions,
        *,
        report: Callable[[UtteranceReport], None],
        progress: Callable[[str], None],
        level: Show | None = None,
    ) -> None:
        """`level`: gets the level of a device's sound."""
        self._options = options
        self._report = report
        self._progress = progress
        self._level = level
        self._finished = asyncio.Event()
        self._running: set[AudioClient] = set()
        self._finishing = False

    def finish(self) -> None:
        self._finishing = True
        self._finished.set()
        for client in self._running:
            client.finish()

    async def run(self) -> IngestResult:
        """Raise `InvalidInputError` where the command makes no sense; what fails in a conversation is in the result."""
        if self._options.watch is not None:
            return await self._watched(self._options.watch)
        names = self._names()
        results: list[ConversationResult] = []
        if self._options.together:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self._one(name)) for name in names]
            results = [task.result() for task in running]
        else:
            for name in names:
                if not self._finishing:
                    results.append(await self._one(name))
        return IngestResult(conversations=tuple(results), interrupted=self._finishing)

    def _names(self) -> tuple[str, ...]:
        options = self._options
        if options.device is not None:
            if options.files:
                raise InvalidInputError("Give files or --device, not both.")
            return (options.device,)
        if not options.files:
            raise InvalidInputError("Nothing to stream: name a file, - for standard input, or --device.")
        if options.files.count(STDIN) > 1:
            raise InvalidInputError("Standard input can be one conversation only.")
        if options.conversation_id is not None and len(options.files) > 1:
            raise InvalidInputError("--conversation names one conversation; give one file with it.")
        return options.files

    async def _watched(self, watch: str) -> IngestResult:
        """Send the calls of a folder until `finish`."""
        options = self._options
        if options.files or options.device is not None or options.conversation_id is not None:
            raise InvalidInputError("--watch goes with neither files nor --device nor --conversation.")
        folder, room = CallFolder(Path(watch)), asyncio.Semaphore(_CALLS_AT_ONCE)
        self._progress(f"{watch}: watched for recorded calls")
        async with asyncio.TaskGroup() as tasks:
            while not self._finishing:
                for call in await asyncio.to_thread(folder.look):
                    await room.acquire()
                    if not self._finishing:
                        tasks.create_task(self._call(call, folder, room))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await self._finished.wait()
        return IngestResult(conversations=(), interrupted=True)

    async def _call(self, call: Call, folder: CallFolder, room: asyncio.Semaphore) -> None:
        """Send a call, and note it: also one that no program could read, but not one that the server has not got."""
        try:
            result = await self._one(str(call.path), call)
            if result.ok or result.error == SourceError.code:
                folder.done(call)
        except OSError as error:
            self._progress(f"{call.path}: not noted as heard, and sent again after a restart: {error}")
        finally:
            room.release()

    async def _one(self, name: str, call: Call | None = None) -> ConversationResult:
        conversation_id = self._options.conversation_id or (conversation_name(name) if call is None else call_id(call))
        try:
            source = self._source(name)
            stream = self._stream_options(conversation_id)
            if call is not None:
                stream = self._stream_of_call(stream, call)
        except QuickCommError as error:
            self._progress(f"{name}: {error}")
            return ConversationResult(source=name, conversation_id=conversation_id, error=error.code)
        client = AudioClient(stream, source)
        self._running.add(client)
        try:
            return await self._converse(name, stream, client)
        finally:
            self._running.discard(client)

    async def _converse(self, name: str, stream: StreamOptions, client: AudioClient) -> ConversationResult:
        utterances = 0
        error: str | None = None

        def told(report: UtteranceReport) -> None:
            nonlocal utterances
            utterances += 1
            self._report(report)

        def assembled(conversation_id: str) -> Assembly:
            channel = stream.channel or DEFAULT_CHANNEL
            return Assembly(conversation_id, channel, told, self._options.receipt_wait_s)

        assembly, unclassified, ledger = assembled(stream.conversation_id), 0, Ledger()
        outage = Outage(name, client, self._progress)
        try:
            async with client.stream() as events:
                async for event in events:
                    assembly.take(event)
                    outage.take(event)
                    self._show(name, event)
                    if isinstance(event, Continued | Ended):
                        ledger += event.ledger
                    if isinstance(event, Continued):
                        assembly.close()
                        unclassified += assembly.unclassified
                        assembly = assembled(event.conversation_id)
        except QuickCommError as failure:
            self._progress(f"{name}: {failure}")
            error = failure.code
        finally:
            assembly.close()
        return ConversationResult(
            source=name,
            conversation_id=client.conversation_id,
            ledger=None if client.ended is None else ledger,
            utterances=utterances,
            unclassified=unclassified + assembly.unclassified,
            delivered=client.delivered,
            error=error,
        )

    def _show(self, name: str, event: Event) -> None:
        match event:
            case Ready():
                self._progress(f"{name}: connected as {event.conversation_id}, from {event.next_offset}")
            case Continued():
                self._progress(
                    f"{name}: the server ended {event.continues} ({_account(event.ledger)});"
                    f" going on as {event.conversation_id}"
                )
            case Forgotten():
                self._progress(
                    f"{name}: WARNING: the server has lost what it had confirmed ({event.samples} samples);"
                    " its events count from 1 again"
                )
            case Ended():
                self._progress(f"{name}: ended; {_account(event.ledger)}")
            case _:
                pass

    def _source(self, name: str) -> AudioSource:
        options = self._options
        if options.device is not None:
            device = DeviceSource(options.device, fmt=options.raw)
            return device if self._level is None else Metered(device, self._level)
        if name == STDIN:
            return StdinSource(options.raw)
        file = FileSource(Path(name), speakers=options.speakers)
        return file if options.fast or options.watch is not None else Paced(file)

    def _stream_options(self, conversation_id: str) -> StreamOptions:
        options = self._options
        stream = StreamOptions(
            url=options.url,
            key=options.key,
            conversation_id=conversation_id,
            channel=options.channel,
            message_ms=_FAST_MESSAGE_MS if options.fast or options.watch is not None else 100,
            patience=options.patience,
        )
        return (
            stream
            if options.resume_token is None
            else msgspec.structs.replace(stream, resume_token=options.resume_token)
        )

    def _stream_of_call(self, stream: StreamOptions, call: Call) -> StreamOptions:
        """Return options with which a call that was cut off continues when it is sent again, without giving up."""
        return msgspec.structs.replace(
            stream,
            channel=stream.channel or call.channel,
            started_at=call.started_at,
            resume_token=hashlib.sha256(f"{stream.key}\n{stream.conversation_id}".encode()).hexdigest(),
            patience=msgspec.structs.replace(stream.patience, give_up_after=None),
        )


class Outage:
    """Tells of a time without a server: at its begin, now and then, and when it is over."""

    def __init__(self, name: str, client: AudioClient, progress: Callable[[str], None]) -> None:
        self._name = name
        self._client = client
        self._progress = progress
        self._since: float | None = None
        self._told = 0.0
        self._lost = 0

    def take(self, event: Event) -> None:
        match event:
            case Disconnected():
                self._away(event)
            case Ready() if self._since is not None:
                self._since = None
                self._over()
            case _:
                pass

    def _away(self, event: Disconnected) -> None:
        now = time.time()
        if self._since is None:
            self._since = now
        elif now - self._told < _TELL_AGAIN_S:
            return
        self._told = now
        client = self._client
        safe = f"{client.format.seconds(client.acked):.1f} s are safe"
        since = time.strftime("%H:%M:%S", time.localtime(self._since))
        kept = f"; keeping the last {client.memory_s / 60:.0f} min of sound" if client.insists else ""
        self._progress(
            f"{self._name}: {event.reason}. No connection since {since}; {safe}{kept},"
            f" trying again in {event.retry_in_s:.1f} s"
        )

    def _over(self) -> None:
        lost, self._lost = self._client.lost - self._lost, self._client.lost
        if lost:
            self._progress(
                f"{self._name}: away for too long: {self._client.format.seconds(lost):.0f} s of sound are lost"
                " (the server is told of the gap)"
            )


def _account(ledger: Ledger) -> str:
    return (
        f"{ledger.received} samples = {ledger.speech} speech + {ledger.silence} silence"
        f" + {ledger.gap} gap{'' if ledger.balanced else ' — THIS DOES NOT BALANCE'}"
    )


def call_id(call: Call) -> str:
    """Return the id of a recorded call: the same each time, with the radio that spoke."""
    told = "-".join(each for each in (call.unit, call.name) if each)
    safe = re.sub(r"[^A-Za-z0-9._~-]+", "-", told)[:_NAME_LENGTH].strip("-") or "call"
    digest = hashlib.sha256(f"{call.key or call.name} {call.started_at}".encode()).hexdigest()
    return f"{safe}-{digest[:12]}"


async def ingest(
    options: IngestOptions, *, report: Callable[[UtteranceReport], None], progress: Callable[[str], None]
) -> IngestResult:
    """Streams everything that `options` names and reports each utterance once."""
    return await Ingest(options, report=report, progress=progress).run()


def conversation_name(source: str) -> str:
    """An id that nobody else has, and that still says where it came from."""
    stem = "stdin" if source == STDIN else Path(source).stem
    safe = re.sub(r"[^A-Za-z0-9._~-]+", "-", stem)[:_NAME_LENGTH].strip("-") or "audio"
    return f"{safe}-{secrets.token_hex(6)}"
