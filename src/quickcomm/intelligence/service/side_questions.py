"""Asks the model what no utterance waits for, summaries and reports: few at once, while there is time and money."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from quickcomm.intelligence.ports import LanguageModel, ModelError, ModelRequest, Usage
from quickcomm.intelligence.service.llm import Mask, Masked, Unmasked

log = structlog.get_logger(__name__)


def _always() -> bool:
    return True


class SideQuestions:
    """Without a model nothing is ever asked. `may_ask`: whether it answers at present."""

    def __init__(
        self,
        model: LanguageModel | None = None,
        usage: Usage | None = None,
        *,
        mask: Mask = Unmasked,
        concurrency: int = 2,
        timeout_s: float = 15.0,
    ) -> None:
        self._model = model
        self._usage = usage
        self._mask = mask
        self.may_ask: Callable[[], bool] = _always
        """Set by whoever watches over the model: False while it is down."""
        self._free = asyncio.Semaphore(max(1, concurrency))
        self._timeout_s = timeout_s

    @property
    def available(self) -> bool:
        """Whether to ask at all: there is a model, it answers, and today's cap is not reached."""
        return self._model is not None and self.may_ask() and not (self._usage and self._usage.exhausted)

    async def ask(self, request: ModelRequest, site: str, conversation_id: str) -> str | None:
        """The answer as it came, or None: then whoever asks does without."""
        async with self._free:
            if self._model is None or not self.available:
                return None
            told, masked = self._masked(request)
            try:
                answer = await self._model.complete(told, timeout_s=self._timeout_s)
            except ModelError as error:
                log.info("side_question.failed", what=request.schema_name, code=error.code)
                return None
        if self._usage is not None:
            self._usage.record(site, conversation_id, answer)
        return masked.restore(answer.text)

    def _masked(self, request: ModelRequest) -> tuple[ModelRequest, Masked]:
        """The last message is not ours: masked before it leaves."""
        *ours, theirs = request.messages
        masked = self._mask(theirs.content, ())
        told = msgspec.structs.replace(theirs, content=masked.text)
        return msgspec.structs.replace(request, messages=(*ours, told)), masked
