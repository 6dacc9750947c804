"""Words keep their times when their numbers are written as on the door."""

from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.adapters.whisper_words import write_words
from quickcomm.audio.ports import ClipWord
from quickcomm.kernel.spoken_numbers import write_numbers


def spoken(text: str) -> list[ClipWord]:
    """One word every half second, spaced as the tokenizer spaces them."""
    return [
        ClipWord(text=f" {word}", start=at / 2, end=at / 2 + 0.4, confidence=0.5)
        for at, word in enumerate(text.split())
    ]


def test_a_merged_word_spans_first_start_to_last_end() -> None:
    text, words = write_words(spoken("Towels to four twelve, please."))
    assert text == "Towels to 412, please."
    assert [(word.text, word.start, word.end) for word in words] == [
        ("Towels", 0, 0.4),
        ("to", 0.5, 0.9),
        ("412,", 1, 1.9),
        ("please.", 2, 2.4),
    ]


def test_two_rooms_in_one_breath_stay_two_words() -> None:
    text, words = write_words(spoken("(four twelve four fourteen)"))
    assert text == "(412 414)"
    assert [word.text for word in words] == ["(412", "414)"]


def test_a_hyphenated_word_is_one_word_still() -> None:
    text, words = write_words(spoken("in four-twelve's bath"))
    assert [word.text for word in words] == ["in", "412's", "bath"]
    assert text == "in 412's bath"


def test_no_words_no_text() -> None:
    assert write_words([]) == ("", ())


SAID = ["room", "four", "twelve", "oh", "one", "hundred", "and", "412", "4", "12,", "800", "6.", "towels", "at", "two"]


@given(st.lists(st.sampled_from(SAID), max_size=12))
def test_words_and_text_always_agree(said: list[str]) -> None:
    text, words = write_words(spoken(" ".join(said)))
    assert text == " ".join(word.text for word in words)
    assert text == write_numbers(" ".join(said))
    assert all(word.start <= word.end for word in words)
