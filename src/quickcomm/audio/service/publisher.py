"""Publishes finished utterances in the order spoken: recording, one atomic step in the store, captions, trace."""

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from quickcomm.audio.ports import FencedError, Progress, RecordingError
from quickcomm.audio.service.account import Account
from quickcomm.audio.service.due import ReceiptsDue
from quickcomm.audio.service.event_log import EventLog
from quickcomm.audio.service.listener import Listener, Tools
from quickcomm.audio.service.traced import trace_published
from quickcomm.audio.service.utterance import Finished
from quickcomm.contracts.audio_socket import DurableEvent
from quickcomm.contracts.link import FIRST
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.telemetry import tracing

REASON_AT_MOST: Final = 300

log = structlog.get_logger(__name__)


class Publisher:
    """`saved` is called with each progress that is durable."""

    def __init__(
        self,
        tools: Tools,
        *,
        account: Account,
        listener: Listener,
        events: EventLog,
        due: ReceiptsDue,
        saved: Callable[[Progress], None],
    ) -> None:
        self._clock = tools.clock
        self._store = tools.store
        self._recorder = tools.recorder
        self._transcriber = tools.transcriber
        self._account = account
        self._listener = listener
        self._events = events
        self._due = due
        self._saved = saved
        self._last: str | None = None
        """The utterance before the next one, where this process has published it."""
        self._refused = ""
        self._refused_ns = 0
        """Why an utterance could not be published, and when it was last tried."""

    async def publish(self, item: Finished) -> None:
        """Publish the oldest finished utterance; one without words counts as silence. Raises `FencedError`."""
        message = self._listener.message(item)
        if message is None:
            self._account.silent(item)
            return
        if self._refused_ns >= max(item.text_ns, item.closed_ns):
            message = msgspec.structs.replace(message, held_up=self._refused)
        await self._record(message, item)
        storing = self._clock.now_ns()
        async with self._account.storing:
            event = await self._put(item, message)
        if event is None:  # published before a restart, or by another process
            self._last = None
            return
        if tracing().on:
            batch = self._transcriber.batch_of(item.text)
            trace_published(message, batch, (storing, self._clock.now_ns()))
        self._due.add(message.utterance_id)
        self._events.published(event)
        after = FIRST if event.seq == 1 else self._last
        self._last = message.utterance_id
        self._listener.published(msgspec.structs.replace(message, seq=event.seq), after)
        log.debug("utterance.published", site=message.site, utterance_id=message.utterance_id, seq=event.seq)

    async def settle(self) -> None:
        """Store the furthest checkpoint that the last publication allows. Raises `FencedError`."""
        progress = self._account.progress(self._listener.pending)
        if progress is not None:
            if await self._store.save([progress]):
                raise FencedError("The conversation has another owner.")
            self._saved(progress)

    async def _record(self, message: UtteranceTranscribed, item: Finished) -> None:
        if self._recorder is None:
            return
        try:
            await self._recorder.record(message.site, message.utterance_id, item.span.samples)
        except RecordingError as error:  # the text must come out all the same
            # Without its causes: the answer of a bucket may have the request in it.
            log.warning("recording.failed", site=message.site, utterance_id=message.utterance_id, error=str(error))

    async def _put(self, item: Finished, message: UtteranceTranscribed) -> DurableEvent | None:
        """Store the utterance and the checkpoint that it allows, in one step."""
        progress, undo = self._account.with_speech(item, self._listener.pending)
        try:
            event = await self._store.publish(progress, message)
        except QuickCommError as error:
            undo()
            if not isinstance(error, FencedError):
                self._refused, self._refused_ns = str(error)[:REASON_AT_MOST], self._clock.now_ns()
            raise
        if event is None:
            self._account.dirty = True  # the checkpoint is still to be stored
        else:
            self._saved(progress)
        return event
