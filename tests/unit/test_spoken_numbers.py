"""Numbers as written on the door: the usual ways to say a room, and everything that must stay as it was said."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.kernel.number_words import SCALES, SMALL
from quickcomm.kernel.spoken_numbers import find_numbers, find_quantities, parse_quantity, write_numbers

WRITTEN = [
    ("four twelve", "412"),
    ("room two oh five", "room 205"),
    ("eleven oh seven", "1107"),
    ("Twelve thirty four", "1234"),
    ("four one two", "412"),
    ("three hundred and six", "306"),
    ("four hundred twelve", "412"),
    ("eight hundred", "800"),
    ("one thousand four hundred twenty", "1420"),
    ("twelve hundred and six", "1206"),
    ("1,420", "1420"),
    ("800-6", "806"),
    ("800 6", "806"),
    ("4 12", "412"),
    ("11-07", "1107"),
    ("4-1-2", "412"),
    ("towels to 4,12", "towels to 412"),
    ("four-twelve", "412"),
    ("4.12 needs towels", "412 needs towels"),
    ("Engineering to 3.0.6, please.", "Engineering to 306, please."),
    ("4. 12. Needs towels", "412. Needs towels"),
    ("For 12 needs 2 towels.", "412 needs 2 towels."),
    ("eight oh nine", "809"),
    ("double four two", "442"),
    ("one double oh seven", "1007"),
    ("Room 4, 1, 2.", "Room 412."),
    ("Room 4:12 please", "Room 412 please"),
    ("Suite twelve", "Suite 12"),
    ("fire in four twelve!", "fire in 412!"),
    ("in twelve oh five's bathroom", "in 1205's bathroom"),
    ("I'm at four fifteen", "I'm at 415"),
    ("oh four twelve", "oh 412"),
    ("four twelve oh", "412 oh"),
    ("this one four twelve", "this one 412"),
    ("a double room in four twelve", "a double room in 412"),
    ("four twelve, four fourteen", "412, 414"),
    ("four twelve four fourteen", "412 414"),
    ("rooms four twelve and four fourteen", "rooms 412 and 414"),
    ("rooms four hundred and four twelve", "rooms 400 and 412"),
    ("room one oh one one oh two", "room 101 102"),
    ("room four twelve two towels", "room 412 two towels"),
    ("four twenty two towels to five oh one", "420 two towels to 501"),
    ("four twelve in ten fifteen minutes", "412 in ten fifteen minutes"),
    ("seven thirty am pickup for four twelve", "seven thirty am pickup for 412"),
]

UNTOUCHED = [
    "two towels",
    "twenty four chairs",
    "three hundred chairs",
    "10-15 guests",
    "800 6 towels",
    "at ten thirty",
    "by four fifteen",
    "by 4:15",
    "seven thirty am",
    "ten thirty p.m.",
    "7:30 p.m. in 412",
    "twelve hundred hours",
    "second floor",
    "twenty first floor",
    "one hundred dollars",
    "$412",
    "555-1234",
    "five five five one two three four",
    "412 and 414",
    "412 414",
    "412,414",
    "rooms 4, 5",
    "march twelve twenty four",
    "testing one two three",
    "no one came, oh well",
    "one or two",
    "half an hour",
    "at 4.15",
    "$4.50 for 412",
    "the table for 12 is ready",
    "2.5 liters",
    "the 4th of July, 412B",
]


@pytest.mark.parametrize(("spoken", "written"), WRITTEN)
def test_rooms_are_written_as_on_the_door(spoken: str, written: str) -> None:
    assert write_numbers(spoken) == written


@pytest.mark.parametrize("text", UNTOUCHED)
def test_what_is_no_room_stays_as_it_was_said(text: str) -> None:
    assert write_numbers(text) == text


def test_spans_cite_the_words() -> None:
    text = "Smoke in four-twelve, and room seven needs two oh five's key."
    found = find_numbers(text)
    assert [(n.words, n.digits, n.named) for n in found] == [
        ("four-twelve", "412", False),
        ("seven", "7", True),
        ("two oh five", "205", False),
    ]
    assert all(text[n.start : n.end] == n.words for n in found)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a couple of towels", 2),
        ("A dozen eggs", 12),
        ("half a dozen", 6),
        ("two dozen eggs", 24),
        ("another pillow", 1),
        ("an iron", 1),
        ("twenty four chairs", 24),
        ("three hundred and six", 306),
        ("1,420 covers", 1420),
        ("12 towels", 12),
        ("a few", 3),
        ("a hundred", 100),
        ("two thousand five hundred", 2500),
        ("towels", None),
        ("oh", None),
        ("", None),
    ],
)
def test_quantities_are_read(text: str, value: int | None) -> None:
    assert parse_quantity(text) == value


def test_quantities_are_found_but_not_inside_doors_or_times() -> None:
    text = "bring a couple of towels, two dozen eggs and 3 pillows to four twelve at 4:15"
    assert [(q.words, q.value) for q in find_quantities(text)] == [("a couple", 2), ("two dozen", 24), ("3", 3)]


ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = [word for word, value in SMALL.items() if 10 <= value <= 19]
TENS = {value // 10: word for word, value in SMALL.items() if value >= 20 and word != "fourty"}


def two_digits(value: int) -> str:
    if value < 10:
        return f"oh {ONES[value]}"
    if value < 20:
        return TEENS[value - 10]
    return TENS[value // 10] + (f" {ONES[value % 10]}" if value % 10 else "")


def ways(room: int) -> list[str]:
    """The usual ways to say a room number of three or four digits."""
    high, low = divmod(room, 100)
    said = ONES[high] if high < 10 else two_digits(high)
    digits = " ".join("oh" if d == "0" else ONES[int(d)] for d in str(room))
    zeroes = " ".join(ONES[int(d)] for d in str(room))
    hundreds = f"{said} hundred"
    if low == 0:
        return [hundreds, digits, zeroes, str(room)]
    rest = ONES[low] if low < 10 else two_digits(low)
    spoken = [f"{said} {two_digits(low)}", f"{hundreds} and {rest}", f"{hundreds} {rest}", digits, zeroes, str(room)]
    if room >= 1000:
        spoken.append(f"{room // 1000},{room % 1000:03}")
    return [*spoken, spoken[0].replace(" ", "-"), spoken[0].title()]


@given(
    st.integers(100, 9999), st.data(), st.sampled_from(["{}", "room {}", "Towels to {}, please.", "{} needs towels"])
)
def test_every_room_comes_back(room: int, data: st.DataObject, sentence: str) -> None:
    way = data.draw(st.sampled_from(ways(room)))
    assert write_numbers(sentence.format(way)) == sentence.format(room)


WORDS = st.sampled_from(
    [
        *SMALL,
        *SCALES,
        "and",
        "double",
        "room",
        "rooms",
        "towels",
        "at",
        "412",
        "4",
        "12",
        "800",
        "6",
        "1,420",
        "am",
        "minutes",
        "first",
        "the",
    ]
)
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", ", ", "-", ". "])), max_size=12).map(
    lambda parts: "".join(word + sep for word, sep in parts)
)


@given(TEXTS)
def test_writing_twice_is_writing_once(text: str) -> None:
    once = write_numbers(text)
    assert write_numbers(once) == once


@given(TEXTS)
def test_spans_are_in_order_and_in_the_text(text: str) -> None:
    found = find_numbers(text)
    assert all(text[n.start : n.end] == n.words and n.digits.isdigit() for n in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    assert write_numbers(write_numbers(text)) == write_numbers(text)
    find_quantities(text)


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Nd"])))
def test_text_without_numbers_is_untouched(text: str) -> None:
    words = set(re.findall(r"[a-z]+", text.lower()))
    if not words & {*SMALL, *SCALES}:
        assert write_numbers(text) == text


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("Leak in three oh six.", "Leak in 306."),
        ("Leak in room three oh six.", "Leak in room 306."),
        ("Towels to four twelve. Thank you.", "Towels to 412. Thank you."),
        ("Send someone to eleven oh seven. Now.", "Send someone to 1107. Now."),
        ("Room four twelve waits for towels.", "Room 412 waits for towels."),
        ("The U.S. guest in two ten.", "The U.S. guest in 210."),
    ],
)
def test_a_full_stop_ends_the_sentence_and_not_the_number(said: str, written: str) -> None:
    assert write_numbers(said) == written


@pytest.mark.parametrize(
    "said", ["Meet at four fifteen p.m. in the lobby", "Wake-up at six thirty a.m.", "four. Twelve towels."]
)
def test_full_stops_of_times_and_sentences_make_no_number(said: str) -> None:
    assert write_numbers(said) == said
