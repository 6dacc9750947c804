"""Puts an utterance together from its events: text, insights, receipt. One object each, when it is complete."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from quickcomm.client.audio_client import Event
from quickcomm.contracts.audio_socket import Insights, InsightSeen, Receipt, Utterance
from quickcomm.contracts.timing import Latency

RECEIPT_WAIT_S: Final = 2.0
_REMEMBERED: Final = 4_096


class UtteranceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `ingest --json` prints, a line an utterance. Latencies are null where the server sent no receipt."""

    utterance_id: str
    conversation_id: str
    channel: str | None
    speaker: int
    start_offset: int
    end_offset: int
    text: str
    insights: tuple[InsightSeen, ...]
    latency_ms: Latency


class _Waiting(msgspec.Struct, kw_only=True):
    utterance: Utterance | None = None
    insights: tuple[InsightSeen, ...] | None = None
    latency: Latency | None = None
    timer: asyncio.TimerHandle | None = None


class Assembly:
    """`done` is called once for each utterance, at its receipt or `receipt_wait_s` after its insights."""

    def __init__(
        self,
        conversation_id: str,
        channel: str | None,
        done: Callable[[UtteranceReport], None],
        receipt_wait_s: float = RECEIPT_WAIT_S,
    ) -> None:
        self._receipt_wait_s = receipt_wait_s
        self._conversation_id = conversation_id
        self._channel = channel
        self._done = done
        self._waiting: dict[str, _Waiting] = {}
        self._reported: dict[str, None] = {}

    @property
    def unclassified(self) -> int:
        """Utterances that are still without insights."""
        return sum(1 for each in self._waiting.values() if each.utterance is not None and each.insights is None)

    def take(self, event: Event) -> None:
        if not isinstance(event, Utterance | Insights | Receipt) or event.utterance_id in self._reported:
            return
        waiting = self._waiting.setdefault(event.utterance_id, _Waiting())
        match event:
            case Utterance():
                waiting.utterance = event
            case Insights():
                waiting.insights = event.insights
            case Receipt():
                waiting.latency = event.latency_ms
        if waiting.utterance is None or waiting.insights is None:
            return
        if waiting.latency is not None:
            self._report(event.utterance_id)
        elif waiting.timer is None:
            loop = asyncio.get_running_loop()
            waiting.timer = loop.call_later(self._receipt_wait_s, self._report, event.utterance_id)

    def close(self) -> None:
        """No more events will come: what has its insights is reported as it is."""
        for utterance_id, waiting in list(self._waiting.items()):
            if waiting.utterance is not None and waiting.insights is not None:
                self._report(utterance_id)

    def _report(self, utterance_id: str) -> None:
        waiting = self._waiting.pop(utterance_id)
        if waiting.timer is not None:
            waiting.timer.cancel()
        self._reported[utterance_id] = None
        if len(self._reported) > _REMEMBERED:
            del self._reported[next(iter(self._reported))]
        said = waiting.utterance
        if said is None or waiting.insights is None:
            return
        self._done(
            UtteranceReport(
                utterance_id=utterance_id,
                conversation_id=self._conversation_id,
                channel=self._channel,
                speaker=said.speaker,
                start_offset=said.start_offset,
                end_offset=said.end_offset,
                text=said.text,
                insights=waiting.insights,
                latency_ms=waiting.latency or Latency(),
            )
        )
