"""The words of a shift report, its percentiles, and what a narrator may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.dashboard.model.report import Counted, Emergency, ShiftReport, TimedTask, Times, counted, times
from quickcomm.dashboard.model.report_words import facts, lasting, plain_words, supported
from quickcomm.dashboard.model.views import Task


def task(summary: str, *rooms: str) -> Task:
    return Task(
        task_id="u:0",
        utterance_id="u",
        insight_index=0,
        status="open",
        channel="x",
        intent="repair",
        department="guest_services",
        urgency="normal",
        rooms=rooms,
        summary=summary,
        assignee=None,
        created_at="",
        acknowledged_at=None,
        completed_at=None,
        completed_by=None,
        completed_by_utterance=None,
        version=0,
    )


NOTHING = Times()
QUIET = ShiftReport(
    since="",
    until="",
    hours=8.0,
    generated_at="",
    utterances=1,
    requests=0,
    by_department=(),
    by_intent=(),
    by_urgency=(),
    done=NOTHING,
    acknowledged=NOTHING,
    slowest=(),
    open_now=0,
    open=(),
    emergencies=0,
    emergencies_unseen=0,
    emergencies_seen=NOTHING,
    emergency=(),
)
BUSY = ShiftReport(
    since="",
    until="",
    hours=8.0,
    generated_at="",
    utterances=120,
    requests=45,
    by_department=(Counted(name="guest_services", requests=20, done=12), Counted(name="security", requests=2, done=1)),
    by_intent=(Counted(name="repair", requests=45, done=30),),
    by_urgency=(Counted(name="normal", requests=45, done=30),),
    done=Times(count=30, p50_s=725.0, p95_s=3_300.0),
    acknowledged=Times(count=40, p50_s=60.0, p95_s=600.0),
    slowest=(TimedTask(task=task("Fix the lamp", "1107"), seconds=3_400.0),),
    open_now=15,
    open=(TimedTask(task=task("Fix leak in 305", "305"), seconds=12_000.0),),
    emergencies=2,
    emergencies_unseen=1,
    emergencies_seen=Times(count=1, p50_s=70.0, p95_s=70.0),
    emergency=(Emergency(task=task("Fire", "pool"), seen_after_s=None), Emergency(task=task("Smoke"), seen_after_s=70)),
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_plain_words() -> None:
    assert plain_words(QUIET) == "In 8 h, 1 utterance and no requests. Nothing is open now. No emergency."
    assert plain_words(BUSY) == (
        "In 8 h, 120 utterances with 45 requests, the most for guest services (20). 30 done, half of them within "
        "12 min, 95 % within 55 min. 15 open now; the oldest, “Fix leak in 305”, for 3 h 20 min. 2 emergencies, half "
        "of them seen within 1 min, 1 not seen yet."
    )


def test_a_narrator_may_use_the_numbers_of_the_facts() -> None:
    known = facts(BUSY)
    assert "Fix the lamp” (1107), took 56 min" in known
    for text in (
        "A busy shift: 45 requests, thirty of them done.",
        "Two emergencies;\none was not seen yet.",
        "The lamp in eleven oh seven took 56 min.",
        "Guest services had a few more than the others.",
    ):
        assert supported(text, known) is not None


@pytest.mark.parametrize(
    "text",
    [
        "46 requests came in.",
        "Fifty requests came in.",
        "The leak in 306 is open.",
        "Room three oh six.",
        "1,120 said.",
        "",
        " \n",
    ],
)
def test_and_no_others(text: str) -> None:
    assert supported(text, facts(BUSY)) is None


def test_what_is_too_long_is_no_narrative() -> None:
    assert supported("word " * 500, facts(BUSY)) is None


def test_its_own_plain_words_are_supported() -> None:
    assert supported(plain_words(BUSY), facts(BUSY)) == plain_words(BUSY)


def test_counts_are_summed_and_the_most_comes_first() -> None:
    assert counted([("a", 1, 1), ("b", 2, 0), ("a", 3, 0)]) == (
        Counted(name="a", requests=4, done=1),
        Counted(name="b", requests=2, done=0),
    )


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=200))
def test_percentiles_are_of_the_nearest_rank(taken: list[int]) -> None:
    ordered = sorted(taken)
    found = times([(value, 1) for value in taken])
    assert found.count == len(taken)
    assert found.p50_s == ordered[-(-len(taken) * 50 // 100) - 1]
    assert found.p95_s == ordered[-(-len(taken) * 95 // 100) - 1]


def test_of_nothing_there_are_no_percentiles() -> None:
    assert times([]) == Times()
