"""Which differences between two sides' answers count."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quickcomm.dashboard.model.comparison import differences, lasting, where

NOTHING = frozenset[str]()


def tasks(*items: tuple[str, str]) -> dict[str, Any]:
    return {"items": [{"task_id": task_id, "status": status} for task_id, status in items]}


def test_items_are_matched_by_their_ids_not_by_their_position() -> None:
    found = differences(tasks(("a", "open"), ("b", "open")), tasks(("b", "done"), ("a", "open")), NOTHING)
    assert list(found.values()) == [("open", "done")]
    assert where(found) == "items.status"


def test_two_items_of_one_name_are_two() -> None:
    towels = {"name": "towel", "quantity": 2}
    found = differences({"items": [towels, towels]}, {"items": [towels]}, NOTHING)
    assert where(found) == "items"


def test_fields_that_each_side_counts_by_itself_are_left_out() -> None:
    assert differences({"change": 1, "items": []}, {"change": 2, "items": []}, frozenset({"change"})) == {}


def test_a_side_that_is_wrong_stays_wrong() -> None:
    first = differences(tasks(("a", "open")), tasks(("a", "done")), NOTHING)
    then = differences(tasks(("a", "acknowledged")), tasks(("a", "done")), NOTHING)
    assert where(lasting(first, then)) == "items.status"


def test_a_side_that_is_late_is_not_wrong() -> None:
    first = differences(tasks(("a", "acknowledged")), tasks(("a", "open")), NOTHING)
    then = differences(tasks(("a", "done")), tasks(("a", "acknowledged")), NOTHING)
    assert lasting(first, then) == {}


def test_an_item_that_one_side_lacks_for_good_is_a_difference() -> None:
    first = differences(tasks(("a", "open"), ("b", "open")), tasks(("b", "open")), NOTHING)
    then = differences(tasks(("a", "done"), ("c", "open")), tasks(("c", "open")), NOTHING)
    assert where(lasting(first, then)) == "items"


def test_what_was_missing_for_a_moment_is_no_difference() -> None:
    first = differences(tasks(("a", "open")), tasks(), NOTHING)
    assert lasting(first, differences(tasks(("a", "open"), ("b", "open")), tasks(("a", "open")), NOTHING)) == {}


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(json)
def test_an_answer_does_not_differ_from_itself(answer: Any) -> None:
    assert differences(answer, answer, NOTHING) == {}


@given(json, json)
def test_answers_that_differ_have_a_difference_that_lasts_while_they_stay(one: Any, other: Any) -> None:
    found = differences(one, other, NOTHING)
    assert lasting(found, found) == found
    if type(one) is type(other) and not isinstance(one, dict | list) and one != other:
        assert found
