"""How versions are scored: by hand-made answers whose numbers can be worked out on paper."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.prompting import PACK, PHRASES, phrase

from quickcomm.contracts.insight import Item
from quickcomm.intelligence.ports import Draft, DraftItem
from quickcomm.intelligence.service.prompt_scoring import (
    NOTHING,
    Confusion,
    Outcome,
    aligned,
    calibration_error,
    confusion,
    falls_below,
    numbers,
    wrong_fields,
)
from quickcomm.kernel.site_pack import Phrase, PhraseInsight


def draft(one: PhraseInsight, **changes: object) -> Draft:
    right = Draft(
        intent=one.intent,
        department=one.department,
        urgency=one.urgency,
        rooms=one.rooms,
        items=tuple(DraftItem(name=item.name, quantity=item.quantity) for item in one.items),
        confidence=1.0,
    )
    return msgspec.structs.replace(right, **changes)


def right(case: Phrase) -> Outcome:
    return Outcome(found=tuple(draft(one) for one in case.insights), seconds=0.1, prompt_tokens=10, cost=0.5)


def test_all_right_is_full_marks() -> None:
    found = numbers(PHRASES, [right(case) for case in PHRASES], PACK)
    assert (found.score, found.intent, found.items, found.failed, found.calibration_error) == (1.0, 1.0, 1.0, 0, 0.0)
    assert (found.dangers, found.dangers_missed) == (1, 0)
    assert (found.prompt_tokens, found.cost, found.latency_p50_ms) == (80, 4.0, 100.0)


def test_each_field_counts_for_itself() -> None:
    [towels, pillow, *_] = PHRASES
    cases = [towels, pillow]
    wrong = draft(towels.insights[0], department="security", rooms=("412", "413"), items=(DraftItem(name="Towel"),))
    other = draft(pillow.insights[0], urgency="high", items=(DraftItem(name="pillow", quantity=2),), confidence=0.5)
    found = numbers(cases, [Outcome(found=(wrong,)), Outcome(found=(other,))], PACK)
    assert (found.intent, found.department, found.urgency, found.rooms) == (1.0, 0.5, 0.5, 0.5)
    assert found.items == 0.5  # "Towel" is "towels"; two pillows are not one
    assert found.score == pytest.approx((1 + 0.5 * 4) / 5)
    assert found.calibration_error == pytest.approx(0.25)  # 1.0 and right, 0.5 and right
    assert wrong_fields(towels, Outcome(found=(wrong,))) == ("department", "rooms")
    assert wrong_fields(pillow, Outcome(found=(other,))) == ("urgency", "items")


def test_no_answer_is_wrong_in_every_field_and_misses_the_danger() -> None:
    found = numbers(PHRASES, [Outcome() for _ in PHRASES], PACK)
    assert (found.score, found.failed, found.dangers_missed) == (0.0, len(PHRASES), 1)
    assert (found.latency_p50_ms, found.calibration_error) == (0.0, 0.0)


def test_several_insights_are_paired_by_what_they_say() -> None:
    towels, sink = PHRASES[0].insights[0], PHRASES[2].insights[0]
    both = Phrase(text="towels to 412, sink in 220 leaks", insights=(towels, sink))
    outcome = Outcome(found=(draft(sink), draft(towels)))
    assert [(want.intent, got.intent) for want, got in aligned(both, outcome) if want and got] == [
        ("request_item", "request_item"),
        ("repair", "repair"),
    ]
    assert wrong_fields(both, outcome) == ()
    one_missing = numbers([both], [Outcome(found=(draft(sink),))], PACK)
    assert one_missing.intent == 0.5
    one_too_many = numbers([PHRASES[2]], [Outcome(found=(draft(sink), draft(towels)))], PACK)
    assert one_too_many.intent == 0.5
    assert confusion([both, PHRASES[2]], [Outcome(found=(draft(sink),)), outcome]) == (
        Confusion(expected=NOTHING, found="request_item", count=1),
        Confusion(expected="request_item", found=NOTHING, count=1),
    )


def test_a_version_falls_below_by_score_or_by_a_missed_danger() -> None:
    smoke = phrase("smoke", "emergency", "security", urgency="critical")
    chat = phrase("hello there", "chatter", "none", urgency="low")
    cases = [smoke, chat]
    good = numbers(cases, [right(case) for case in cases], PACK)
    late = numbers(cases, [right(smoke), Outcome(found=(draft(chat.insights[0], urgency="high"),))], PACK)
    blind = numbers(cases, [Outcome(found=(draft(smoke.insights[0], intent="repair"),)), right(chat)], PACK)
    assert falls_below(good, good) == ()
    assert falls_below(good, late) == ()
    assert falls_below(late, good) == ("its score is 90.0%, the live version's 100.0%",)
    [reason] = falls_below(blind, late)
    assert reason == "it misses 1 of 1 dangers, the live version 0"


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans())))
def test_the_calibration_error_is_a_share(said: list[tuple[float, bool]]) -> None:
    assert 0.0 <= calibration_error(said) <= 1.0


def test_honest_confidence_has_no_calibration_error() -> None:
    said = [(0.75, True)] * 3 + [(0.75, False)] + [(1.0, True)] * 5
    assert calibration_error(said) == 0.0
    assert calibration_error([(0.9, False)] * 10) == pytest.approx(0.9)


@given(st.permutations(range(3)))
def test_the_order_of_answers_makes_no_difference(order: list[int]) -> None:
    insights = tuple(PHRASES[place].insights[0] for place in (0, 2, 6))
    case = Phrase(text="three things", insights=insights)
    outcome = Outcome(found=tuple(draft(insights[place]) for place in order))
    assert wrong_fields(case, outcome) == ()
    assert len(aligned(case, outcome)) == 3


def test_items_are_compared_without_regard_to_case_and_plural() -> None:
    case = Phrase(
        text="x",
        insights=(msgspec.structs.replace(PHRASES[0].insights[0], items=(Item(name="Bath Towels", quantity=2),)),),
    )
    got = draft(case.insights[0], items=(DraftItem(name="bath towel", quantity=2),))
    assert wrong_fields(case, Outcome(found=(got,))) == ()
