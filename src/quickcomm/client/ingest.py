"""`quickcomm ingest`: files, standard input or a device → conversations; what comes back is told as it comes."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.client.assembly import RECEIPT_WAIT_S, Assembly, UtteranceReport
from quickcomm.client.audio_client import AudioClient, Continued, Disconnected, Event, Forgotten
from quickcomm.client.device import DeviceSource
from quickcomm.client.files import FileSource
from quickcomm.client.options import Patience, StreamOptions
from quickcomm.client.sources import AudioSource, Paced, StdinSource
from quickcomm.contracts.audio_socket import AudioFormat, Ended, Ready
from quickcomm.contracts.conversations import Ledger
from quickcomm.kernel.errors import InvalidInputError, QuickCommError

_FAST_MESSAGE_MS: Final = 500
_NAME_LENGTH: Final = 80
_TELL_AGAIN_S: Final = 60.0
STDIN: Final = "-"


class IngestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`raw` is the shape of what comes on standard input or from the device; files say theirs themselves."""

    files: tuple[str, ...] = ()
    url: str
    key: str
    channel: str | None = None
    fast: bool = False
    device: str | None = None
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
    ) -> None:
        self._options = options
        self._report = report
        self._progress = progress
        self._running: set[AudioClient] = set()
        self._finishing = False

    def finish(self) -> None:
        self._finishing = True
        for client in self._running:
            client.finish()

    async def run(self) -> IngestResult:
        """Raise `InvalidInputError` where the command makes no sense; what fails in a conversation is in the result."""
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

    async def _one(self, name: str) -> ConversationResult:
        conversation_id = self._options.conversation_id or conversation_name(name)
        try:
            source = self._source(name)
            stream = self._stream_options(conversation_id)
        except QuickCommError as error:
            self._progress(f"{name}: {error}")
            return ConversationResult(source=name, conversation_id=conversation_id, error=error.code)
        client = AudioClient(stream, source)
        self._running.add(client)
        try:
            return await self._converse(name, conversation_id, client)
        finally:
            self._running.discard(client)

    async def _converse(self, name: str, conversation_id: str, client: AudioClient) -> ConversationResult:
        utterances = 0
        error: str | None = None

        def told(report: UtteranceReport) -> None:
            nonlocal utterances
            utterances += 1
            self._report(report)

        def assembled(conversation_id: str) -> Assembly:
            return Assembly(conversation_id, self._options.channel, told, self._options.receipt_wait_s)

        assembly, unclassified, ledger = assembled(conversation_id), 0, Ledger()
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
            return DeviceSource(options.device, fmt=options.raw)
        if name == STDIN:
            return StdinSource(options.raw)
        file = FileSource(Path(name), speakers=options.speakers)
        return file if options.fast else Paced(file)

    def _stream_options(self, conversation_id: str) -> StreamOptions:
        options = self._options
        stream = StreamOptions(
            url=options.url,
            key=options.key,
            conversation_id=conversation_id,
            channel=options.channel,
            message_ms=_FAST_MESSAGE_MS if options.fast else 100,
            patience=options.patience,
        )
        return (
            stream
            if options.resume_token is None
            else msgspec.structs.replace(stream, resume_token=options.resume_token)
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
