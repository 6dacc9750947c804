"""The committed demo shift agrees with itself, its scorer counts right, held-back phrases are well formed."""

from collections import Counter
from importlib.resources import as_file
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import soundfile

from quickcomm.contracts.insight import Insight
from quickcomm.demo_shift import ExpectedInsight, Shift, ShiftChannel, ShiftUtterance, audio_file, load_shift
from quickcomm.demo_shift.score import Outcome, edit_distance, percentile, room_numbers, score, word_edits, words_of

RATE = 16_000
INTENTS = {
    "hospitality": "request_item cleaning repair room_status complaint lost_found transport food_order emergency "
    "staffing task_done acknowledge chatter unclear",
    "callcentre": "billing_question payment outage technical_fault cancel_service change_plan complaint "
    "callback_request fraud_report emergency greeting unclear",
}
DEPARTMENTS = {
    "hospitality": "housekeeping engineering front_desk food_beverage security guest_services management none",
    "callcentre": "billing technical retention fraud emergency_line none",
}
LEAST = {"hospitality": (320, 14), "callcentre": (60, 4)}
PHRASES = Path(__file__).parents[1] / "data" / "phrases"


class Phrase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str
    insights: tuple[ExpectedInsight, ...]


@pytest.fixture(scope="module")
def shift() -> Shift:
    return load_shift()


def expected(shift: Shift) -> list[ShiftUtterance]:
    return [one for channel in shift.channels for one in channel.utterances]


def perfect(shift: Shift) -> list[Outcome]:
    return [
        Outcome(
            channel=channel.channel,
            start_offset=round(one.start_s * RATE) - 1_600,
            end_offset=round(one.end_s * RATE) + 1_600,
            sample_rate=RATE,
            text=one.text,
            insights=tuple(given(insight, place) for place, insight in enumerate(one.insights)),
            latency_total_ms=800.0,
        )
        for channel in shift.channels
        for one in channel.utterances
    ]


def given(insight: ExpectedInsight, place: int = 0) -> Insight:
    return Insight(
        index=place,
        intent=insight.intent,
        department=insight.department,
        urgency=insight.urgency,
        rooms=insight.rooms,
        items=insight.items,
        summary="A summary",
        confidence=0.9,
        model="test",
    )


def test_recordings_exist_and_last_as_long_as_the_shift(shift: Shift) -> None:
    size = 0
    for channel in shift.channels:
        with as_file(audio_file(channel)) as path:
            facts = soundfile.info(str(path))
            size += path.stat().st_size
        assert (facts.samplerate, facts.channels, facts.format) == (RATE, 1, "FLAC")
        assert facts.duration == pytest.approx(shift.duration_s)
    assert size <= 3_000_000


def test_utterances_are_where_the_labels_say(shift: Shift) -> None:
    for channel in shift.channels:
        with as_file(audio_file(channel)) as path:
            track, _ = soundfile.read(str(path), dtype="float32")
        power = track**2
        for one in channel.utterances:
            spoken = power[round(one.start_s * RATE) : round(one.end_s * RATE)]
            assert spoken.mean() > 1e-3, one.text
        silent = power[round((channel.utterances[-1].end_s + 1.0) * RATE) :]
        assert silent.max() == 0.0


def test_the_shift_has_what_a_demo_must_show(shift: Shift) -> None:
    said = expected(shift)
    intents = Counter(insight.intent for one in said for insight in one.insights)
    assert 25 <= len(said) <= 40
    assert len(shift.channels) == 4
    assert intents["emergency"] == 1
    assert all((i.urgency == "critical") == (i.intent == "emergency") for one in said for i in one.insights)
    assert [len(one.insights) for one in said].count(2) == 1
    assert max(len(one.insights) for one in said) == 2
    assert len({one.voice for one in said}) >= 3
    assert len({one.speaker_name for one in said}) >= 6
    assert 2 <= sum(one.noisy for one in said) <= 4


def test_a_completion_closes_an_earlier_request_on_its_channel(shift: Shift) -> None:
    channel = next(one for one in shift.channels if one.channel == "housekeeping")
    request = next(one for one in channel.utterances if one.insights[0].intent == "request_item")
    done = next(one for one in channel.utterances if one.insights[0].intent == "task_done")
    assert request.insights[0].rooms == done.insights[0].rooms == ("412",)
    assert request.end_s < done.start_s


def test_people_pause_on_a_channel_and_channels_talk_over_each_other(shift: Shift) -> None:
    for channel in shift.channels:
        assert all(after.start_s - before.end_s >= 1.2 for before, after in pairwise(channel.utterances))
        assert channel.utterances[0].start_s > 0
        assert channel.utterances[-1].end_s < shift.duration_s
    pairs = [(a, b) for a in shift.channels for b in shift.channels if a.channel < b.channel]
    overlaps = sum(
        one.start_s < other.end_s and other.start_s < one.end_s
        for a, b in pairs
        for one in a.utterances
        for other in b.utterances
    )
    assert overlaps >= 8


def test_labels_use_the_contract_s_words_and_rooms_that_are_in_the_text(shift: Shift) -> None:
    for one in expected(shift):
        for insight in one.insights:
            assert insight.intent in INTENTS["hospitality"].split()
            assert insight.department in DEPARTMENTS["hospitality"].split()
            assert set(insight.rooms) <= room_numbers(one.text)


def test_a_perfect_run_scores_full_marks(shift: Shift) -> None:
    result = score(shift, perfect(shift))
    assert (result.matched, result.extra) == (result.utterances, 0)
    assert (result.word_error_rate, result.rooms_exact) == (0.0, 1.0)
    assert (result.emergencies, result.emergencies_found, result.false_emergencies) == (1, 1, 0)
    assert (result.intents_right, result.departments_right) == (1.0, 1.0)
    assert (result.latency_p50_ms, result.latency_p95_ms) == (800.0, 800.0)


def test_silence_scores_nothing(shift: Shift) -> None:
    result = score(shift, [])
    assert (result.matched, result.emergencies_found, result.false_emergencies) == (0, 0, 0)
    assert (result.word_error_rate, result.rooms_exact, result.intents_right) == (1.0, 0.0, 0.0)
    assert result.latency_p50_ms is None


SAID = ShiftUtterance(
    start_s=1.0,
    end_s=4.0,
    voice="v",
    speaker_name="n",
    text="412 needs two towels",
    insights=(
        ExpectedInsight(intent="request_item", department="housekeeping", urgency="normal", rooms=("412",)),
        ExpectedInsight(intent="repair", department="engineering", urgency="normal", rooms=("415",)),
    ),
)
SMALL = Shift(
    title="t",
    duration_s=10.0,
    licence="l",
    attribution=(),
    channels=(ShiftChannel(channel="one", file="one.flac", utterances=(SAID,)),),
)


def outcome(start_s: float, end_s: float, text: str, *insights: ExpectedInsight, channel: str = "one") -> Outcome:
    return Outcome(
        channel=channel,
        start_offset=int(start_s * 8_000),
        end_offset=int(end_s * 8_000),
        sample_rate=8_000,
        text=text,
        insights=tuple(given(insight, place) for place, insight in enumerate(insights)),
        latency_total_ms=start_s * 100,
    )


def test_pieces_of_one_utterance_are_joined_in_order() -> None:
    first, second = SAID.insights
    pieces = [outcome(2.5, 4.2, "two towels", second), outcome(0.9, 2.4, "412 needs", first)]
    result = score(SMALL, pieces)
    assert (result.matched, result.extra, result.word_error_rate) == (1, 0, 0.0)
    assert (result.rooms_exact, result.intents_right) == (1.0, 1.0)


def test_a_wrong_room_department_and_one_insight_too_many_cost() -> None:
    wrong = ExpectedInsight(intent="request_item", department="security", urgency="normal", rooms=("421",))
    result = score(SMALL, [outcome(1.0, 4.0, "421 needs two towels", wrong, SAID.insights[1], SAID.insights[1])])
    assert result.word_error_rate == pytest.approx(1 / 4)
    assert result.rooms_exact == 0.0
    assert result.intents_right == pytest.approx(2 / 3)
    assert result.departments_right == pytest.approx(1 / 3)


def test_what_nobody_said_is_extra_and_may_be_a_false_alarm() -> None:
    alarm = ExpectedInsight(intent="emergency", department="security", urgency="critical")
    heard = [outcome(1.0, 4.0, SAID.text, *SAID.insights), outcome(6.0, 7.0, "fire", alarm)]
    result = score(SMALL, [*heard, outcome(1.0, 4.0, "hello", channel="elsewhere")])
    assert (result.matched, result.extra, result.false_emergencies) == (1, 2, 1)
    assert result.word_error_rate == pytest.approx(2 / 4)
    assert result.intents_right == pytest.approx(2 / 3)


def test_words_are_compared_without_case_punctuation_and_number_style() -> None:
    assert words_of("It's on the Third floor, twelve o'clock!") == ["its", "on", "the", "3rd", "floor", "12", "oclock"]
    assert word_edits("1105 needs two towels", "1,105 needs 2 towels.") == (0, 4)
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3
    assert room_numbers("4-12 and 1,105 at 9 or 44713") == {"412", "1105"}


def test_percentiles_are_nearest_rank() -> None:
    assert percentile([30.0, 10.0, 20.0], 0.5) == 20.0
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0
    assert percentile([], 0.5) is None


@pytest.mark.parametrize("pack", ["hospitality", "callcentre"])
def test_held_back_phrases_are_well_formed_and_cover_the_pack(pack: str) -> None:
    lines = (PHRASES / f"{pack}.jsonl").read_bytes().splitlines()
    phrases = [msgspec.json.decode(line, type=Phrase) for line in lines]
    intents = Counter(insight.intent for phrase in phrases for insight in phrase.insights)
    least, each = LEAST[pack]
    assert len(phrases) >= least
    assert len({phrase.text.lower() for phrase in phrases}) == len(phrases)
    assert set(intents) == set(INTENTS[pack].split())
    assert min(intents.values()) >= each
    for phrase in phrases:
        assert phrase.insights
        for insight in phrase.insights:
            assert insight.department in DEPARTMENTS[pack].split()
            assert (insight.urgency == "critical") == (insight.intent == "emergency"), phrase.text
