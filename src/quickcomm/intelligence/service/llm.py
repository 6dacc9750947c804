"""Asks the language model about one utterance: prompt → cache → shared call → limiter → call, one retry → grounding.

Feeds `Fallback`, which has an answer at hand for whenever this raises. The utterance's deadline bounds everything.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.ports import (
    AnswerCache,
    Cached,
    Draft,
    DraftEvidence,
    DraftItem,
    Grounding,
    Heard,
    LanguageModel,
    ModelAnswer,
    ModelAnswerError,
    ModelBusyError,
    ModelError,
    ModelTimeoutError,
    Prompt,
    Prompts,
    Usage,
)
from quickcomm.intelligence.service.guard import Guard
from quickcomm.intelligence.service.limiter import Limiter, NoPlaceError
from quickcomm.intelligence.service.metrics import SERVED, Metrics
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.telemetry import Detail, tracing

RETRY_PAUSE_S: Final = 0.1
MIN_RETRY_S: Final = 0.2
"""A retry that has less time than this is not worth its price."""
SPARE_PATIENCE: Final = 2.0
"""Calls that nobody waits for may take so many times the budget."""
PROBE: Final = Heard(text="Radio check, radio check.")
Drafts = tuple[Draft, ...]
Opinion = Callable[[], Awaitable[Sequence[Insight]]]
"""What the local classifier says of an utterance, when it is asked: it costs more than all the rest here."""

log = structlog.get_logger(__name__)


class Masked(Protocol):
    """Text without personal data, and the way back."""

    @property
    def text(self) -> str: ...

    @property
    def context(self) -> tuple[str, ...]: ...

    def restore(self, text: str) -> str: ...


Mask = Callable[[str, tuple[str, ...]], Masked]


class Unmasked(msgspec.Struct, frozen=True):
    """Text that leaves as it is."""

    text: str
    context: tuple[str, ...]

    def restore(self, text: str) -> str:
        return text


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked with."""

    model: LanguageModel
    prompts: Prompts
    grounding: Grounding
    cache: AnswerCache
    usage: Usage
    mask: Mask
    pack: str = ""
    """Digest of the site pack: answers to another one are of no use."""
    metrics: Metrics = SERVED
    traced: bool = True
    """Calls are part of the traces of their utterances."""


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance as it leaves the house."""

    heard: Heard
    masked: Masked
    prompt: Prompt
    key: bytes

    @property
    def sent(self) -> Heard:
        return msgspec.structs.replace(self.heard, text=self.masked.text, context=self.masked.context)


class LlmClassifier:
    def __init__(self, parts: Parts, limiter: Limiter, guard: Guard, clock: Clock, settings: LlmSettings) -> None:
        self._parts = parts
        self._limiter = limiter
        self._guard = guard
        self._clock = clock
        self._settings = settings
        self._flights: dict[bytes, asyncio.Future[Drafts | None]] = {}

    @property
    def model(self) -> str:
        return self._parts.model.model

    @property
    def exhausted(self) -> bool:
        return self._parts.usage.exhausted

    async def remembered(self, heard: Heard, local: Opinion) -> tuple[Insight, ...] | None:
        """The answer of the cache, if it has one: costs nothing, and needs no model that lives."""
        question = self._question(heard)
        drafts = await self._cached(question)
        return None if drafts is None else await self._grounded(question, drafts, local)

    async def answer(
        self, heard: Heard, local: Opinion, *, deadline: float, spare: bool = False
    ) -> tuple[Insight, ...]:
        """At least one insight, before `deadline` on the monotonic clock. Raises `ModelError`.

        `local`: the local classifier. `spare`: nobody waits for it, so it takes only what others leave.
        """
        question = self._question(heard)
        drafts = await self._cached(question)
        if drafts is None:
            async with self._guard.giving_up():
                ask = self._asked if spare else self._shared
                drafts = await ask(question, deadline, spare=spare)
        return await self._grounded(question, drafts, local)

    async def probe(self) -> None:
        """One small call like any other, past cache and limiter. Raises `ModelError`."""
        prompt = self._parts.prompts.of("")
        answer = await self._parts.model.complete(prompt.request(PROBE), timeout_s=self._settings.budget_s)
        self._paid(PROBE, answer)
        prompt.parse(answer.text)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _question(self, heard: Heard) -> _Question:
        prompt = self._parts.prompts.of(heard.conversation_id)
        masked = self._parts.mask(heard.text, heard.context)
        parts = (normalised(masked.text), *map(normalised, masked.context), prompt.id, self.model, self._parts.pack)
        digest = hashlib.blake2b(msgspec.msgpack.encode(parts), digest_size=20).digest()
        return _Question(heard=heard, masked=masked, prompt=prompt, key=digest)

    async def _cached(self, question: _Question) -> Drafts | None:
        try:
            found = await self._parts.cache.get(question.key)
        except QuickCommError as error:  # the store is in trouble: that is no reason not to answer
            log.warning("llm.cache_failed", error=str(error))
            found = None
        return found.drafts if found else None

    async def _shared(self, question: _Question, deadline: float, *, spare: bool) -> Drafts:
        """Identical utterances in flight share one call; if it fails, the next of them calls with its own deadline."""
        while (flight := self._flights.get(question.key)) is not None:
            self._parts.metrics.shared.inc()
            try:
                async with asyncio.timeout(deadline - self._clock.monotonic()):
                    drafts = await asyncio.shield(flight)
            except TimeoutError:
                raise ModelTimeoutError("The call of an identical utterance was not answered in time.") from None
            if drafts is not None:
                return drafts
        flight = asyncio.get_running_loop().create_future()
        self._flights[question.key] = flight
        drafts = None
        try:
            drafts = await self._asked(question, deadline, spare=spare)
        finally:
            del self._flights[question.key]
            flight.set_result(drafts)
        return drafts

    async def _asked(self, question: _Question, deadline: float, *, spare: bool) -> Drafts:
        """With one retry, if there is time for it."""
        try:
            drafts = await self._hedged(question, deadline, spare=spare)
        except ModelError as error:
            left = deadline - self._clock.monotonic() - _pause_after(error)
            again = error.retryable and not isinstance(error, NoPlaceError) and self._guard.available
            if spare or not again or left < max(MIN_RETRY_S, self._limiter.latency):
                raise
            await asyncio.sleep(_pause_after(error))
            drafts = await self._attempt(question, deadline, spare=spare)
        try:
            await self._parts.cache.put(question.key, Cached(drafts=drafts))
        except QuickCommError as error:
            log.warning("llm.cache_failed", error=str(error))
        return drafts

    async def _hedged(self, question: _Question, deadline: float, *, spare: bool) -> Drafts:
        """Where hedging is on: after a while without an answer a second call, and the first answer counts."""
        delay = self._settings.hedge_after_s
        if spare or not delay:
            return await self._attempt(question, deadline, spare=spare)
        answers: list[Drafts] = []
        errors: list[ModelError] = []
        second_sent = False

        async def call(*, spare: bool) -> None:
            try:
                answers.append(await self._attempt(question, deadline, spare=spare))
            except ModelError as error:
                errors.append(error)
            if answers or not second_sent:
                first.cancel()
                second.cancel()

        async def call_later() -> None:
            nonlocal second_sent
            await asyncio.sleep(delay)
            second_sent = True
            self._parts.metrics.hedged.inc()
            await call(spare=True)

        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(call(spare=False), name="llm:call")
            second = tasks.create_task(call_later(), name="llm:hedge")
        if answers:
            return answers[0]
        raise errors[-1]

    async def _attempt(self, question: _Question, deadline: float, *, spare: bool) -> Drafts:
        async with self._limiter.place(deadline, spare=spare):
            began, began_ns = self._clock.monotonic(), self._clock.now_ns()
            allowed = self._settings.budget_s * (SPARE_PATIENCE if spare else 1.0)
            timeout_s = min(deadline - began, allowed)
            try:
                drafts = await self._call(question, timeout_s)
            except ModelError as error:
                self._failed(error, began, timeout_s)
                self._trace(question, began_ns, error.code)
                raise
            self._trace(question, began_ns)
            seconds = self._clock.monotonic() - began
            self._limiter.answered(seconds)
            self._guard.succeeded()
            self._parts.metrics.calls.labels("ok").inc()
            self._parts.metrics.seconds.observe(seconds)
            return drafts

    async def _call(self, question: _Question, timeout_s: float) -> Drafts:
        if timeout_s <= 0:
            raise NoPlaceError("There is no time left for a call to the language model.")
        answer = await self._parts.model.complete(question.prompt.request(question.sent), timeout_s=timeout_s)
        self._paid(question.heard, answer)
        return question.prompt.parse(answer.text)

    def _trace(self, question: _Question, began_ns: int, error: str = "") -> None:
        if self._parts.traced and tracing().on:
            asked = Detail(
                name="llm.call",
                module="intelligence",
                stage="classify",
                start_ns=began_ns,
                end_ns=self._clock.now_ns(),
                attributes={"gen_ai.request.model": self.model, "quickcomm.prompt": question.prompt.id},
                error=error,
                kind="client",
            )
            tracing().detail(question.heard.site, question.heard.utterance_id, asked)

    def _failed(self, error: ModelError, began: float, timeout_s: float) -> None:
        self._parts.metrics.calls.labels(error.code.rpartition(".")[2].removeprefix("model_")).inc()
        if isinstance(error, NoPlaceError):
            return
        if isinstance(error, ModelBusyError):
            self._limiter.refused(error.retry_after_s)
        elif isinstance(error, ModelTimeoutError):
            self._limiter.refused()
            if timeout_s < self._settings.budget_s / 2:
                return  # it had no fair chance
        self._guard.failed(error, began)

    async def _grounded(self, question: _Question, drafts: Drafts, local: Opinion) -> tuple[Insight, ...]:
        grounding = self._parts.grounding
        restored = [_restored(draft, question.masked.restore) for draft in drafts]
        opinion = await local() if grounding.needs_local(restored, question.heard) else ()
        before = dict(grounding.dropped)
        insights = grounding.ground(restored, question.heard, opinion)
        for kind, count in grounding.dropped.items():
            self._parts.metrics.dropped.labels(kind).inc(count - before.get(kind, 0))
        if not insights:
            raise ModelAnswerError("Nothing that the language model says is supported by the text.")
        return tuple(
            msgspec.structs.replace(insight, model=self.model, prompt_version=question.prompt.id)
            for insight in insights
        )

    def _paid(self, heard: Heard, answer: ModelAnswer) -> None:
        """Whether it is of use or not."""
        self._parts.usage.record(heard.site, heard.conversation_id, answer)


def normalised(text: str) -> str:
    """What makes no difference to the meaning makes none to the cache: case, and how much space there is."""
    return " ".join(text.casefold().split())


def _pause_after(error: ModelError) -> float:
    """An overloaded endpoint's own wish is kept by the limiter, for all calls."""
    if isinstance(error, ModelBusyError):
        return error.retry_after_s or MIN_RETRY_S
    return RETRY_PAUSE_S


def _restored(draft: Draft, restore: Callable[[str], str]) -> Draft:
    def each(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(restore, texts))

    evidence = draft.evidence
    return msgspec.structs.replace(
        draft,
        rooms=each(draft.rooms),
        items=tuple(DraftItem(name=restore(item.name), quantity=item.quantity) for item in draft.items),
        summary=restore(draft.summary),
        evidence=DraftEvidence(rooms=each(evidence.rooms), items=each(evidence.items), urgency=each(evidence.urgency)),
    )
