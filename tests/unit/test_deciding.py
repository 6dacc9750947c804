"""What the pack's wordings settle and rule out, whatever the learnt model finds likeliest. No engine is needed."""

import pytest

from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.intelligence.adapters.local import same_rooms
from quickcomm.intelligence.model.clauses import asks_anew, candidates, contrasts, pieces
from quickcomm.intelligence.model.deciding import DOUBTED, Decided, Opinion, decide, doubted
from quickcomm.intelligence.model.reading import Reader
from quickcomm.kernel.site_pack import load_pack

HOTEL = load_pack()
CALLS = load_pack("callcentre")
READER = Reader(HOTEL)

LIVE = [
    "never came",
    "nothing has come to 411",
    "not done yet",
    "the bathroom is half finished",
    "606 is still not fixed",
    "it hasn't been delivered",
    "the lamp isn't working",
    "no one brought the crib to 319",
    "almost done up here",
    "when you're done come to 405",
    "is 413 done",
    "413 done?",
    "not until it's finished",
    "done with 413 but the tap drips",
    "the band plays on in 318",
    "Housekeeping, has 207 been cleaned?",
    "we need 207 done by noon",
    "I will be done with 207 soon",
    "they took the wrong bags up, delivered them to 207",
    "Nobody's touched 207.",
]
FINISHED = [
    "413 done",
    "413 is done.",
    "all sorted in 306",
    "tap in 208 is fixed",
    "Okay base, just finished 207",
    "nobody home, delivered to 413",
    "done in 207, going on to 209",
    "bulb replaced, 413, no more flicker",
    "is done the seven oh eight",
    "delivered at half past ten to 207",
    "works fine again in 207",
]
WITHDRAWN = [
    "never mind",
    "Never mind, they found it.",
    "belay that",
    "scratch that, wrong room",
    "cancel that, we're good",
    "okay, disregard my last",
    "cancel the cab for 513",
    "we don't need the chairs any more",
    "bring a fan to 340, no, never mind, it works",
]
WANTED = [
    "never mind the fan, 340 needs a heater",
    "scratch that, 460 needs towels",
    "don't forget the cot for 618",
    "cancel the cab for 513 and bring their bags up",
    "towels to 416, scratch that, 460",
    "they do not want to wait for towels",
]


def opinion(**chances: float) -> Opinion:
    names = sorted(HOTEL.departments)
    even = dict.fromkeys(names, 1.0 / len(names))
    return Opinion(
        intent={**dict.fromkeys(sorted(HOTEL.intents), 0.0), **chances},
        department=even,
        urgency={"normal": 1.0},
        danger=0.0,
        usual=dict.fromkeys(HOTEL.intents, even),
    )


@pytest.mark.parametrize("text", LIVE)
def test_live_work_is_no_finished_job_however_sure_the_model_is(text: str) -> None:
    decided = decide(HOTEL, READER.read(text), opinion(task_done=0.9, repair=0.06, cleaning=0.04))
    assert decided.intent == "repair"
    assert decided.confidence == pytest.approx(0.6)


@pytest.mark.parametrize("text", FINISHED)
def test_finished_jobs_stay_finished(text: str) -> None:
    decided = decide(HOTEL, READER.read(text), opinion(task_done=0.9, repair=0.1))
    assert (decided.intent, decided.confidence) == ("task_done", 0.9)


@pytest.mark.parametrize("text", WITHDRAWN)
def test_a_withdrawal_is_no_work_for_anybody(text: str) -> None:
    decided = decide(HOTEL, READER.read(text), opinion(request_item=0.9, transport=0.1))
    assert (decided.intent, decided.department) == ("chatter", HOTEL.nobody)
    assert not HOTEL.opens_task(decided.intent)


@pytest.mark.parametrize("text", WANTED)
def test_what_is_asked_beside_a_withdrawal_stays_asked(text: str) -> None:
    assert decide(HOTEL, READER.read(text), opinion(request_item=0.9, transport=0.1)).intent == "request_item"


def test_danger_stands_above_withdrawals_and_negations() -> None:
    alarmed = Opinion(
        intent={"emergency": 0.9, "task_done": 0.1},
        department={"security": 1.0},
        urgency={},
        danger=0.9,
        usual={name: {"security": 1.0} for name in HOTEL.intents},
    )
    for text in ("never mind", "the fire isn't out, nothing is done"):
        assert decide(HOTEL, READER.read(text), alarmed).intent == "emergency"


def test_a_model_that_knows_nothing_else_falls_back_to_unclear() -> None:
    decided = decide(HOTEL, READER.read("never came"), opinion(task_done=1.0))
    assert decided.intent == HOTEL.unclear


def test_a_report_taken_up_with_but_is_not_sure_enough_to_close() -> None:
    report = Decided(intent="task_done", department="none", urgency="low", confidence=0.97)
    assert doubted(HOTEL, report).confidence == DOUBTED < CLOSING_CONFIDENCE
    asked = Decided(intent="repair", department="engineering", urgency="normal", confidence=0.97)
    assert doubted(HOTEL, asked) == asked


@pytest.mark.parametrize(
    ("text", "contrast", "same"),
    [
        ("done with 413 but the tap drips", True, True),
        ("done with 413, though the tap drips", True, True),
        ("413 is done, but 414 needs a mop", True, False),
        ("413 is done and the tap drips", False, True),
    ],
)
def test_but_about_the_same_room_is_a_doubt(text: str, *, contrast: bool, same: bool) -> None:
    [cut] = candidates(text, READER)
    (a, b), (c, d) = pieces(text, [cut])
    assert contrasts(text, cut) == contrast
    assert same_rooms(READER.read(text[a:b]), READER.read(text[c:d])) == same


@pytest.mark.parametrize(
    "text",
    [
        "towels to 412 because they ran out",
        "fan to 412, he's been asking all day",
        "fan to 412, they start in ten minutes",
        "chairs to the boardroom, so they can sit down",
        "bring a fan to 412, no never mind that",
    ],
)
def test_reasons_and_withdrawals_are_not_cut_off(text: str) -> None:
    assert candidates(text, READER) == []


def test_a_request_behind_a_reason_is_still_a_place_to_cut() -> None:
    text = "fan to 412, he's been asking all day, and send a mop to the lobby"
    assert [text[cut.end :] for cut in candidates(text, READER)] == ["send a mop to the lobby"]


@pytest.mark.parametrize(
    ("left", "right", "asks"),
    [
        ("towels to 412", "bring a mop to the lobby", True),
        ("towels to 412", "414 has no heat", True),
        ("412 has no heat", "the tub drips too", True),
        ("towels to 412", "the bride is here", False),
        ("the lock in 412 blinks", "it needs a new battery", False),
        ("the lock in 412 blinks", "the guest needs a cot", True),
        ("towels to 412", "it's a mess in 412", False),
    ],
)
def test_a_request_says_so_or_names_another_room(left: str, right: str, *, asks: bool) -> None:
    assert asks_anew(READER.read(left), READER.read(right)) == asks


def test_a_part_of_a_room_is_not_another_place() -> None:
    assert not READER.elsewhere(READER.read("the bathroom fan rattles"))
    assert READER.elsewhere(READER.read("the lobby is wet"))
    assert READER.elsewhere(READER.read("the lobby bathroom is wet"))


def test_the_call_centre_takes_back_too() -> None:
    reader = Reader(CALLS)
    assert reader.read("never mind, I found it").settled == {"greeting"}
    assert reader.read("never mind the bill, cancel my service").settled == set()
