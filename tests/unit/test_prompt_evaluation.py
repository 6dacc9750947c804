"""Evaluating: both versions see the same cases, nothing leaks, and a model in trouble is no evidence."""

import asyncio

import pytest
from tests.support.prompting import (
    PACK,
    PHRASES,
    ScriptedModel,
    answer,
    failing,
    named,
    oracle,
    utterance_of,
    version,
)

from quickcomm.intelligence.ports import (
    Draft,
    Heard,
    ModelAnswerError,
    ModelBusyError,
    ModelError,
    ModelNotAllowedError,
    ModelRequest,
    ModelTimeoutError,
)
from quickcomm.intelligence.service.prompt_evaluation import Evaluator, Examined, LabelledSet, held_out
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.site_pack import load_phrases

SET = LabelledSet(name="eight", cases=PHRASES)
LIVE = version()
WORSE = version(named("worse", system="be brief"))
waits: list[float] = []


async def at_once(seconds: float) -> None:
    waits.append(seconds)
    await asyncio.sleep(0)


def evaluator(model: ScriptedModel, **more: object) -> Evaluator:
    return Evaluator(PACK, Examined(model=model, **more), sleep=at_once)  # type: ignore[arg-type]


async def test_the_worse_version_is_told_from_the_better_one() -> None:
    model = ScriptedModel(oracle(wrong_where="be brief"))
    seen: list[tuple[int, int]] = []
    done = await evaluator(model, spent=lambda answer: answer.prompt_tokens / 1_000).compare(
        WORSE, LIVE, SET, concurrency=3, progress=lambda count, total: seen.append((count, total))
    )
    comparison = done.comparison
    assert (done.prompt_id, comparison.against_id, comparison.model) == (WORSE.id, LIVE.id, "scripted")
    assert (comparison.live.score, comparison.live.dangers_missed) == (1.0, 0)
    assert comparison.candidate.score < 0.5
    assert comparison.candidate.dangers_missed == 1
    assert len(comparison.falls_below) == 2
    assert comparison.candidate.cost == pytest.approx(0.8)
    assert comparison.candidate.prompt_tokens == 800
    assert (comparison.live.latency_p95_ms, done.live_confusion) == (500.0, ())
    assert ("request_item", "chatter", 2) in [(c.expected, c.found, c.count) for c in done.candidate_confusion]
    assert {one.text for one in done.disagreements} == {case.text for case in PHRASES}
    assert "intent" in done.disagreements[0].candidate_wrong
    assert sorted(seen) == [(count, 16) for count in range(1, 17)]
    assert model.most_in_flight == 3


async def test_no_case_is_shown_as_an_example() -> None:
    cases = PHRASES[:4]
    model = ScriptedModel(oracle())
    await evaluator(model).compare(WORSE, LIVE, LabelledSet(name="four", cases=cases))
    judged = {case.text for case in cases}
    for request in model.requests:
        assert len(request.messages) > 2
        assert not [m for m in request.messages[1:-1] if any(text in m.content for text in judged)]


async def test_the_live_version_is_asked_once_when_it_is_judged_itself() -> None:
    model = ScriptedModel(oracle())
    done = await evaluator(model).compare(LIVE, LIVE, SET)
    assert len(model.requests) == len(PHRASES)
    assert done.comparison.candidate == done.comparison.live
    assert (done.comparison.falls_below, done.disagreements) == ((), ())


async def test_what_is_no_answer_counts_as_wrong() -> None:
    def script(request: ModelRequest) -> str:
        if utterance_of(request) == "copy that":
            return "Sure!"
        if utterance_of(request) == "412 needs towels":
            raise ModelAnswerError("cut off")
        return oracle()(request)

    done = await evaluator(ScriptedModel(script)).compare(LIVE, LIVE, SET)
    assert done.comparison.live.failed == 2
    assert done.comparison.live.intent == 0.75


async def test_a_busy_endpoint_is_given_time() -> None:
    tries: dict[str, int] = {}
    waits.clear()

    def script(request: ModelRequest) -> str:
        text = utterance_of(request)
        tries[text] = tries.get(text, 0) + 1
        if text == "copy that" and tries[text] < 3:
            raise ModelBusyError("slow down", retry_after_s=7.0 if tries[text] == 1 else 900.0)
        return oracle()(request)

    done = await evaluator(ScriptedModel(script)).compare(LIVE, LIVE, SET)
    assert (done.comparison.live.score, tries["copy that"], waits) == (1.0, 3, [7.0, 30.0])


@pytest.mark.parametrize("error", [ModelTimeoutError("too late"), ModelBusyError("no"), ModelError("refused")])
async def test_a_model_that_does_not_answer_is_no_evidence(error: ModelError) -> None:
    model = ScriptedModel(failing(error))
    with pytest.raises(ModelError, match="does not answer"):
        await evaluator(model).compare(WORSE, LIVE, SET)


async def test_a_key_that_is_refused_ends_it_at_once() -> None:
    model = ScriptedModel(failing(ModelNotAllowedError("401")))
    with pytest.raises(ModelNotAllowedError):
        await evaluator(model).compare(WORSE, LIVE, SET, concurrency=1)
    assert len(model.requests) == 1


async def test_an_empty_set_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        await evaluator(ScriptedModel(oracle())).compare(WORSE, LIVE, LabelledSet(name="none", cases=()))


async def test_what_is_judged_is_what_is_made_of_the_drafts_and_what_is_sent_is_prepared() -> None:
    async def finish(drafts: tuple[Draft, ...], heard: Heard) -> tuple[Draft, ...]:
        assert heard.text in {case.text for case in PHRASES}
        return () if heard.text == "copy that" else drafts

    texts: list[str] = []

    def script(request: ModelRequest) -> str:
        texts.append(utterance_of(request))
        [case] = [case for case in PHRASES if case.text.upper() == texts[-1]]
        return answer(*case.insights)

    model = ScriptedModel(script)
    done = await evaluator(model, finish=finish, prepare=lambda heard: Heard(text=heard.text.upper())).compare(
        LIVE, LIVE, SET
    )
    assert done.comparison.live.failed == 1
    assert sorted(texts) == sorted(case.text.upper() for case in PHRASES)


def test_the_held_out_part_is_always_the_same_and_has_every_intent() -> None:
    phrases = load_phrases(PACK)
    chosen = held_out(phrases, 140)
    assert chosen == held_out(list(reversed(phrases)), 140) or sorted(c.text for c in chosen) == sorted(
        c.text for c in held_out(list(reversed(phrases)), 140)
    )
    assert {one.insights[0].intent for one in chosen} == {one.insights[0].intent for one in phrases}
    assert len({one.text for one in chosen}) == 140
    assert LabelledSet(name="a", cases=chosen).id == LabelledSet(name="b", cases=chosen).id
    assert LabelledSet(name="a", cases=chosen).id != LabelledSet(name="a", cases=chosen[1:]).id
