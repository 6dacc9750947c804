"""The built-in prompt before a real model server: its schema constrains what is said, and the answer is taken."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.support.llama import Llama, llama, missing
from tests.support.prompting import PACK, built_in_source, version

from quickcomm.intelligence.adapters.openai_model import OpenAiModel
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.ports import Heard
from quickcomm.intelligence.service.prompt_evaluation import Evaluator, Examined, LabelledSet, held_out
from quickcomm.kernel.site_pack import load_phrases

# A short sample is in `test_llama.py`.
pytestmark = [pytest.mark.long, pytest.mark.skipif(missing() is not None, reason=str(missing()))]
TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def server() -> Iterator[Llama]:
    with llama() as running:
        yield running


@pytest_asyncio.fixture
async def model(server: Llama) -> AsyncIterator[OpenAiModel]:
    opened = OpenAiModel(LlmSettings(url=server.url, model=server.model))
    yield opened
    await opened.aclose()


async def test_an_answer_follows_the_schema_of_the_built_in_prompt(model: OpenAiModel) -> None:
    prompt = version(built_in_source(), load_phrases(PACK))
    answer = await model.complete(prompt.request(Heard(text="412 needs two towels")), timeout_s=TIMEOUT_S)
    drafts = prompt.parse(answer.text)
    assert drafts[0].intent in PACK.intents
    assert 1_000 < answer.prompt_tokens < 2_000
    assert answer.completion_tokens > 0


async def test_an_evaluation_on_a_real_model_counts_what_it_took(model: OpenAiModel) -> None:
    phrases = load_phrases(PACK)
    prompt = version(built_in_source(), phrases)
    # What so small a model gets right enough to be counted: nothing that it might take for danger.
    repairs = [phrase for phrase in phrases if phrase.insights[0].intent == "repair"]
    labelled = LabelledSet(name="two", cases=held_out(repairs, 2))
    done = await Evaluator(PACK, Examined(model=model, timeout_s=TIMEOUT_S)).compare(prompt, prompt, labelled)
    found = done.comparison.live
    assert (found.cases, found.failed) == (2, 0)
    assert found.prompt_tokens > 2_000
    assert found.latency_p95_ms >= found.latency_p50_ms > 0
