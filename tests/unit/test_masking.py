"""What must not leave is masked, in every spelling; what a hotel talks about stays; and all of it comes back."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stdnum import luhn
from tests.support.examples import examples

from quickcomm.intelligence.model.drafts import Draft, DraftEvidence, DraftItem
from quickcomm.intelligence.model.masking import mask

PHRASES = Path(__file__).resolve().parent.parent / "data" / "phrases"
UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TALK = ["", "Room 412, ", "towels to 412 and 414. ", "[card 1] ", "[Phone 2] at 11:30 ", "call "]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("card is 4111 1111 1111 1111 exp 12/28", "card is [card 1] exp 12/28"),
        ("card 4111-1111-1111-1111 for room 412", "card [card 1] for room 412"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[card 1]"),
        ("4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.", "[card 1]."),
        ("four one one one one one one one one one one one one one one one please", "[card 1] please"),
        ("forty-one eleven eleven eleven eleven eleven eleven eleven", "[card 1]"),
        ("four triple one double one double one one one one one one one one one", "[card 1]"),
        ("amex 3782 822463 10005", "amex [card 1]"),
        ("378282246310005", "[card 1]"),
        ("his visa is 4111 1111 1111 1112", "his visa is [card 1]"),
        ("room 412 4111 1111 1111 1111 for 414", "room 412 [card 1] for 414"),
        ("call 212 555 0123 for 412", "call [phone 1] for 412"),
        ("call me at two one two five five five oh one two three", "call me at [phone 1]"),
        ("2 1 2 5 5 5 0 1 2 3", "[phone 1]"),
        ("2 1 2, 5 5 5, 0 1 2 3", "[phone 1]"),
        ("5 5 5 0 1 2 3 is his cell", "[phone 1] is his cell"),
        ("+44 20 7946 0958 asked for 412", "[phone 1] asked for 412"),
        ("plus four four two zero seven nine four six zero nine five eight", "[phone 1]"),
        ("555-0123", "[phone 1]"),
        ("text him on (212) 555-0123 or 1-800-555-1212", "text him on [phone 1] or [phone 2]"),
        ("john at example dot com wants the folio", "[email 1] wants the folio"),
        ("send it to john.smith@example.com please", "send it to [email 1] please"),
        ("j o h n at gmail dot com", "[email 1]"),
        ("john dot smith at hotmail dot co dot uk", "[email 1]"),
        ("Send it to John at example.com.", "Send it to [email 1]."),
    ],
)
def test_what_must_not_leave_is_masked(text: str, masked: str) -> None:
    found = mask(text, ())
    assert found.text == masked
    assert found.restore(found.text) == text


@pytest.mark.parametrize(
    "text",
    [
        "towels to 412 414 416 418 420",
        "towels to 412 414 1620",
        "4101 4102 4103 4104 need turndown",
        "rooms 412, 414, 416 and 418",
        "4 1 2, 4 1 4, 4 1 6",
        "four one two and four one four",
        "from 11:30 to 12:45 on 2026-11-25",
        "$1,200.50 for 412 and 250 dollars",
        "account 5512093 is wrong",
        "account six six two, no sorry, six six three one oh four nine",
        "confirmation number, 88 41 205",
        "150 chairs and 1200 plates at 6 pm",
        "call 911",
        "call extension 4412, then 1420",
        "the flight 318 lands at 1130",
        "code 4 5 1 2 for the door",
        "meet at the pool at 3. Dot is on shift",
        "testing one two three",
    ],
)
def test_what_a_hotel_talks_about_stays(text: str) -> None:
    found = mask(text, (text,))
    assert (found.text, found.context, dict(found.secrets)) == (text, (text,), {})


def test_hardly_a_labelled_phrase_is_masked() -> None:
    for file in ("hospitality.jsonl", "hospitality_blind.jsonl"):
        texts = [json.loads(line)["text"] for line in (PHRASES / file).read_text().splitlines() if line.strip()]
        assert [text for text in texts if mask(text, ()).secrets] == []


def test_the_same_words_get_the_same_placeholder_in_text_and_context() -> None:
    found = mask("again 212 555 0123, and 415 555 0199", ("he is at 212 555 0123", "mail a@b.com or call 415 555 0199"))
    assert found.text == "again [phone 1], and [phone 2]"
    assert found.context == ("he is at [phone 1]", "mail [email 1] or call [phone 2]")


def test_a_placeholder_that_somebody_says_is_not_mixed_up_with_ours() -> None:
    found = mask("say [Phone 1] and call 212 555 0123", ("[phone 2]",))
    assert found.text == "say [Phone 1] and call [phone 3]"
    assert found.restore(found.text) == "say [Phone 1] and call 212 555 0123"
    assert found.restore("[phone 7] [PHONE 3]") == "[phone 7] 212 555 0123"


def test_a_claim_of_the_model_comes_back_in_the_words_of_the_original() -> None:
    found = mask("call 212 555 0123 about the cake for a@b.com", ())
    draft = Draft(
        intent="request_item",
        department="front_desk",
        urgency="normal",
        rooms=("[phone 1]",),
        items=(DraftItem(name="cake for [email 1]", quantity=2),),
        summary="Call [phone 1]",
        evidence=DraftEvidence(rooms=("call [phone 1]",), items=("[email 1]",), urgency=("[phone 1] about",)),
    )
    restored = found.restored(draft)
    assert restored.rooms == ("212 555 0123",)
    assert restored.items == (DraftItem(name="cake for a@b.com", quantity=2),)
    assert restored.summary == "Call 212 555 0123"
    assert restored.evidence == DraftEvidence(
        rooms=("call 212 555 0123",), items=("a@b.com",), urgency=("212 555 0123 about",)
    )
    assert mask("towels", ()).restored(draft) is draft


brands, rest = st.sampled_from(["4", "51", "55", "6011"]), st.text("0123456789", min_size=15, max_size=15)
cards = st.tuples(brands, rest).map(lambda pair: (pair[0] + pair[1])[:15])


@given(
    number=cards.map(lambda digits: digits + luhn.calc_check_digit(digits)),
    spelling=st.sampled_from(["plain", "groups", "dashes", "spaced", "commas", "words"]),
    before=st.sampled_from(TALK),
    after=st.sampled_from(["", " please", ". Room 412", " and ice"]),
)
@example(number="6011600060006005", spelling="groups", before="", after="")  # looks like four rooms of one floor
@examples(300)
def test_every_card_is_masked_in_every_spelling(number: str, spelling: str, before: str, after: str) -> None:
    fours = [number[i : i + 4] for i in range(0, 16, 4)]
    spelled = {
        "plain": number,
        "groups": " ".join(fours),
        "dashes": "-".join(fours),
        "spaced": " ".join(number),
        "commas": ", ".join(number),
        "words": " ".join(UNITS[int(digit)] for digit in number),
    }[spelling]
    text = f"{before}my card number {spelled}{after}"
    found = mask(text, ())
    assert spelled not in found.text
    assert spelled in found.secrets.values()
    assert found.restore(found.text) == text


pieces = st.sampled_from(
    [
        "4111 1111 1111 1111", "212 555 0123", "a@b.co", "[card 1]", "[card 2]", "[email 1]", "john at x dot com",
        "412", "oh", "four", "double", " ", ", ", "-", "at", "dot", "@", "plus ", "11:30", "$12.50", "\u0130", "\n",
        "[", "]",
    ]
)  # fmt: skip


@given(st.lists(st.text(max_size=12) | pieces, max_size=12), st.lists(st.text(max_size=40), max_size=3))
@examples(400)
def test_whatever_is_masked_comes_back(parts: list[str], context: list[str]) -> None:
    text = "".join(parts)
    found = mask(text, [*context, text])
    assert found.restore(found.text) == text
    assert [found.restore(one) for one in found.context] == [*context, text]
    assert found.context[-1] == found.text


@given(st.text("0123456789 ,.-+()", max_size=80))
@examples(300)
def test_digits_of_any_shape_come_back(text: str) -> None:
    found = mask(text, ())
    assert found.restore(found.text) == text
