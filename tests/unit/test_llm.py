"""Asking the model about an utterance: cache, shared calls, deadlines, one retry, hedging, masks, and the bill."""

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY
from tests.support.intelligence import Desk, heard, insight

from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.ports import (
    ModelAnswerError,
    ModelBusyError,
    ModelError,
    ModelNotAllowedError,
    ModelTimeoutError,
)
from quickcomm.intelligence.service.limiter import NoPlaceError
from quickcomm.intelligence.service.llm import normalised


async def test_an_answer_says_where_it_is_from_and_is_paid_for() -> None:
    desk = Desk()
    [found] = await desk.answer(heard("fix the lamp", site="grand"))
    assert (found.source, found.model, found.prompt_version, found.degraded) == ("llm", "scripted", "echo-1", False)
    assert desk.bill.paid == [("grand", "c", 15)]


async def test_what_the_local_classifier_says_is_there_for_grounding() -> None:
    desk = Desk()
    local = (insight("local"),)
    one = heard("fix the lamp")

    async def opinion() -> Sequence[Insight]:
        return local

    await desk.llm.answer(one, opinion, deadline=desk.clock.monotonic() + 20)
    assert desk.grounding.seen == [(one, local)]


async def test_the_same_again_is_in_the_cache_whatever_its_case_and_space() -> None:
    desk = Desk()
    await desk.answer(heard("Fix  the lamp"))
    [found] = await desk.answer(heard("fix the LAMP ", 2))
    assert len(desk.model.requests) == 1
    assert found.source == "llm"
    assert len(desk.bill.paid) == 1


async def test_another_channel_is_not_another_question() -> None:
    desk = Desk()
    await desk.answer(heard("fix it"))
    await desk.answer(heard("fix it", 2, channel="roof"))
    assert len(desk.model.requests) == 1


@pytest.mark.parametrize("other", [heard("fix the door"), heard("fix it", context=("the lamp",))])
async def test_what_matters_is_part_of_the_key(other: object) -> None:
    desk = Desk()
    await desk.answer(heard("fix it"))
    await desk.answer(other)  # type: ignore[arg-type]
    assert len(desk.model.requests) == 2


async def test_another_prompt_or_model_is_another_question() -> None:
    desk = Desk()
    await desk.answer(heard("fix it"))
    desk.model.model = "other"
    await desk.answer(heard("fix it"))
    desk.llm._parts.prompts.of("c").id = "echo-2"  # type: ignore[misc]
    await desk.answer(heard("fix it"))
    assert len(desk.model.requests) == 3


async def test_a_broken_cache_is_no_reason_not_to_answer() -> None:
    desk = Desk()
    desk.cache.broken = True
    assert (await desk.answer(heard("fix it")))[0].source == "llm"


async def test_personal_data_stays_in_the_house() -> None:
    desk = Desk()
    [found] = await desk.answer(heard("call 5551234", context=("he said 5551234",)))
    assert desk.model.requests == ["he said 5551234 | call *"], "as far as the mask goes"
    assert found.summary == "he said 5551234 | call 5551234"
    assert found.evidence.items == ("he said 5551234 | call 5551234",)
    [kept] = desk.cache.kept.values()
    assert "*" in kept.drafts[0].summary, "nor is it in the cache"
    desk.model.requests.clear()
    [other] = await desk.answer(heard("call 777", context=("he said 5551234",)))
    assert (desk.model.requests, other.summary) == ([], "he said 5551234 | call 777")


async def test_identical_utterances_in_flight_share_a_call() -> None:
    desk = Desk()
    desk.model.gate.clear()
    calls = [asyncio.ensure_future(desk.answer(heard("fix it", number))) for number in range(5)]
    await desk.model.asked(1)
    desk.model.gate.set()
    found = await asyncio.gather(*calls)
    assert len(desk.model.requests) == 1
    assert {insights[0].summary for insights in found} == {"fix it"}
    assert desk.llm._flights == {}


async def test_a_leader_that_gives_up_leaves_the_others_their_time() -> None:
    desk = Desk()
    desk.model.gate.clear()
    leader = asyncio.ensure_future(desk.answer(heard("fix it", 1)))
    await desk.model.asked(1)
    followers = [asyncio.ensure_future(desk.answer(heard("fix it", number))) for number in (2, 3)]
    await asyncio.sleep(0)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    await desk.model.asked(2)
    desk.model.gate.set()
    assert [insights[0].summary for insights in await asyncio.gather(*followers)] == ["fix it"] * 2
    assert len(desk.model.requests) == 2, "one of them leads the other"


async def test_a_follower_waits_no_longer_than_its_own_deadline() -> None:
    desk = Desk()
    desk.model.gate.clear()
    leader = asyncio.ensure_future(desk.answer(heard("fix it", 1)))
    await desk.model.asked(1)
    with pytest.raises(ModelTimeoutError):
        await desk.answer(heard("fix it", 2), within_s=0.01)
    desk.model.gate.set()
    assert await leader


@pytest.mark.parametrize("error", [ModelError("500"), ModelAnswerError("cut off"), ModelBusyError("429", 0.01)])
async def test_one_retry_where_there_is_time(error: ModelError) -> None:
    desk = Desk()
    desk.model.failures = [error]
    assert (await desk.answer(heard("fix it")))[0].summary == "fix it"
    desk.model.failures = [error, error]
    with pytest.raises(type(error)):
        await desk.answer(heard("fix the lamp"))
    assert len(desk.model.requests) == 4


@pytest.mark.parametrize(
    ("error", "within_s"),
    [(ModelError("500"), 0.25), (ModelNotAllowedError("401"), 20.0), (ModelBusyError("429", 30.0), 20.0)],
)
async def test_no_retry_without_time_or_hope(error: ModelError, within_s: float) -> None:
    desk = Desk()
    desk.model.failures = [error]
    with pytest.raises(type(error)):
        await desk.answer(heard("fix it"), within_s=within_s)
    assert len(desk.model.requests) == 1


async def test_an_answer_that_cannot_be_used_is_paid_for_and_not_kept() -> None:
    desk = Desk()
    desk.model.text = "no json"
    with pytest.raises(ModelAnswerError):
        await desk.answer(heard("fix it"))
    assert len(desk.bill.paid) == 2
    assert desk.cache.kept == {}


async def test_nothing_supported_is_no_answer_and_no_fault_of_the_endpoint() -> None:
    desk = Desk()
    for number in range(10):
        with pytest.raises(ModelAnswerError):
            await desk.answer(heard("nonsense", number))
    assert desk.guard.available


async def test_a_call_has_the_time_that_is_left_and_never_more_than_the_budget() -> None:
    desk = Desk(budget_s=2.0)
    await desk.answer(heard("one"), within_s=1.0)
    await desk.answer(heard("two"), within_s=60.0)
    await desk.answer(heard("three"), within_s=60.0, spare=True)
    first, second, third = desk.model.timeouts
    assert 0.5 < first <= 1.0
    assert (second, third) == (2.0, 4.0)


async def test_without_a_place_there_is_no_call() -> None:
    desk = Desk(limit=1)
    desk.model.gate.clear()
    first = asyncio.ensure_future(desk.answer(heard("one")))
    await desk.model.asked(1)
    with pytest.raises(NoPlaceError):
        await desk.answer(heard("two"), within_s=0.01)
    desk.model.gate.set()
    await first
    assert desk.guard.available
    assert desk.guard.state.state == "up"


async def test_hedging_is_off_unless_asked_for_and_then_the_first_answer_counts() -> None:
    desk = Desk(hedge_after_s=0.01)
    desk.model.gate.clear()
    call = asyncio.ensure_future(desk.answer(heard("fix it")))
    await desk.model.asked(2)
    desk.model.failures = [ModelError("the first of them fails")]
    desk.model.gate.set()
    assert (await call)[0].summary == "fix it"
    assert len(desk.model.requests) == 2

    plain = Desk()
    plain.model.gate.clear()
    call = asyncio.ensure_future(plain.answer(heard("fix it")))
    await plain.model.asked(1)
    for _ in range(50):
        await asyncio.sleep(0)
    plain.model.gate.set()
    await call
    assert len(plain.model.requests) == 1


async def test_a_hedge_is_not_sent_after_a_quick_failure() -> None:
    desk = Desk(hedge_after_s=20.0)
    desk.model.failures = [ModelError("500")]
    assert (await desk.answer(heard("fix it")))[0].summary == "fix it"
    assert len(desk.model.requests) == 2, "that is the retry"


async def test_a_probe_is_a_whole_call() -> None:
    desk = Desk()
    await desk.llm.probe()
    assert len(desk.bill.paid) == 1
    desk.model.text = "no json"
    with pytest.raises(ModelAnswerError):
        await desk.llm.probe()


def test_normalising() -> None:
    assert normalised("  Fix\tTHE lamp\n") == "fix the lamp"


async def test_what_is_dropped_is_counted() -> None:
    desk = Desk()
    before = REGISTRY.get_sample_value("quickcomm_llm_dropped_total", {"kind": "nonsense"}) or 0
    with pytest.raises(ModelAnswerError):
        await desk.answer(heard("nonsense"))
    assert REGISTRY.get_sample_value("quickcomm_llm_dropped_total", {"kind": "nonsense"}) == before + 1
