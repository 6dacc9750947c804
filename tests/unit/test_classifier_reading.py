"""What rules read from a text: rooms, things, urgency, danger, cuts, summaries. No engine is needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.contracts.insight import Item
from quickcomm.intelligence.model.clauses import candidates, pieces
from quickcomm.intelligence.model.mentions import distinct
from quickcomm.intelligence.model.reading import Reader
from quickcomm.intelligence.model.wording import LIMIT, summarise
from quickcomm.kernel.emergencies import tidy
from quickcomm.kernel.site_pack import load_pack

HOTEL, CALLS = Reader(load_pack()), Reader(load_pack("callcentre"))


@pytest.mark.parametrize(
    ("text", "rooms"),
    [
        ("towels to 1420 and 1422 please", ("1420", "1422")),
        ("room eleven oh seven has no hot water", ("1107",)),
        ("the flight 318 is late", ()),
        ("we need 150 chairs in the ballroom", ()),
        ("call 911", ()),
        ("meet the buyers at 1130", ()),
        ("233, no wait, 323 wants ice", ("323",)),
        ("it is 233 not 323", ("233",)),
        ("ate oh seven wants ice", ("807",)),
        ("breakfast for twelve people", ()),
        ("the tab on table 212", ()),
        ("send it up to 909", ("909",)),
    ],
)
def test_rooms_are_only_what_the_words_support(text: str, rooms: tuple[str, ...]) -> None:
    found = HOTEL.read(text).rooms
    assert distinct(list(found)) == rooms
    assert all(text[m.start : m.end] == m.words for m in found)


def test_another_pack_has_other_numbers() -> None:
    assert distinct(list(CALLS.read("my account is 5 5 1 2 0 9 3 and my bill is 412 dollars").rooms)) == ("5512093",)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("412 needs three hand towels and a razor", [("hand towels", 3), ("razor", 1)]),
        ("bring a couple of feather pillows to 502", [("feather pillows", 2)]),
        ("150 chairs for the ballroom", [("chairs", 150)]),
        ("black linens to ballroom A", [("black linens", 1)]),
        ("bring two handheld mics and one spare stand", [("handheld mics", 2), ("stand", 1)]),
        ("booster seat to table six please", [("booster seat", 1)]),
        ("the bar is low on cocktail napkins", [("cocktail napkins", 1)]),
        ("for twelve needs towels", [("towels", 1)]),
    ],
)
def test_things_come_with_how_many(text: str, items: list[tuple[str, int]]) -> None:
    found = HOTEL.read(text).things
    assert [(thing.item.name, thing.item.quantity) for thing in found] == items
    assert all(thing.words in text for thing in found)


@pytest.mark.parametrize(
    "text",
    [
        "there are flames behind the fryer", "a man has collapsed in the gym", "she can't breathe",
        "we smell gas in the boiler room",
        "two guys are fighting by the bar", "people stuck inside the elevator",
        "a little girl is missing", "start evacuating the tower",
        "the kitchen is on fire", "he's on fire, get a blanket", "heavy smoke in the room next door",
        "a kid is drowning in the pool", "he got shocked by the outlet", "her arm is stuck in the machine",
        "she hit the panic button", "lady's choking at table nine", "lightning hit the pool bar, people are down",
    ],
)  # fmt: skip
def test_danger_is_recognised_by_rule(text: str) -> None:
    assert any(hit.sure for hit in HOTEL.read(text).danger)


@pytest.mark.parametrize(
    "text",
    [
        "the smoke detector in 702 is dripping. It needs a new battery.",
        "fire drill at ten", "the smoke detector in 303 is chirping", "my feet are killing me", "smoked salmon for two",
        "the battery in my radio is dying", "he wants two steak knives", "the team is on fire tonight",
        "we're drowning in paperwork", "somebody to help me flip the mattress", "paramedics have left, all good",
        "kid's been found, he's with his mom", "elevator two's stuck on four, nobody inside",
    ],
)  # fmt: skip
def test_near_misses_are_no_certain_danger(text: str) -> None:
    assert not any(hit.sure for hit in HOTEL.read(text).danger)


def test_urgency_has_its_words() -> None:
    text = "I need that asap, the guest is waiting"
    hits = [hit.words for hit in HOTEL.read(text).urgent]
    assert "asap" in hits
    assert all(words in text for words in hits)


def test_written_and_heard_text_look_alike() -> None:
    written, heard = "Housekeeping, Room 412 needs two towels.", "housekeeping, four twelve needs 2 towels"
    assert HOTEL.read(written).plain == HOTEL.read(heard).plain


def test_a_list_of_rooms_is_not_cut() -> None:
    assert candidates("towels for 412 and 414 please", HOTEL) == []


def test_a_pack_without_items_or_locations_reads_none() -> None:
    reading = CALLS.read("bring two towels to the lobby")
    assert reading.things == ()
    assert reading.places == ()


@given(st.text(max_size=400))
@examples(60)
def test_any_text_can_be_read(text: str) -> None:
    reading = HOTEL.read(text)
    assert len(tidy(text)) == len(text)
    assert len(reading.flags) == HOTEL.flag_count
    found = [(one.start, one.end, one.words) for one in (*reading.rooms, *reading.places)]
    found += [(one.start, one.end, one.words) for one in reading.things]
    found += [(one.start, one.end, one.words) for one in (*reading.urgent, *reading.danger)]
    assert all(reading.text[start:end] == words for start, end, words in found)
    spans = pieces(reading.text, candidates(reading.text, HOTEL))
    assert all(a <= b for a, b in spans)
    for intent in HOTEL.pack.intents:
        summary = summarise(
            HOTEL.pack, intent, reading, distinct(list(reading.rooms)), [t.item for t in reading.things]
        )
        assert 0 < len(summary) <= LIMIT


def test_the_summary_is_an_order() -> None:
    reading = HOTEL.read("Housekeeping, please send 2 bath towels to 412")
    assert summarise(HOTEL.pack, "request_item", reading, ["412"], [Item(name="bath towels", quantity=2)]) == (
        "Bring 2 bath towels to 412"
    )
    assert summarise(HOTEL.pack, "request_item", HOTEL.read("ice to 1204"), ["1204"], []).startswith(
        "Bring ice to 1204"
    )
