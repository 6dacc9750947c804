"""Consumes transcripts, has them classified in batches, publishes insights: once an utterance, come what may."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.intelligence.ports import Classifier, Heard, OpensTask, ResultStore
from quickcomm.kernel.bus import Delivery, RejectedError
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED

CONTEXT_UTTERANCES: Final = 3
MAX_CHANNELS: Final = 2_000
NS_PER_MS: Final = 1_000_000
_decoder = msgspec.json.Decoder(UtteranceTranscribed)

log = structlog.get_logger(__name__)


class Understanding:
    def __init__(self, classifier: Classifier, store: ResultStore, clock: Clock, opens_task: OpensTask) -> None:
        self._classifier = classifier
        self._store = store
        self._clock = clock
        self._opens_task = opens_task
        self._said: OrderedDict[tuple[str, str], deque[str]] = OrderedDict()

    async def handle(self, batch: Sequence[Delivery]) -> None:
        """A batch of transcripts in the order spoken. Raises `RejectedError` for what is none."""
        arrived = self._clock.now_ns()
        messages = [_decode(delivery) for delivery in batch]
        done = await self._store.known([(message.site, message.utterance_id) for message in messages])
        fresh = [message for message in messages if (message.site, message.utterance_id) not in done]
        if not fresh:
            return
        answers = await self._classifier.classify(self._heard(fresh))
        now = self._clock.now_ns()
        found = [self._found(message, insights, arrived, now) for message, insights in zip(fresh, answers, strict=True)]
        await self._store.publish(found)
        self._remember(fresh)
        log.debug("insights.published", utterances=len(found))

    def _heard(self, messages: Sequence[UtteranceTranscribed]) -> list[Heard]:
        """The utterances with what was said before them on their channels."""
        batch: dict[tuple[str, str], deque[str]] = {}
        heard = []
        for message in messages:
            key = (message.site, message.channel)
            said = batch.setdefault(key, deque(self._said.get(key, ()), maxlen=CONTEXT_UTTERANCES))
            heard.append(Heard(text=message.text, channel=message.channel, context=tuple(said)))
            said.append(message.text)
        return heard

    def _remember(self, messages: Sequence[UtteranceTranscribed]) -> None:
        """Only what is published: a batch that failed comes again, and is no context of itself."""
        for message in messages:
            key = (message.site, message.channel)
            said = self._said.pop(key, deque(maxlen=CONTEXT_UTTERANCES))
            said.append(message.text)
            self._said[key] = said
            if len(self._said) > MAX_CHANNELS:
                self._said.popitem(last=False)

    def _found(
        self, message: UtteranceTranscribed, insights: tuple[Insight, ...], arrived_ns: int, now_ns: int
    ) -> InsightsFound:
        latency = msgspec.structs.replace(
            message.latency,
            queue=_ms(arrived_ns - message.published_ns),
            classify=_ms(now_ns - arrived_ns),
        )
        return InsightsFound(
            site=message.site,
            conversation_id=message.conversation_id,
            utterance_id=message.utterance_id,
            revision=max(insight.revision for insight in insights),
            insights=insights,
            opens_tasks=tuple(insight.index for insight in insights if self._opens_task(insight.intent)),
            speech_ended_ns=message.speech_ended_ns,
            published_ns=now_ns,
            latency=latency,
            traceparent=message.traceparent,
        )


def _decode(delivery: Delivery) -> UtteranceTranscribed:
    try:
        return _decoder.decode(delivery.payload)
    except MALFORMED as error:
        raise RejectedError(f"Not an UtteranceTranscribed message: {error}") from error


def _ms(nanoseconds: int) -> float:
    return round(max(0, nanoseconds) / NS_PER_MS, 2)
