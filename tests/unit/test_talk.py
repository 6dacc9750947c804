"""What is remembered of a conversation, when its summary is due, and the summaries as text."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.talking import START_NS, insight, spoken, understood

from quickcomm.contracts.insight import Item
from quickcomm.contracts.summaries import MAX_SUMMARY
from quickcomm.intelligence.model import summary_text, talk
from quickcomm.intelligence.model.talk import MAX_LINES, MAX_NOTES, NS, SummarySettings, Talk

RULES = SummarySettings(quiet_s=20, utterances=10, settle_s=2)
BLANK = Talk(site="main", conversation_id="c", channel="housekeeping")
LEAK = spoken(1, "leak in 305")
TOWELS = spoken(2, "two towels to four twelve please")
DONE = spoken(3, "305 is fixed")
MESSAGES = (
    understood(LEAK, insight("repair", "Fix leak in 305", "305")),
    understood(TOWELS, insight("request_item", "Bring towels", "412", items=(Item(name="towel", quantity=2),))),
    understood(DONE, insight("task_done", "305 fixed", "305")),
)


def after(*texts: str, start: Talk = BLANK) -> Talk:
    for number, text in enumerate(texts, start=start.last_seq + 1):
        start = talk.heard(start, spoken(number, text), RULES, START_NS)
    return start


def whole() -> Talk:
    made = BLANK
    for message in (LEAK, TOWELS, DONE):
        made = talk.heard(made, message, RULES, START_NS)
    for found in MESSAGES:
        made = talk.found(made, found, START_NS)
    return made


def test_a_transcript_counts_once() -> None:
    once = after("leak in 305")
    assert talk.heard(once, spoken(1, "leak in 305"), RULES, START_NS + 5) is once


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_insights_may_come_in_any_order_and_more_than_once(order: tuple[int, ...]) -> None:
    made = BLANK
    for index in (*order, *order):
        made = talk.found(made, MESSAGES[index], START_NS)
    is_open, done = talk.requests(made)
    assert [asked.summary for asked in is_open] == ["Bring towels"]
    assert [asked.summary for asked in done] == ["Fix leak in 305"]
    assert made.changes == 3


def test_a_renewed_insight_replaces_the_old_one_and_an_older_one_does_not() -> None:
    made = talk.found(whole(), understood(TOWELS, insight("chatter", "Nothing"), revision=2), START_NS)
    assert talk.requests(made)[0] == []
    assert talk.found(made, MESSAGES[1], START_NS) is made


def test_a_report_that_is_not_sure_finishes_nothing() -> None:
    unsure = msgspec.structs.replace(insight("task_done", "305 fixed", "305"), confidence=0.32)
    made = talk.found(talk.found(BLANK, MESSAGES[0], START_NS), understood(DONE, unsure), START_NS)
    assert [asked.summary for asked in talk.requests(made)[0]] == ["Fix leak in 305"]
    assert talk.requests(made)[1] == []


def test_chatter_changes_nothing() -> None:
    assert talk.found(BLANK, understood(LEAK, insight("chatter", "Chat")), START_NS) is BLANK


def test_due_after_quiet_after_many_or_at_the_end() -> None:
    assert talk.due_ns(BLANK, RULES) is None
    assert talk.due_ns(after("one"), RULES) == START_NS + 20 * NS
    assert talk.due_ns(after(*"abcdefghi"), RULES) == START_NS + 20 * NS
    ten = after(*"abcdefghij")
    assert talk.due_ns(ten, RULES) == START_NS + 2 * NS
    more = talk.heard(ten, spoken(11, "k"), RULES, START_NS + NS)
    assert talk.due_ns(more, RULES) == START_NS + 2 * NS
    assert talk.due_ns(talk.ended(after("one"), START_NS), RULES) == START_NS + 2 * NS
    assert talk.due_ns(talk.ended(BLANK, START_NS), RULES) is None


def test_what_was_said_while_the_summary_was_written_is_due_again() -> None:
    seen = after(*"abcdefghij")
    now = talk.heard(seen, spoken(11, "k"), RULES, START_NS + NS)
    written = talk.summarized(now, seen, "Talk.", "llm")
    assert (written.revision, written.summarized, [line.text for line in written.lines]) == (1, 10, ["k"])
    assert talk.due_ns(written, RULES) == START_NS + 21 * NS
    assert talk.due_ns(talk.summarized(seen, seen, "Talk.", "llm"), RULES) is None


def test_lines_stay_until_the_model_has_seen_them() -> None:
    seen = after("one", "two")
    local = talk.summarized(seen, seen, "2 utterances.", "local")
    assert [line.text for line in local.lines] == ["one", "two"]
    assert local.base == ""
    assert talk.summarized(local, local, "Talk.", "llm").base == "Talk."


def test_the_same_text_is_no_new_revision() -> None:
    seen = after("one")
    once = talk.summarized(seen, seen, "Talk.", "local")
    again = talk.summarized(after("two", start=once), after("two", start=once), "Talk.", "local")
    assert again.revision == 1
    assert talk.due_ns(again, RULES) is None


def test_what_is_remembered_is_bounded() -> None:
    made = BLANK
    for number in range(1, 500):
        said = spoken(number, "word " * 500)
        made = talk.heard(made, said, RULES, START_NS)
        made = talk.found(made, understood(said, insight("repair", "x" * 80, str(number))), START_NS)
    assert (len(made.lines), len(made.notes)) == (MAX_LINES, MAX_NOTES)
    assert len(msgspec.json.encode(made)) < 40_000
    assert len(summary_text.local_summary(made)) <= MAX_SUMMARY


def test_the_local_summary_says_what_is_open_and_done_and_dangers_first() -> None:
    assert summary_text.local_summary(whole()) == "Open: Bring towels (412). Done: Fix leak in 305."
    fire = spoken(4, "fire in the kitchen")
    made = talk.found(
        whole(), understood(fire, insight("emergency", "Fire in the kitchen", urgency="critical")), START_NS
    )
    assert summary_text.local_summary(made).startswith("Danger: Fire in the kitchen. Open: ")
    assert summary_text.local_summary(after("hi")) == "1 utterance, nothing asked for."
    assert summary_text.local_summary(after("hi", "ho")) == "2 utterances, nothing asked for."


def test_the_model_is_told_the_old_entry_and_what_was_said_since() -> None:
    told = msgspec.json.decode(summary_text.model_input(whole()))
    assert told["said"][0] == {"speaker": 0, "text": "leak in 305"}
    assert told["open"][0]["rooms"] == ["412"]
    assert told["done"][0]["what"] == "Fix leak in 305"


@pytest.mark.parametrize(
    "summary",
    [
        "305 had a leak, which is fixed; two towels (2) to 412 are open.",
        "Room four twelve needs towels.",
        "Two requests.",
        "1 request is open, 1 done, 3 utterances.",
    ],
)
def test_numbers_that_were_said_may_be_in_it(summary: str) -> None:
    assert summary_text.usable(msgspec.json.encode({"summary": summary}).decode(), whole()) == summary


@pytest.mark.parametrize(
    "answer",
    [
        '{"summary":"Leak in 306."}',
        '{"summary":"Leak in room three oh six."}',
        '{"summary":"Towels to 4121."}',
        '{"summary":"17 towels to 412."}',
        '{"summary":"  \\n "}',
        '{"summary":7}',
        '{"text":"Leak"}',
        "Sure! Here is the summary",
        '{"summary":"Leak in 3',
        "[" * 100_000,
        "",
    ],
)
def test_what_nobody_said_or_what_is_no_answer_is_not_taken(answer: str) -> None:
    assert summary_text.usable(answer, whole()) is None


def test_a_number_from_the_entry_so_far_may_stay() -> None:
    made = msgspec.structs.replace(after("hello"), base="Leak in 1420.")
    assert summary_text.usable('{"summary":"Leak in 1,420."}', made) == "Leak in 1,420."


@given(st.text(max_size=2_000))
def test_a_summary_is_one_line_of_bounded_length(text: str) -> None:
    made = summary_text.shortened(text)
    assert len(made) <= MAX_SUMMARY
    assert "\n" not in made
