"""The language model behind an OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama, hosted): one attempt a call.

The official client speaks; retries, limits and breakers are the service's. What an endpoint does not know of the
protocol is found out from its first refusal, remembered, and done without.
"""

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
import structlog

from quickcomm.intelligence.model.settings import LlmSettings, check_url
from quickcomm.intelligence.ports import (
    ModelAnswer,
    ModelAnswerError,
    ModelBusyError,
    ModelError,
    ModelNotAllowedError,
    ModelRequest,
    ModelTimeoutError,
)
from quickcomm.kernel.errors import MALFORMED

if TYPE_CHECKING:
    import openai

PATH: Final = "/chat/completions"
NO_KEY: Final = "none"
"""The client wants a key even where the endpoint does not."""
FORMATS: Final = ("json_schema", "json_object", "text")
_OPTIONAL: Final = ("response_format", "max_tokens", "temperature")
_SECONDS: Final = re.compile(r"\d+(\.\d+)?")
_NAMES_TOLD: Final = 5

log = structlog.get_logger(__name__)


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Tokens | None = None


_decoder: Final = msgspec.json.Decoder(_Completion, strict=False)


class OpenAiModel:
    """A `LanguageModel`. Made in a thread: importing the client takes a second."""

    def __init__(self, settings: LlmSettings) -> None:
        import httpx2  # noqa: PLC0415 - heavy, and only with a language model
        import openai  # noqa: PLC0415

        self._openai = openai
        self._raw = httpx2.Response
        self._client = openai.AsyncOpenAI(
            base_url=check_url(settings.url),
            api_key=settings.key or NO_KEY,
            max_retries=0,
            timeout=openai.Timeout(None, connect=settings.connect_timeout_s),
            http_client=openai.DefaultAioHttpClient(),  # half the CPU of the other one
        )
        self._name = settings.model
        self._named = bool(settings.model)
        self._format = 0
        self._without: set[str] = set()
        self._closed = False

    @property
    def model(self) -> str:
        """Its name; empty until the endpoint has told it, if no name was set."""
        return self._name

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> ModelAnswer:
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                if not self._name:
                    self._name = await self._only_model()
                content = await self._create(request)
        except TimeoutError:
            raise ModelTimeoutError(f"The language model did not answer within {timeout_s:.1f} s.") from None
        except self._openai.OpenAIError as error:
            raise self._told(error) from error
        return _answer(content, time.monotonic() - began)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._client.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _create(self, request: ModelRequest) -> bytes:
        """One answer; tried again at once without what the endpoint says it does not know."""
        while True:
            try:
                # Not by `chat.completions.create`: it would walk through the schema at every call, and parse for us.
                raw = await self._client.post(PATH, cast_to=self._raw, body=self._arguments(request))
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
                if not self._give_way(error, request):
                    raise
            else:
                content: bytes = raw.content
                return content

    def _arguments(self, request: ModelRequest) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        arguments: dict[str, Any] = {"model": self._name, "messages": messages}
        if "temperature" not in self._without:
            arguments["temperature"] = request.temperature
        limit = "max_completion_tokens" if "max_tokens" in self._without else "max_tokens"
        arguments[limit] = request.max_tokens
        if request.schema is None:
            return arguments
        kind = FORMATS[self._format]
        if kind == "json_schema":
            schema = {"name": request.schema_name, "schema": request.schema, "strict": True}
            arguments["response_format"] = {"type": kind, "json_schema": schema}
            return arguments
        if kind == "json_object":
            arguments["response_format"] = {"type": kind}
        wanted = msgspec.json.encode(request.schema).decode()
        messages[0]["content"] += f"\n\nAnswer with one JSON object that follows this JSON schema: {wanted}"
        return arguments

    def _give_way(self, error: "openai.APIStatusError", request: ModelRequest) -> bool:
        """Whether the refusal names something that can be done without, and was not yet."""
        told = f"{error.param} {error.body}"
        for name in _OPTIONAL:
            if name not in told and not (name == "response_format" and "json_schema" in told):
                continue
            if name == "response_format":
                if request.schema is None or self._format == len(FORMATS) - 1:
                    continue
                self._format += 1
                log.warning("llm.format_unknown", instead=FORMATS[self._format])
                return True
            if name not in self._without:
                self._without.add(name)
                log.warning("llm.parameter_unknown", parameter=name)
                return True
        return False

    async def _only_model(self) -> str:
        """The one that the endpoint offers. Raises `ModelNotAllowedError` where there is a choice."""
        raw = await self._client.models.with_raw_response.list()
        try:
            listed = msgspec.json.decode(raw.content, type=_Models).data
        except MALFORMED as error:
            raise ModelAnswerError("The list of models that the endpoint gives cannot be read.") from error
        if len(listed) == 1:
            return listed[0].id
        names = ", ".join(sorted(model.id for model in listed)[:_NAMES_TOLD]) or "none"
        raise ModelNotAllowedError(f"The endpoint offers several models or none ({names}); name one with llm.model.")

    def _told(self, error: "openai.OpenAIError") -> ModelError:
        """In our words: an endpoint may quote what was said, or the key, in its own."""
        if isinstance(error, self._openai.APITimeoutError) and not _broke_off(error):
            return ModelTimeoutError("The language model's endpoint takes no connection in time.")
        if isinstance(error, self._openai.APIConnectionError):
            return ModelError("The language model's endpoint cannot be reached, or broke off.")
        if isinstance(error, self._openai.APIStatusError):
            if error.status_code == _NOT_FOUND and not self._named:
                self._name = ""  # the endpoint may have another model by now
            wait_s = _retry_after(error.response.headers.get("retry-after"))
            return _refused(error.status_code, error.code, wait_s)
        return ModelAnswerError(f"The client cannot use the answer ({type(error).__name__}).")


def _broke_off(error: BaseException) -> bool:
    """Whether a connection ended, which the client's transport takes for a timeout."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectionError):
            return not isinstance(cause, TimeoutError)
        cause = cause.__cause__
    return False


def _refused(status: int, code: str | None, wait_s: float | None) -> ModelError:
    if status == _TOO_MANY and code == "insufficient_quota":
        return ModelNotAllowedError("The account at the endpoint has no credit left.")
    if status == _TOO_MANY or (status == _UNAVAILABLE and wait_s is not None):
        return ModelBusyError(f"The endpoint has too much to do ({status}).", wait_s)
    if status in _NOT_ALLOWED:
        return ModelNotAllowedError(_NOT_ALLOWED[status])
    return ModelError(f"The endpoint answered {status}.")


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_NOT_FOUND, _TOO_MANY, _UNAVAILABLE = 404, 429, 503
_NOT_ALLOWED: Final = {
    401: "The endpoint refuses the key (401). Set QUICKCOMM_LLM_KEY to a valid one and restart.",
    403: "The endpoint does not allow this key to use the model (403). Check QUICKCOMM_LLM_KEY and llm.model.",
    404: "The endpoint does not know the model or the path (404). Check llm.model and llm.url.",
}


def _answer(content: bytes, seconds: float) -> ModelAnswer:
    try:
        completion = _decoder.decode(content)
    except MALFORMED as error:
        raise ModelAnswerError("The endpoint's answer is no chat completion.") from error
    if not completion.choices:
        raise ModelAnswerError("The endpoint's answer is empty.")
    choice = completion.choices[0]
    if choice.finish_reason == "length":
        raise ModelAnswerError("The language model's answer is cut off.")
    if not choice.message.content:
        raise ModelAnswerError("The language model refused to answer, or said nothing.")
    tokens = completion.usage or _Tokens()
    return ModelAnswer(
        text=choice.message.content,
        prompt_tokens=tokens.prompt_tokens or 0,
        completion_tokens=tokens.completion_tokens or 0,
        seconds=seconds,
    )


def _retry_after(header: str | None) -> float | None:
    """Seconds; a date, which is rare, counts as not given."""
    return float(header) if header is not None and _SECONDS.fullmatch(header) else None
