"""What intelligence needs from outside: something that classifies, a language model, and stores."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from quickcomm.contracts.insight import Insight, Source
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.prompts import PromptAction, PromptComparison
from quickcomm.intelligence.model.drafts import Draft, DraftEvidence, DraftItem, Heard
from quickcomm.intelligence.model.talk import Talk
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.redis_assignments import Assignment

__all__ = ["Draft", "DraftEvidence", "DraftItem", "Heard"]  # beside what is defined here


class Classifier(Protocol):
    """Never raises for what people say; never returns an empty tuple."""

    @property
    def model(self) -> str: ...

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        """At least one insight for each utterance, in the order spoken."""
        ...


# -- the language model ---------------------------------------------------------------------------------------------


class ModelError(QuickCommError):
    """The language model gave no usable answer: refused, 5xx, too late, garbage. Counts against the model."""

    code = "intelligence.model_failed"
    retryable = True


class ModelBusyError(ModelError):
    """The endpoint said 429 (or 503 with Retry-After): it lives, but wants less."""

    code = "intelligence.model_busy"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelTimeoutError(ModelError):
    code = "intelligence.model_timeout"


class ModelAnswerError(ModelError):
    """An answer came, but it is cut off, no JSON, or not what the schema asks for."""

    code = "intelligence.model_answer"


class ModelNotAllowedError(ModelError):
    """401, 403, 404: no retry helps; somebody has to mend the key, the model name or the URL."""

    code = "intelligence.model_not_allowed"
    retryable = False


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["system", "user", "assistant"]
    content: str


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `schema` is a JSON schema that the answer must follow (None: plain text)."""

    messages: tuple[ChatMessage, ...]
    schema: Mapping[str, Any] | None = None
    schema_name: str = "answer"
    max_tokens: int = 400
    temperature: float = 0.0


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, unchecked. Tokens as the endpoint counts them (0 where it does not say)."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class LanguageModel(Protocol):
    @property
    def model(self) -> str: ...

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> ModelAnswer:
        """One attempt, no retry. Raises `ModelError` and its kinds, nothing else."""
        ...

    async def aclose(self) -> None: ...


# -- what the model is asked, and what it answers -------------------------------------------------------------------


class Prompt(Protocol):
    """A prompt version, ready to be used: template, schema, examples and parameters under one id by content."""

    @property
    def id(self) -> str: ...

    def request(self, heard: Heard) -> ModelRequest:
        """What to send for an utterance (already masked)."""
        ...

    def parse(self, text: str) -> tuple[Draft, ...]:
        """The checked answer, at least one draft. Raises `ModelAnswerError`."""
        ...


class Prompts(Protocol):
    """Which prompt version a conversation has now: sticky by bucket, changed while running."""

    def of(self, conversation_id: str) -> Prompt: ...


class StoredPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt version as it was handed in: `source` is the text of its file."""

    id: str
    name: str
    note: str
    source: str
    added_ns: int
    added_by: str


class PromptDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions are in force from here on. `back_to`: the revision that a rollback returns to."""

    revision: int
    live_id: str
    canary_id: str | None = None
    weight: int = 0
    """Per cent of the conversations that have the canary."""
    back_to: int | None = None


class PromptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the audit trail: who did what, when, on what evidence."""

    at_ns: int
    by: str
    action: PromptAction
    prompt_id: str
    against_id: str | None = None
    weight: int = 0
    forced: bool = False
    note: str = ""
    evidence: PromptComparison | None = None


class PromptStore(Protocol):
    """Prompt versions, what is deployed, and the audit trail. What is recorded is recorded with what it is about."""

    async def deployment(self) -> PromptDeployment | None:
        """The present one; None as long as nothing was ever deployed."""
        ...

    async def deployment_at(self, revision: int) -> PromptDeployment | None: ...

    async def prompts(self) -> list[StoredPrompt]:
        """Newest first."""
        ...

    async def add(self, prompt: StoredPrompt, record: PromptRecord) -> bool:
        """Keep a version; False (and nothing recorded) where it is known."""
        ...

    async def deploy(self, deployment: PromptDeployment, record: PromptRecord) -> None:
        """Raises `ConflictError` where that revision is taken: somebody else was quicker."""
        ...

    async def record(self, record: PromptRecord) -> None: ...

    async def records(self, limit: int) -> list[PromptRecord]:
        """Newest first."""
        ...

    async def newest(self, prompt_id: str, actions: Collection[PromptAction]) -> PromptRecord | None:
        """The newest record of a version that is of these kinds."""
        ...


class Grounding(Protocol):
    """Holds drafts against the words of the text: what they do not support is dropped and counted."""

    @property
    def dropped(self) -> Mapping[Any, int]:
        """How much was dropped so far, by kind."""
        ...

    def needs_local(self, drafts: Sequence[Draft], heard: Heard) -> bool:
        """Whether the rules alone cannot judge these claims: then the local classifier is to be asked first."""
        ...

    def ground(self, drafts: Sequence[Draft], heard: Heard, local: Sequence[Insight]) -> tuple[Insight, ...] | None:
        """Insights with `source` "llm" (model and prompt version still empty); None if nothing usable is left.

        `local`: what the local classifier says of the same utterance (empty where it is not needed); urgency above
        what text and rules support is brought down to it.
        """
        ...


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the model as the cache keeps it: drafts before they are held against a text."""

    drafts: tuple[Draft, ...]


class AnswerCache(Protocol):
    """Bounded, with a time to live; warm across restarts."""

    async def get(self, key: bytes) -> Cached | None: ...

    async def put(self, key: bytes, answer: Cached) -> None: ...


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """How it is with the model, as one process or all of them have it. `number` counts the changes."""

    closed: bool = True
    """The circuit breaker: whether utterances go to the model."""
    why: str = ""
    since_ns: int = 0
    number: int = 0


class SharedStand(Protocol):
    """What the processes of intelligence agree on about the model."""

    async def exchange(self, mine: Stand, *, changed: bool) -> tuple[Stand, bool]:
        """Tell how it is here, hear how it is for all; and whether this process is the one that probes.

        What has `changed` here holds for all, unless another process was quicker. Raises `QuickCommError`.
        """
        ...

    async def aclose(self) -> None: ...


class Usage(Protocol):
    """Tokens and money, by conversation and day; and the cap."""

    @property
    def exhausted(self) -> bool:
        """Today's cap is reached: answer locally until it is raised or the day is over."""
        ...

    def record(self, site: str, conversation_id: str, answer: ModelAnswer) -> None:
        """Count a call that was paid for; written down within a second, off the caller's way."""
        ...


OpensTask = Callable[[str], bool]
"""Whether an intent calls for somebody to act, by the site pack."""


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """What the local classifier answered in the model's place, and what it takes to give the model's answer later."""

    found: InsightsFound
    """As it was published: a renewal keeps its times and its receipt."""
    heard: Heard


class ResultStore(Protocol):
    """What was published already, and publishing: one step."""

    async def known(self, utterances: Sequence[tuple[str, str]], epochs: Sequence[int] = ()) -> set[tuple[str, str]]:
        """Those of the (site, utterance id) pairs that have insights, of this epoch at least."""
        ...

    async def erased(self, utterances: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of the (site, utterance id) pairs that were erased: they are not to be understood."""
        ...

    async def publish(self, found: Sequence[InsightsFound], owed: Sequence[Owed] = ()) -> None:
        """Remember and publish together; what is known in this revision or a higher one by then is left out.

        A later epoch counts first: in it, whatever was answered before is published again. What was erased is left
        out, too.

        `owed`: those of `found` that are to be renewed. A renewal that is published is owed no more.
        """
        ...


class Debts(Protocol):
    """What is owed: degraded insights that are to be renewed. Survives a restart."""

    async def oldest(self, limit: int, since_ns: int) -> list[Owed]:
        """Those published since `since_ns`, the oldest first.

        Where several processes renew, they are this one's for a minute, unless it says that it has no use for them.
        """
        ...

    async def release(self, owed: Sequence[Owed]) -> None:
        """Leave them to whoever asks next."""
        ...

    async def forget(self, owed: Owed) -> None:
        """There will be no better answer."""
        ...

    async def forget_before(self, before_ns: int) -> int:
        """Give up what was published earlier; how many it was."""
        ...


class Assignments(Protocol):
    """Which side has each conversation, and since which epoch."""

    async def of(self, site: str, conversation_id: str) -> Assignment | None: ...

    async def aclose(self) -> None: ...


# -- summaries ------------------------------------------------------------------------------------------------------


TalkChange = Callable[[Talk | None], Talk | None]
"""From a conversation as it is remembered (None: not at all) to what it becomes."""


class TalkStore(Protocol):
    """What is remembered of conversations."""

    async def apply(
        self, changes: Sequence[tuple[tuple[str, str], TalkChange]], about: Sequence[tuple[str, int]] = ()
    ) -> None:
        """Change conversations, named by (site, conversation id), in one transaction.

        `about`: for each change the utterance that it is about, or "", and the time of a summary, or 0. What was
        erased changes nothing.
        """
        ...

    async def due(self, now_ns: int, limit: int) -> list[Talk]:
        """Those whose summary is to be renewed, the longest overdue first.

        Where several processes write, they are this one's for a minute, or until a summary is published.
        """
        ...

    async def find(self, site: str, conversation_id: str) -> Talk | None:
        """Return what is remembered of one."""
        ...

    async def release(self, talk: Talk) -> None:
        """Leave it to whoever asks next."""
        ...

    async def postpone(self, talks: Sequence[Talk], until_ns: int) -> None:
        """Have them due then, if nothing changes before."""
        ...

    async def publish(self, seen: Talk, text: str, source: Source, now_ns: int) -> bool:
        """Remember a summary made of `seen` and publish it, in one step.

        False, with nothing published, where it says nothing new or another one was published since.
        """
        ...

    async def forget(self, before_ns: int) -> None:
        """Forget conversations that have ended and were last changed before."""
        ...
