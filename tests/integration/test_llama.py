"""A real model server through the real client: JSON by a schema, tokens counted, a prompt of our size fits."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError
from tests.support.llama import CONTEXT, Llama, llama, missing

from quickcomm.kernel.site_pack import load_pack, load_phrases

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["insights"],
    "properties": {
        "insights": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["intent", "urgency", "rooms"],
                "properties": {
                    "intent": {"enum": ["request_item", "repair", "emergency", "chatter"]},
                    "urgency": {"enum": ["low", "normal", "high", "critical"]},
                    "rooms": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 5}},
                },
            },
        }
    },
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "insights", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def server() -> Iterator[Llama]:
    with llama() as running:
        yield running


@pytest.fixture
async def client(server: Llama) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=240.0) as opened:
        yield opened


def messages(utterance: str, examples: int = 1) -> list[Any]:
    """System message, examples, then the utterance as JSON, as a prompt of QuickComm has them."""
    system = "You read hotel radio. Answer with JSON only: what is asked, how urgent it is, and for which rooms."
    told: list[Any] = [{"role": "system", "content": system}]
    for phrase in load_phrases(load_pack())[:examples]:
        rows = [{"intent": i.intent, "urgency": i.urgency, "rooms": i.rooms} for i in phrase.insights]
        told.append({"role": "user", "content": json.dumps({"context": [], "utterance": phrase.text})})
        told.append({"role": "assistant", "content": json.dumps({"insights": rows})})
    return [*told, {"role": "user", "content": json.dumps({"context": [], "utterance": utterance})}]


async def test_an_answer_follows_the_schema(client: AsyncOpenAI, server: Llama) -> None:
    answer = await client.chat.completions.create(
        model=server.model,
        messages=messages("412 needs two towels"),
        response_format=FORMAT,
        max_tokens=200,
        temperature=0.0,
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert set(found) == {"insights"}
    assert 1 <= len(found["insights"]) <= 2
    for insight in found["insights"]:
        assert set(insight) == {"intent", "urgency", "rooms"}
        assert insight["urgency"] in {"low", "normal", "high", "critical"}
        assert all(isinstance(room, str) for room in insight["rooms"])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 50
    assert answer.usage.completion_tokens > 5


@pytest.mark.long  # a minute of prompt on two cores
async def test_a_prompt_of_our_size_fits(client: AsyncOpenAI, server: Llama) -> None:
    answer = await client.chat.completions.create(
        model=server.model,
        messages=messages("There is smoke in 305", examples=22),
        response_format=FORMAT,
        max_tokens=200,
        temperature=0.0,
    )
    assert answer.usage is not None
    assert 1_300 <= answer.usage.prompt_tokens <= CONTEXT - 200
    assert json.loads(answer.choices[0].message.content or "")["insights"]


async def test_an_answer_that_is_cut_off_says_so(client: AsyncOpenAI, server: Llama) -> None:
    answer = await client.chat.completions.create(
        model=server.model, messages=messages("412 needs towels"), response_format=FORMAT, max_tokens=4, temperature=0.0
    )
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.choices[0].message.content or "")


async def test_a_prompt_that_is_too_long_is_refused(client: AsyncOpenAI, server: Llama) -> None:
    with pytest.raises(BadRequestError):
        await client.chat.completions.create(
            model=server.model, messages=messages("towels " * CONTEXT), response_format=FORMAT, max_tokens=8
        )


async def test_the_server_names_its_model(client: AsyncOpenAI, server: Llama) -> None:
    assert [one.id async for one in client.models.list()] == [server.model]
