"""A prompt version in use: writes the request for an utterance, reads the answer."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from quickcomm.intelligence.model.prompt_file import PromptFile, content_id, parse_prompt, render
from quickcomm.intelligence.model.prompt_schema import answer_schema
from quickcomm.intelligence.ports import ChatMessage, Draft, Heard, ModelRequest
from quickcomm.intelligence.service.prompt_answers import parse_answer
from quickcomm.kernel.site_pack import SitePack

SCHEMA_NAME: Final = "insights"
MAX_UTTERANCE: Final = 2_000
MAX_CONTEXT: Final = 300
"""Characters of an earlier utterance that are shown."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled phrase, and the answer that would be right for it."""

    text: str
    drafts: tuple[Draft, ...]


class Examples(Protocol):
    """Labelled phrases by likeness."""

    def pick(self, text: str, count: int, per_intent: int) -> Sequence[Example]:
        """At most `count`, the most like `text` last; the same for the same text, always."""
        ...

    def without(self, texts: Iterable[str]) -> "Examples":
        """The same without these phrases, and without those that differ from them in numbers only."""
        ...


class PromptVersion:
    """Implements `ports.Prompt`. Cheap to make; safe to share between threads."""

    def __init__(self, file: PromptFile, pack: SitePack, examples: Examples) -> None:
        self.file = file
        self.id = content_id(file)
        self.system = render(file, pack)
        self.schema: dict[str, Any] = answer_schema(pack, file.answer)
        self._pack = pack
        self._examples = examples
        self._shown: dict[int, tuple[Example, tuple[ChatMessage, ChatMessage]]] = {}

    def request(self, heard: Heard) -> ModelRequest:
        file = self.file
        messages = [ChatMessage(role="system", content=self.system)]
        for example in self._examples.pick(heard.text, file.examples.count, file.examples.per_intent):
            messages.extend(self._shown_as(example))
        context = heard.context[-file.context :] if file.context else ()
        messages.append(ChatMessage(role="user", content=_said(heard.text, context)))
        return ModelRequest(
            messages=tuple(messages),
            schema=self.schema,
            schema_name=SCHEMA_NAME,
            max_tokens=file.model.max_tokens,
            temperature=file.model.temperature,
        )

    def parse(self, text: str) -> tuple[Draft, ...]:
        return parse_answer(text, self._pack, self.file.answer)

    def without(self, texts: Iterable[str]) -> "PromptVersion":
        """The same version with other examples than these: for phrases that are to be judged by it."""
        return PromptVersion(self.file, self._pack, self._examples.without(texts))

    def _shown_as(self, example: Example) -> tuple[ChatMessage, ChatMessage]:
        """Written once: the same examples are shown again and again."""
        known = self._shown.get(id(example))
        if known is None or known[0] is not example:
            said = ChatMessage(role="user", content=_said(example.text, ()))
            known = example, (said, ChatMessage(role="assistant", content=self.answer(example.drafts)))
            self._shown[id(example)] = known
        return known[1]

    def answer(self, drafts: Sequence[Draft]) -> str:
        """The answer as this version's schema wants it."""
        asked = self.file.answer
        left_out = [name for name in ("summary", "confidence", "evidence") if not getattr(asked, name)]
        rows = [msgspec.to_builtins(draft) for draft in drafts]
        for row in rows:
            for name in left_out:
                del row[name]
        return msgspec.json.encode({"insights": rows}).decode()


def make_version(source: str, pack: SitePack, examples: Examples, origin: str = "prompt") -> PromptVersion:
    """Raises `ConfigurationError`."""
    return PromptVersion(parse_prompt(source, pack, origin), pack, examples)


def _said(text: str, context: Sequence[str]) -> str:
    """As JSON: quotes, brackets and line ends in what was said cannot end the utterance."""
    said = {"context": [line[:MAX_CONTEXT] for line in context], "utterance": text[:MAX_UTTERANCE]}
    return msgspec.json.encode(said).decode()
