"""What two sides heard of the same sound: aligned in time, compared by words."""

from typing import Final

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.model.comparing import Compared, Uttered, compare, groups, words_of, wrong_words

RATE: Final = 16_000
said = st.lists(st.sampled_from(["room", "four", "towels", "please", "no"]), max_size=12)


def heard(start_s: float, end_s: float, text: str | None = "towels please") -> Uttered:
    return Uttered(start=round(start_s * RATE), end=round(end_s * RATE), text=text)


def found(served: list[Uttered], own: list[Uttered]) -> list[Compared | None]:
    return [compare(group, RATE) for group in groups(served, own, RATE)]


@given(said, said)
def test_wrong_words_are_those_of_the_word_error_rate(served: list[str], own: list[str]) -> None:
    if not served:
        assert wrong_words(served, own) == len(own)
        return
    aligned = jiwer.process_words(" ".join(served), " ".join(own) or " ")
    assert wrong_words(served, own) == aligned.substitutions + aligned.deletions + aligned.insertions


def test_case_and_punctuation_are_no_words() -> None:
    assert words_of("Room 412, please: don't wait!") == ["room", "412", "please", "don't", "wait"]
    assert words_of(" … ") == []


def test_what_both_sides_heard_alike_is_compared_with_its_times() -> None:
    [same] = found([heard(1.0, 2.0)], [heard(1.032, 1.968, "Towels, please.")])
    assert same is not None
    assert (same.utterances, same.words, same.wrong, same.difference) == (1, 2, 0, "")
    assert (same.start_ms, same.end_ms) == (32.0, -32.0)


@pytest.mark.parametrize(
    ("served", "own", "says"),
    [
        ([heard(1, 2)], [], ("missed", 1, 2, 1, 0)),
        ([heard(1, 2)], [heard(1, 2, "")], ("missed", 1, 2, 1, 0)),
        ([], [heard(1, 2)], ("extra", 0, 2, 0, 1)),
        ([heard(1, 2, "")], [heard(1, 2)], ("extra", 0, 2, 0, 1)),
        ([heard(1, 2)], [heard(1, 2, "towels")], ("words", 1, 1, 0, 0)),
    ],
)
def test_differences_are_told_apart(
    served: list[Uttered], own: list[Uttered], says: tuple[str, int, int, int, int]
) -> None:
    [one] = found(served, own)
    assert one is not None
    assert (one.difference, one.utterances, one.wrong, one.missed, one.extra) == says


def test_what_one_side_cuts_in_two_is_one_stretch_and_no_difference() -> None:
    [one] = found([heard(1, 3, "towels please"), heard(3, 5, "now")], [heard(1, 5, "towels please now")])
    assert one is not None
    assert (one.utterances, one.words, one.wrong, one.start_ms) == (2, 3, 0, None)


def test_what_only_touches_is_compared_apart() -> None:
    assert len(found([heard(1, 3), heard(3, 5)], [heard(1, 3.05), heard(3.05, 5)])) == 2


def test_what_neither_side_understood_or_was_left_out_is_not_compared() -> None:
    assert found([heard(1, 2, "")], [heard(1, 2, "")]) == [None]
    assert found([heard(1, 2)], [heard(1, 2, None)]) == [None]
