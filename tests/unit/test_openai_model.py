"""The model behind an OpenAI-compatible endpoint: what is sent, and that every failure is one of ours."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.llm import TOKENS, FakeLlm, fake_llm

from quickcomm.intelligence.adapters.openai_model import OpenAiModel
from quickcomm.intelligence.model.settings import LlmSettings, check_url
from quickcomm.intelligence.ports import (
    ChatMessage,
    ModelAnswerError,
    ModelBusyError,
    ModelError,
    ModelNotAllowedError,
    ModelRequest,
    ModelTimeoutError,
)
from quickcomm.kernel.errors import ConfigurationError

LONG_S = 20.0
REQUEST = ModelRequest(
    messages=(ChatMessage(role="system", content="Sort."), ChatMessage(role="user", content="Utterance: towels")),
    schema={"type": "object"},
    schema_name="insights",
    max_tokens=77,
)


@asynccontextmanager
async def connected(**settings: str) -> AsyncIterator[tuple[OpenAiModel, FakeLlm]]:
    async with fake_llm() as fake:
        model = OpenAiModel(LlmSettings(url=fake.url, model=settings.get("model", "m"), key=settings.get("key", "")))
        try:
            yield model, fake
        finally:
            await model.aclose()
            await model.aclose()


async def test_what_is_sent_and_what_comes_back() -> None:
    async with connected(key="secret") as (model, fake):
        answer = await model.complete(REQUEST, timeout_s=LONG_S)
        assert "Model: towels" in answer.text
        assert (answer.prompt_tokens, answer.completion_tokens) == (
            TOKENS["prompt_tokens"],
            TOKENS["completion_tokens"],
        )
        assert answer.seconds > 0
        [sent] = fake.calls
        assert sent["model"] == "m"
        assert (sent["max_tokens"], sent["temperature"]) == (77, 0.0)
        assert sent["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "insights", "schema": {"type": "object"}, "strict": True},
        }
        assert [message["role"] for message in sent["messages"]] == ["system", "user"]
        assert fake.headers[0]["Authorization"] == "Bearer secret"


async def test_plain_text_asks_for_no_format() -> None:
    async with connected() as (model, fake):
        await model.complete(ModelRequest(messages=REQUEST.messages), timeout_s=LONG_S)
        assert "response_format" not in fake.calls[0]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("500", ModelError),
        ("502", ModelError),
        ("400", ModelError),
        ("401", ModelNotAllowedError),
        ("403", ModelNotAllowedError),
        ("404", ModelNotAllowedError),
        ("429", ModelBusyError),
        ("503", ModelError),
        ("no json", ModelAnswerError),
        ("empty", ModelAnswerError),
        ("cut", ModelAnswerError),
    ],
)
async def test_every_failure_is_one_of_ours(mode: str, kind: type[ModelError]) -> None:
    async with connected(key="secret-key") as (model, fake):
        fake.mode = mode
        with pytest.raises(ModelError) as caught:
            await model.complete(REQUEST, timeout_s=LONG_S)
        assert type(caught.value) is kind
        assert "towels" not in str(caught.value)
        assert "secret-key" not in str(caught.value)
        assert len(fake.calls) == 1, "one attempt, no retry"
        fake.mode = "answer"
        await model.complete(REQUEST, timeout_s=LONG_S)


@pytest.mark.parametrize(("mode", "header", "wait"), [("429", "2", 2.0), ("503", "0.5", 0.5), ("429", "Tue", None)])
async def test_an_endpoint_that_wants_less_says_for_how_long(mode: str, header: str, wait: float | None) -> None:
    async with connected() as (model, fake):
        fake.mode, fake.retry_after = mode, header
        with pytest.raises(ModelBusyError) as caught:
            await model.complete(REQUEST, timeout_s=LONG_S)
        assert caught.value.retry_after_s == wait


@pytest.mark.parametrize("mode", ["hang", "drip"])
async def test_the_deadline_ends_silence_and_slow_drip(mode: str) -> None:
    async with connected() as (model, fake):
        fake.mode = mode
        with pytest.raises(ModelTimeoutError):
            await model.complete(REQUEST, timeout_s=0.3)


async def test_a_refused_connection_and_one_that_breaks_off() -> None:
    async with connected() as (model, fake):
        fake.mode = "hang"
        call = asyncio.ensure_future(model.complete(REQUEST, timeout_s=LONG_S))
        while not fake.calls:  # noqa: ASYNC110 - the endpoint has no event for it
            await asyncio.sleep(0)
        await fake.stop()
        for attempt in (call, model.complete(REQUEST, timeout_s=LONG_S)):
            with pytest.raises(ModelError) as caught:
                await attempt
            assert type(caught.value) is ModelError
        fake.mode = "answer"
        await fake.start()
        await model.complete(REQUEST, timeout_s=LONG_S)


async def test_an_unknown_schema_format_is_done_without_and_remembered() -> None:
    async with connected() as (model, fake):
        fake.refuses = {"json_schema"}
        for _ in range(2):
            assert "Model: towels" in (await model.complete(REQUEST, timeout_s=LONG_S)).text
        formats = [call["response_format"]["type"] for call in fake.calls]
        assert formats == ["json_schema", "json_object", "json_object"]
        assert '{"type":"object"}' in fake.calls[-1]["messages"][0]["content"]
        fake.refuses = {"json_object"}
        await model.complete(REQUEST, timeout_s=LONG_S)
        assert "response_format" not in fake.calls[-1]


async def test_other_parameters_that_it_does_not_know_are_done_without() -> None:
    async with connected() as (model, fake):
        fake.refuses = {"max_tokens", "temperature"}
        await model.complete(REQUEST, timeout_s=LONG_S)
        assert fake.calls[-1]["max_completion_tokens"] == 77
        assert "temperature" not in fake.calls[-1]
        await model.complete(REQUEST, timeout_s=LONG_S)
        assert len(fake.calls) == 4, "it is asked the right way from then on"


async def test_the_only_model_needs_no_name() -> None:
    async with connected(model="") as (model, fake):
        assert model.model == ""
        await model.complete(REQUEST, timeout_s=LONG_S)
        assert model.model == fake.calls[0]["model"] == "fake-1"


async def test_where_there_is_a_choice_a_name_is_asked_for() -> None:
    async with connected(model="") as (model, fake):
        fake.models = ["a", "b"]
        with pytest.raises(ModelNotAllowedError, match=r"a, b.*llm\.model"):
            await model.complete(REQUEST, timeout_s=LONG_S)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("https://models.example/", "https://models.example/v1"),
        ("https://models.example/openai/v1", "https://models.example/openai/v1"),
    ],
)
def test_an_address_without_a_path_gets_the_usual_one(url: str, base: str) -> None:
    assert check_url(url) == base


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://x:port/v1", "/v1", "http://[/v1"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--llm-url"):
        check_url(url)


def test_the_key_is_in_no_message() -> None:
    assert "secret" not in repr(LlmSettings(url="http://x/v1", key="secret"))


def test_without_a_model_its_client_is_not_loaded() -> None:
    code = (
        "import sys, quickcomm.kernel.runtime.app, quickcomm.intelligence.assembly; sys.exit('openai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
