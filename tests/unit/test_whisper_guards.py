"""What Whisper must not be believed, and what people really say twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.adapters.whisper_guards import (
    Judgement,
    adds_a_name,
    echoed,
    repeats,
    unsupported,
    without_hurry,
    without_loops,
)

LONG = (
    "For although the Chinese took impressions from wood blocks engraved in relief for centuries before the wood"
    " cutters of the Netherlands by a similar process, produced the block books, which were the immediate predecessors"
    " of the true printed book, the invention of movable metal letters in the middle of the 15th century may justly be"
    " considered as the invention of the art of printing."
)
FIFTEEN = "Please send somebody up to the ninth floor because the guest there has no hot water."
REAL = [
    "Help, help, help.",
    "Go, go, go, go, go!",
    "Fire in 412, fire in 412.",
    "Room 412, room 414, room 416, room 418 and room 420 need towels.",
    "Copy that.",
    "",
    LONG,
]


@pytest.mark.parametrize("text", REAL)
def test_real_speech_is_no_loop(text: str) -> None:
    assert not repeats(text)
    assert without_loops(text) == text


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("in being modern, " * 12 + "in being", "in being modern"),
        ("and the end " + "of the end " * 30 + "of the", "and the end of"),
        ("Fire, fire, fire, fire, fire, fire, fire, fire.", "Fire."),
        ("Towels to 412. " + "Thank you. " * 6, "Towels to 412. Thank you"),
        (f"{FIFTEEN} " * 3, FIFTEEN),
        (f"Copy that. {FIFTEEN} {FIFTEEN} {FIFTEEN} Please send somebody up", f"Copy that. {FIFTEEN}"),
    ],
)
def test_loops_are_cut_to_one(text: str, cut: str) -> None:
    assert repeats(text)
    assert without_loops(text).strip(" .,") == cut.strip(" .,")
    assert not repeats(without_loops(text))


@pytest.mark.parametrize(
    "heard",
    [
        Judgement(text=" .", log_prob=-1.5, no_speech=0.1),
        Judgement(text="Thank you.", log_prob=-0.3, no_speech=0.5),
        Judgement(text="I'm gonna go to the right side.", log_prob=-2.1, no_speech=0.93),
        Judgement(text="of the end " * 20, log_prob=-0.2, no_speech=0.5),
        Judgement(text="minibar", log_prob=-0.3, no_speech=0.4, prompt="towels minibar valet"),
        Judgement(text="F***!", log_prob=-1.24, no_speech=0.46, prompt="towels"),
    ],
)
def test_what_nobody_said_is_dropped(heard: Judgement) -> None:
    assert unsupported(heard)


@pytest.mark.parametrize(
    "heard",
    [
        Judgement(text="Thank you.", log_prob=-0.2, no_speech=0.03),
        Judgement(text="Minibar.", log_prob=-0.4, no_speech=0.05, prompt="towels minibar valet"),
        Judgement(
            text="They are the fire in the presence of the fire department.",
            log_prob=-0.71,
            no_speech=0.42,
            prompt="Hotel radio. Room 907, go ahead.",
        ),
        Judgement(text="for 12 needs to town else.", log_prob=-0.9, no_speech=0.37),
        Judgement(text="R2, oh fine, lating thing", log_prob=-1.57, no_speech=0.04, prompt="towels"),
    ],
)
def test_what_somebody_said_stays_however_badly_heard(heard: Judgement) -> None:
    assert not unsupported(heard)


@given(st.integers(1, 60), st.integers(6, 9), st.integers(0, 59))
def test_a_loop_of_any_length_is_cut_to_one(size: int, times: int, more: int) -> None:
    phrase = [f"w{number}" for number in range(size)]
    looped = " ".join(phrase * times + phrase[: more % size])
    assert repeats(looped)
    assert without_loops(looped) == " ".join(phrase)


@given(st.integers(3, 60), st.integers(2, 5), st.integers(0, 59))
def test_sayings_faster_than_people_speak_are_one(size: int, times: int, more: int) -> None:
    phrase = [f"w{number}" for number in range(size)]
    said = phrase * times + phrase[: more % size]
    assert without_hurry(" ".join(said), len(said) / 4.1) == " ".join(phrase)
    assert without_hurry(" ".join(said), len(said) / 3.9) == " ".join(said)


@pytest.mark.parametrize(
    ("text", "barely", "words"),
    [
        ("Lamp!", False, {"lamp"}),
        ("A new, new lamp.", False, {"a", "new", "lamp"}),
        ("Front desk, 412 has no towel.", False, {"front", "desk"}),
        ("Is room 907 ready?", False, {"room", "907"}),
        ("The desk in 915 has a key.", True, {"desk"}),
        ("The desk in 915 has a key.", False, set()),
        ("", False, set()),
    ],
)
def test_words_that_may_be_an_echo_of_the_prompt(text: str, words: set[str], *, barely: bool) -> None:
    assert echoed(text, "Front desk to engineering. Room 907 needs a new lamp.", barely=barely) == words
    assert echoed(text, "", barely=barely) == set()


@pytest.mark.parametrize(
    ("text", "first", "adds"),
    [
        ("Send towels up.", "Send town else up.", False),
        ("Guest in 1111 needs soap.", "Gaston 1111 needs soap.", False),
        ("Check the minibar.", "Check the Mini Bar.", False),
        ("Send towels up.", "Send towels down.", False),
        ("guest, in 11, 11, minibar, two thrish", "guest in 11, 11 needs a toothbrush", True),
        ("Four or two, DND.", "Four or two.", True),
        ("Done.", "Don.", False),
    ],
)
def test_a_name_of_the_list_replaces_only_what_is_spelt_like_it(text: str, first: str, *, adds: bool) -> None:
    assert adds_a_name(text, first, ("towels", "guest", "minibar", "DND", "room service")) == adds


def test_what_is_said_twice_faster_than_people_speak_is_said_once() -> None:
    twice = "He could wait no longer. He could wait no longer."
    assert without_hurry(twice, 1.6) == "He could wait no longer."
    assert without_hurry(twice, 3.5) == twice, "said twice, as on the radio"
    for once in ("He could wait no longer.", "Copy that, copy that.", ""):
        assert without_hurry(once, 0.8) == once
