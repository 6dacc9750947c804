"""Transcripts, insights and a language model for tests of summaries."""

import asyncio

import msgspec

from quickcomm.contracts.conversations import ConversationChanged, ConversationState
from quickcomm.contracts.insight import Insight, Item, Urgency
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.intelligence.ports import ModelAnswer, ModelError, ModelRequest
from quickcomm.kernel.messaging.bus import Delivery

START_NS = 1_760_000_000_000_000_000


def spoken(number: int, text: str, *, conversation: str = "c", channel: str = "housekeeping") -> UtteranceTranscribed:
    at_ns = START_NS + number * 10**9
    return UtteranceTranscribed(
        site="main",
        conversation_id=conversation,
        utterance_id=f"{conversation}:0:{number}",
        channel=channel,
        speaker=0,
        seq=number,
        start_offset=number,
        end_offset=number + 1,
        sample_rate=16_000,
        text=text,
        words=(),
        confidence=0.9,
        stt_model="test",
        spoken_at_ns=at_ns,
        speech_ended_ns=at_ns,
        published_ns=at_ns,
        latency=Latency(),
    )


def insight(
    intent: str, summary: str, *rooms: str, index: int = 0, urgency: Urgency = "normal", items: tuple[Item, ...] = ()
) -> Insight:
    return Insight(
        index=index,
        intent=intent,
        department="housekeeping",
        urgency=urgency,
        rooms=rooms,
        items=items,
        summary=summary,
        confidence=0.9,
        model="test",
    )


def understood(message: UtteranceTranscribed, *insights: Insight, revision: int = 1) -> InsightsFound:
    opening = tuple(item.index for item in insights if item.intent not in ("task_done", "chatter"))
    return InsightsFound(
        site=message.site,
        conversation_id=message.conversation_id,
        utterance_id=message.utterance_id,
        revision=revision,
        insights=insights,
        opens_tasks=opening,
        speech_ended_ns=message.speech_ended_ns,
        published_ns=message.published_ns,
        latency=Latency(),
    )


def changed(conversation: str, state: ConversationState) -> ConversationChanged:
    return ConversationChanged(
        site="main",
        conversation_id=conversation,
        channel="housekeeping",
        state=state,
        sample_rate=16_000,
        speakers=1,
        ledgers=(),
        at_ns=START_NS,
    )


def delivery(message: msgspec.Struct, number: int = 1) -> Delivery:
    return Delivery(message_id=number, stream="test", key="c", payload=msgspec.json.encode(message))


class ScriptedModel:
    """Answers with what it is given, in turn; the last one again and again. Implements `LanguageModel`."""

    model = "scripted"

    def __init__(self, *answers: str | ModelError) -> None:
        self.answers = list(answers)
        self.requests: list[ModelRequest] = []
        self.in_hand = 0
        self.most = 0

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> ModelAnswer:
        assert timeout_s > 0
        self.requests.append(request)
        self.in_hand += 1
        self.most = max(self.most, self.in_hand)
        await asyncio.sleep(0)
        self.in_hand -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ModelError):
            raise answer
        return ModelAnswer(text=answer, prompt_tokens=100, completion_tokens=20)

    async def aclose(self) -> None:
        pass


class CountedUsage:
    """Implements `Usage` in memory."""

    def __init__(self) -> None:
        self.exhausted = False
        self.calls: list[tuple[str, str, int]] = []

    def record(self, site: str, conversation_id: str, answer: ModelAnswer) -> None:
        self.calls.append((site, conversation_id, answer.prompt_tokens + answer.completion_tokens))
