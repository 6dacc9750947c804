"""Rooms whatever speech-to-text writes, on a site whose rooms are known and on one whose are not."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.contracts.insight import Item
from quickcomm.intelligence.model.clauses import candidates, pieces
from quickcomm.intelligence.model.masking import mask
from quickcomm.intelligence.model.mentions import PlaceFinder, distinct
from quickcomm.intelligence.model.reading import Reader
from quickcomm.kernel.doubtful_numbers import find_doubtful
from quickcomm.kernel.site_pack import load_pack, load_phrases
from quickcomm.kernel.spoken_numbers import find_quantities, write_numbers

PACK = load_pack()
READER = Reader(PACK)
ROOMS = tuple(str(100 * floor + room) for floor in range(1, 13) for room in range(1, 60))
KNOWN = PlaceFinder(msgspec.structs.replace(PACK.places, registry=ROOMS))
UNKNOWN = PlaceFinder(PACK.places)


def rooms(text: str, site: PlaceFinder = UNKNOWN) -> tuple[str, ...]:
    return distinct(site.rooms(write_numbers(text)))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("5, 0, 7, 3 pillows, and the TV in 5, 0, 9 is broken", ("507", "509")),
        ("Engineering, 12, 0, 4 has no hot water.", ("1204",)),
        ("The lady in 1, 1, 0, 3 wants 2 blankets.", ("1103",)),
        ("Towels to 4, 1, 2, 4 pillows", ("412",)),
        ("6, 2, 1 wants 4 pillows", ("621",)),
        ("500, 26 needs a cot", ("526",)),
        ("Send a cot to 500, 26.", ("526",)),
        ("Smoke coming from under the door at 4.30.", ("430",)),
        ("There is smoke at 4:30", ("430",)),
        ("Smoke under the door at 430", ("430",)),
        ("The guest at 4.30 is locked out.", ("430",)),
        ("Smoke in 4:30, somebody help", ("430",)),
        ("4:30 needs towels", ("430",)),
        ("Leak at 4.12", ("412",)),
        ("507 three pillows", ("507",)),
        ("can you bring to the room 9, 2, 6 one more glass", ("926",)),
        ("Coffee pods and creamers, 1, 2, 0, 6, thanks", ("1206",)),
        ("4, 1, 2 thinks he's having a heart attack", ("412",)),
        ("in the bathroom in 5, 3, 4 and says she's alone", ("534",)),
        ("Front desk, toothbrush for 200, 14 please", ("214",)),
        ("400 12 toilet is backing up", ("412",)),
        ("body wash to 6:14", ("614",)),
        ("rooms 401 through 405 need turndown", ("401", "402", "403", "404", "405")),
        ("rooms 401 to 403, and 412", ("401", "402", "403", "412")),
        ("rooms four twelve fourteen and sixteen need towels", ("412", "414", "416")),
        ("rooms 312, 14 and 18 are ready", ("312", "314", "318")),
        ("rooms 1, 0, 1 and 1, 0, 3 are clean", ("101", "103")),
    ],
)
def test_rooms_are_found_as_they_are_heard(text: str, named: tuple[str, ...]) -> None:
    assert rooms(text) == named
    assert rooms(text, KNOWN) == named


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Somebody is at 4.30", "430"),
        ("Towels for the family at 4:30", "430"),
        ("4, 30 has smoke", "430"),
        ("6, 21 wants pillows", "621"),
        ("The alarm at 7.45 is on", "745"),
    ],
)
def test_a_site_that_has_the_room_is_surer(text: str, named: str) -> None:
    assert rooms(text, KNOWN) == (named,)
    assert rooms(text, PlaceFinder(msgspec.structs.replace(PACK.places, registry=("999",)))) == ()


@pytest.mark.parametrize("site", [KNOWN, UNKNOWN], ids=["known", "unknown"])
@pytest.mark.parametrize(
    "text",
    [
        "The meeting starts at 4.30.",
        "meeting at 4.30 pm",
        "check out at 11.30",
        "I will be there at 9.30",
        "Be there by 9.30",
        "At 9.30 the pool opens",
        "Fire drill at 4.30",
        "The pool closes at 10.30.",
        "pick up at 5.15 tomorrow",
        "breakfast from 6.30 to 10.30",
        "a table booked for 7.30",
        "It's 5.15, time to go",
        "The 9.15 shuttle is late",
        "call them back in 5 minutes",
        "in 10, 15 minutes",
        "That is 4.30 euros",
        "4.30 dollars",
        "The coffee costs 4.30",
        "It is 12.50 per person",
        "12.5 percent",
        "testing 1, 2, 3",
        "1, 2, 3, 4 and lift",
        "Counting 10, 9, 8, 7",
        "on floors 3, 5, 7",
        "We have 3, 0, and 2 left",
        "We need 2, 3, maybe 4 towels",
        "Bring 10, 12 or 15 chairs",
        "I need 4 at the front, 12 in the back",
        "channel 4, 1, 2",
        "four twelve packs of beer to the pool bar",
        "two forty watt bulbs to the lobby",
        "call me at 5, 5, 5, 0, 1, 2, 3",
        "call the guest back at one two three four 5:06 seven eight nine zero",
        "Card is four one one one 11:11 1111 1111 1111",
        "Card is 4111 1111 1111 1111",
        "call me at five five five zero one two three",
    ],
)
def test_times_amounts_lists_and_identifiers_are_no_rooms(text: str, site: PlaceFinder) -> None:
    assert rooms(text, site) == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("512 at 7.30", "512"),
        ("Turndown at 7.30 for 512", "512"),
        ("Wake-up call for 214 at 6.45", "214"),
        ("Dinner for 412 at 7.30", "412"),
        ("one oh five fever in 305", "305"),
        ("two twelve ounce ribeyes for 305", "305"),
        ("we need two forty watt bulbs in 305", "305"),
        ("visa 4111 1111 1111 1111 for room 412", "412"),
        ("$4.30 for 412", "412"),
        ("Send towels to 421, negative, 412", "412"),
    ],
)
def test_the_room_beside_a_time_or_an_amount_is_the_only_one(text: str, named: str) -> None:
    assert rooms(text) == rooms(text, KNOWN) == (named,)


@pytest.mark.parametrize("text", ["the guest in 305 has a fever of 105", "305, her temperature is one oh two"])
def test_a_fever_is_no_room(text: str) -> None:
    assert rooms(text) == ("305",)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5, 0, 7, 3 pillows", [3]),
        ("5 0 7 3 pillows", [3]),
        ("507 three pillows", [3]),
        ("two twelve ounce ribeyes for 305", [2, 12]),
        ("two forty watt bulbs", [2, 40]),
        ("twenty four chairs", [24]),
        ("two thousand five hundred napkins", [2500]),
    ],
)
def test_a_second_number_keeps_its_meaning(text: str, values: list[int]) -> None:
    assert [each.value for each in find_quantities(write_numbers(text))] == values


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("two twelve ounce ribeyes for 305", Item(name="twelve ounce ribeyes", quantity=2)),
        ("we need two forty watt bulbs in 305", Item(name="forty watt bulbs", quantity=2)),
        ("four twelve packs of beer to the pool bar", Item(name="beer", quantity=4)),
        ("six 20 ounce bottles of water to 808", Item(name="water", quantity=6)),
        ("5, 0, 7, 3 pillows", Item(name="pillows", quantity=3)),
        ("4, 1, 2, two pillows", Item(name="pillows", quantity=2)),
    ],
)
def test_a_size_is_no_count_and_a_room_neither(text: str, item: Item) -> None:
    for said in (text, write_numbers(text)):
        assert [thing.item for thing in READER.read(said).things] == [item]


def test_a_room_put_down_digit_by_digit_is_no_clause() -> None:
    text = "5, 0, 7, 3 pillows, and the TV in 5, 0, 9 is not working."
    parts = pieces(text, candidates(text, READER))
    assert [text[start:end] for start, end in parts] == ["5, 0, 7, 3 pillows", "the TV in 5, 0, 9 is not working."]


@pytest.mark.parametrize(
    "text",
    [
        "call the guest back at one two three four 5:06 seven eight nine zero",
        "Card is four one one one 11:11 1111 1111 1111",
        "call me back at 2 1 2 5:55 0 1 9 9",
    ],
)
def test_an_identifier_with_a_time_in_it_is_masked_whole(text: str) -> None:
    assert not any(char.isdigit() for char in mask(write_numbers(text), ()).text.partition("[")[0])
    assert mask(write_numbers(text), ()).text.endswith(" 1]")


STYLES = {
    "{1}, {2}, {3}": (0.99, 0.99),
    "{1} {2} {3}": (0.98, 0.98),
    "{1}-{2}-{3}": (0.98, 0.98),
    "{1}.{2}{3}": (0.97, 0.97),
    "{1}:{2}{3}": (0.5, 0.8),
    "{1}, {2}{3}": (0.65, 0.98),
    "{1}00, {2}{3}": (0.9, 0.98),
    "{1}00 {2}{3}": (0.9, 0.9),
}
"""What of them is found, where the rooms are not known and where they are."""


@pytest.mark.parametrize("style", STYLES)
def test_labelled_phrases_keep_their_room_in_every_style(style: str) -> None:
    phrases = [
        (phrase.text, room)
        for phrase in load_phrases(PACK)
        for room in {room for insight in phrase.insights for room in insight.rooms}
        if room.isdigit() and len(room) == len("412") and room[1] != "0" and rooms(phrase.text) == (room,)
    ]
    known = PlaceFinder(msgspec.structs.replace(PACK.places, registry=tuple({room for _, room in phrases})))
    texts = [(text.replace(room, style.format(room, *room)), room) for text, room in phrases if text.count(room) == 1]
    found = [sum(rooms(text, site) == (room,) for text, room in texts) / len(texts) for site in (UNKNOWN, known)]
    assert all(share >= least for share, least in zip(found, STYLES[style], strict=True)), found


WAYS = ["{0}", "{1}, {2}, {3}", "{1} {2} {3}", "{1}-{2}-{3}", "{1}.{2}{3}", "{1} {2}{3}", "{1},{2}{3}"]
ALREADY_COUNTED = {"123", "234", "345", "456", "567", "678", "789", "321", "432", "543", "654", "765", "876", "987"}
SENTENCES = ["Towels to {}, please.", "Leak in {}.", "{} needs towels", "Smoke at {}!", "Engineering, {} has no water."]


@given(
    room=st.integers(101, 999).map(str).filter(lambda room: room not in ALREADY_COUNTED),
    way=st.sampled_from(WAYS),
    sentence=st.sampled_from(SENTENCES),
)
def test_every_room_comes_back_however_it_is_put_down(room: str, way: str, sentence: str) -> None:
    site = PlaceFinder(msgspec.structs.replace(PACK.places, registry=(room,)))
    assert rooms(sentence.format(way.format(room, *room)), site) == (room,)


@given(
    room=st.integers(101, 1299).map(str),
    count=st.integers(2, 9),
    thing=st.sampled_from(["pillows", "towels", "blankets"]),
    comma=st.sampled_from([", ", " "]),
)
def test_the_count_behind_a_room_survives(room: str, count: int, thing: str, comma: str) -> None:
    written = write_numbers(f"{', '.join(room) if '0' in room[1:] else room}{comma}{count} {thing}")
    assert rooms(written) == (room,)
    assert [each.value for each in find_quantities(written)] == [count]


TIMES = [
    "checkout is at {}",
    "meet me at {} pm",
    "by {}",
    "the shuttle leaves at {}",
    "{} dollars",
    "at {} tomorrow",
    "until {}",
    "dinner at {} in the ballroom",
    "it costs {}",
    "breakfast from {} to {}",
    "the taxi for {}",
]


@given(
    hour=st.integers(1, 12),
    minute=st.integers(0, 11).map(lambda step: 5 * step),
    mark=st.sampled_from(".:"),
    sentence=st.sampled_from(TIMES),
)
def test_times_and_prices_survive(hour: int, minute: int, mark: str, sentence: str) -> None:
    text = sentence.replace("{}", f"{hour}{mark}{minute:02}")
    assert write_numbers(text) == text
    assert rooms(text) == ()
    assert find_doubtful(text) == []


@given(st.text(alphabet=st.sampled_from("0123456789,.: atinformes"), max_size=60))
def test_doubtful_numbers_stand_in_the_text(text: str) -> None:
    found = find_doubtful(text)
    assert all(text[each.start : each.end] == each.words and each.digits.isdigit() for each in found)
    assert all(before.end <= after.start for before, after in pairwise(found))
    assert write_numbers(write_numbers(text)) == write_numbers(text)
    for site in (KNOWN, UNKNOWN):
        assert all(text[each.start : each.end] == each.words for each in site.rooms(text))
