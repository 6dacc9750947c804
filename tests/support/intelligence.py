"""Small real parts of the intelligence pipeline: a model that a test answers for, and what it is asked with."""

import asyncio
import json
from collections.abc import Callable, Sequence

import msgspec

from quickcomm.contracts.insight import Evidence, Insight
from quickcomm.intelligence.adapters.breaker import CircuitBreaker
from quickcomm.intelligence.model.concurrency import Limit
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.ports import (
    Cached,
    ChatMessage,
    Draft,
    DraftEvidence,
    Heard,
    ModelAnswer,
    ModelAnswerError,
    ModelRequest,
)
from quickcomm.intelligence.service.fallback import Fallback
from quickcomm.intelligence.service.guard import Guard
from quickcomm.intelligence.service.limiter import Limiter
from quickcomm.intelligence.service.llm import LlmClassifier, Mask, Parts
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.errors import QuickCommError

Reply = Callable[[ModelRequest, float], ModelAnswer]


def heard(text: str, number: int = 1, **more: object) -> Heard:
    given = {"conversation_id": "c", "utterance_id": f"c:0:{number}", "channel": "desk", **more}
    return msgspec.convert({"text": text, **given}, Heard)


class Model:
    """A `LanguageModel`. Says `Model: TEXT` unless the next of `failures` is raised; may be held at the gate."""

    def __init__(self) -> None:
        self.model = "scripted"
        self.requests: list[str] = []
        self.timeouts: list[float] = []
        self.failures: list[Exception] = []
        self.down: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.text: str | None = None
        self.closed = False
        self._news = asyncio.Event()

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> ModelAnswer:
        text = request.messages[-1].content
        self.requests.append(text)
        self.timeouts.append(timeout_s)
        self._news.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.down is not None:
            raise self.down
        return ModelAnswer(text=self.text or json.dumps(text), prompt_tokens=10, completion_tokens=5)

    async def asked(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.requests) < times:
                self._news.clear()
                await self._news.wait()

    async def aclose(self) -> None:
        self.closed = True


class EchoPrompt:
    """Sends the text, and takes a JSON string as what was said."""

    id = "echo-1"

    def request(self, heard: Heard) -> ModelRequest:
        return ModelRequest(messages=(ChatMessage(role="user", content=" | ".join((*heard.context, heard.text))),))

    def parse(self, text: str) -> tuple[Draft, ...]:
        try:
            said = msgspec.json.decode(text, type=str)
        except msgspec.DecodeError as error:
            raise ModelAnswerError("No JSON string.") from error
        evidence = DraftEvidence(items=(said,))
        return (
            Draft(intent="repair", department="engineering", urgency="normal", summary=said[:80], evidence=evidence),
        )


class Prompts:
    def __init__(self) -> None:
        self.prompt = EchoPrompt()

    def of(self, conversation_id: str) -> EchoPrompt:
        assert isinstance(conversation_id, str)
        return self.prompt


class Believing:
    """A `Grounding` that believes everything but `nonsense`."""

    def __init__(self) -> None:
        self.seen: list[tuple[Heard, Sequence[Insight]]] = []
        self.dropped: dict[str, int] = {}

    def needs_local(self, drafts: Sequence[Draft], heard: Heard) -> bool:
        return len(drafts) > 0 and heard.text != "plain"

    def ground(self, drafts: Sequence[Draft], heard: Heard, local: Sequence[Insight]) -> tuple[Insight, ...] | None:
        self.seen.append((heard, local))
        if heard.text == "nonsense":
            self.dropped["nonsense"] = self.dropped.get("nonsense", 0) + 1
            return None
        return tuple(
            insight(draft.summary, index=i, source="llm", evidence=Evidence(items=draft.evidence.items))
            for i, draft in enumerate(drafts)
        )


class DictCache:
    def __init__(self) -> None:
        self.kept: dict[bytes, Cached] = {}
        self.broken = False

    async def get(self, key: bytes) -> Cached | None:
        if self.broken:
            raise QuickCommError("The disk is full.")
        return self.kept.get(key)

    async def put(self, key: bytes, answer: Cached) -> None:
        if self.broken:
            raise QuickCommError("The disk is full.")
        self.kept[key] = answer


class Bill:
    """A `Usage`."""

    def __init__(self) -> None:
        self.exhausted = False
        self.paid: list[tuple[str, str, int]] = []

    def record(self, site: str, conversation_id: str, answer: ModelAnswer) -> None:
        self.paid.append((site, conversation_id, answer.prompt_tokens + answer.completion_tokens))


class Starred(msgspec.Struct, frozen=True):
    """Digits become stars on the way out, and come back."""

    text: str
    context: tuple[str, ...]
    digits: str

    def restore(self, text: str) -> str:
        return text.replace("*", self.digits)


def star(text: str, context: tuple[str, ...]) -> Starred:
    digits = "".join(filter(str.isdigit, text))
    return Starred(text.replace(digits, "*") if digits else text, context, digits)


class Local:
    """A local classifier that repeats the text."""

    model = "local-1"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        self.calls.append([one.text for one in heard])
        return [(insight(f"Local: {one.text}", model=self.model),) for one in heard]


def insight(summary: str, **more: object) -> Insight:
    given = {"index": 0, "intent": "repair", "department": "engineering", "urgency": "normal", "confidence": 0.5}
    return msgspec.convert({**given, "summary": summary, "model": "", **more}, Insight)


class Desk:
    """All of it, put together as `module.py` does."""

    def __init__(self, *, clock: Clock | None = None, mask: Mask = star, limit: int = 8, **settings: float) -> None:
        self.clock = clock or SystemClock()
        self.settings = msgspec.convert({"url": "http://x/v1", **settings}, LlmSettings)
        self.model = Model()
        self.cache = DictCache()
        self.bill = Bill()
        self.grounding = Believing()
        self.local = Local()
        parts = Parts(
            model=self.model,
            prompts=Prompts(),
            grounding=self.grounding,
            cache=self.cache,
            usage=self.bill,
            mask=mask,
        )
        self.limiter = Limiter(Limit(1, limit, limit), self.clock)
        self.guard = Guard(CircuitBreaker(), self.clock, self.settings.budget_s)
        self.llm = LlmClassifier(parts, self.limiter, self.guard, self.clock, self.settings)
        self.fallback = Fallback(self.llm, self.local, self.guard, self.clock, self.settings.budget_s)

    async def answer(self, one: Heard, *, within_s: float = 20.0, spare: bool = False) -> tuple[Insight, ...]:
        deadline = self.clock.monotonic() + within_s
        return await self.llm.answer(one, self.no_opinion, deadline=deadline, spare=spare)

    async def no_opinion(self) -> tuple[Insight, ...]:
        return ()
