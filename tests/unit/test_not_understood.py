"""What is not understood is shown to a person, and opens no work."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.talking import spoken

from quickcomm.audio.ports import Transcript
from quickcomm.audio.service.utterance import LEAST_CONFIDENCE, LEAST_VOICED, understood
from quickcomm.contracts.insight import Evidence, Insight
from quickcomm.contracts.transcripts import Status
from quickcomm.dashboard.model.records import UtteranceRecord
from quickcomm.dashboard.model.views import card_view
from quickcomm.intelligence.model import talk
from quickcomm.intelligence.ports import Heard
from quickcomm.intelligence.service.doubting import UNCONFIRMED, Doubting
from quickcomm.intelligence.service.understanding import Context
from quickcomm.kernel.site_pack import load_pack

PACK = load_pack("hospitality")
SURE, UNSURE = 0.8, 0.2


@pytest.mark.parametrize(
    ("transcript", "voiced", "status"),
    [
        (Transcript(text=""), LEAST_VOICED - 1, None),
        (Transcript(text=""), LEAST_VOICED, "unintelligible"),
        (Transcript(text="", foreign=True), LEAST_VOICED, "not_english"),
        (Transcript(text="", foreign=True), LEAST_VOICED - 1, None),
        (Transcript(text="and the evil, boy", confidence=UNSURE), 5, "low_confidence"),
        (Transcript(text="in that coffee", confidence=SURE, foreign=True), 5, "not_english"),
        (Transcript(text="Copy.", confidence=LEAST_CONFIDENCE), 5, "ok"),
        (Transcript(text="Copy."), 5, "ok"),
    ],
)
def test_how_far_a_transcript_can_be_relied_on(transcript: Transcript, voiced: int, status: Status | None) -> None:
    assert understood(transcript, voiced) == status


class Scripted:
    """Answers each text as the test says, and notes what it was asked."""

    def __init__(self, name: str, answers: dict[str, tuple[Insight, ...]] | None = None) -> None:
        self.model = name
        self.answers = answers or {}
        self.asked: list[str] = []

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        self.asked += [one.text for one in heard]
        return [self.answers.get(one.text, (insight("repair", one.text),)) for one in heard]


def insight(intent: str, summary: str, *, rooms: tuple[str, ...] = (), urgency: tuple[str, ...] = ()) -> Insight:
    return Insight(
        index=0,
        intent=intent,
        department="security" if intent == "emergency" else "engineering",
        urgency="critical" if intent == "emergency" else "normal",
        rooms=rooms,
        summary=summary[:80],
        confidence=0.97,
        model="scripted",
        evidence=Evidence(rooms=rooms, urgency=urgency),
    )


async def test_a_guess_opens_no_task_names_no_room_and_goes_to_no_language_model() -> None:
    local = Scripted("local", {"nine 412": (insight("repair", "Fix 412", rooms=("412",)),)})
    model = Scripted("model")
    doubting = Doubting(model, local, PACK)
    clear, guess = Heard(text="the boiler leaks"), Heard(text="nine 412", doubtful=True, certain=("412",))
    answers = await doubting.classify([guess, clear, guess])
    assert model.asked == ["the boiler leaks"]
    assert answers[1][0].summary == "the boiler leaks"
    for [one] in (answers[0], answers[2]):
        assert (one.intent, one.rooms, one.items, one.urgency) == (PACK.unclear, (), (), "low")
        assert not PACK.opens_task(one.intent)


@pytest.mark.parametrize(
    ("certain", "intent"),
    [(("fire,", "the"), "emergency"), (("There", "is", "a"), "unclear"), ((), "unclear"), (("fired",), "unclear")],
)
async def test_only_a_danger_in_words_that_were_heard_clearly_is_an_emergency(
    certain: tuple[str, ...], intent: str
) -> None:
    text = "There is a fire, 412"
    danger = insight("emergency", "Fire in 412", rooms=("412",), urgency=("There is a fire",))
    local = Scripted("local", {text: (danger,)})
    [[one]] = await Doubting(local, local, PACK).classify([Heard(text=text, doubtful=True, certain=certain)])
    assert one.intent == intent
    assert one.rooms == ()
    if intent == "emergency":
        assert one.urgency == "critical"
        assert one.confidence <= UNCONFIRMED
        assert "not confirmed" in one.summary
        assert one.evidence.urgency == ("There is a fire",)


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=5))
async def test_whatever_was_cited_the_answer_is_one_valid_insight(cited: str, certain: list[str]) -> None:
    local = Scripted("local", {"x": (insight("emergency", "x", urgency=(cited,)),)})
    [[one]] = await Doubting(local, local, PACK).classify([Heard(text="x", doubtful=True, certain=tuple(certain))])
    assert msgspec.json.decode(msgspec.json.encode(one), type=Insight) == one


def test_a_guess_is_no_context_and_in_no_summary() -> None:
    guess = msgspec.structs.replace(spoken(1, "and the evil, boy"), status="low_confidence")
    context = Context()
    assert context.of(guess) == ()
    assert context.of(spoken(2, "copy")) == ()
    begun = talk.Talk(site="main", conversation_id="c", channel="housekeeping")
    after = talk.heard(begun, guess, talk.SummarySettings(), 1)
    assert after.lines == ()
    assert after.utterances == 1


@pytest.mark.parametrize("status", ["ok", "unintelligible", "not_english", "low_confidence"])
def test_a_card_says_how_far_its_words_can_be_relied_on(status: Status) -> None:
    message = msgspec.structs.replace(spoken(1, "x"), status=status)
    record = UtteranceRecord(site="main", utterance_id="c:0:1", conversation_id="c", heard=message)
    assert card_view(record, ()).status == status


def test_what_an_earlier_release_could_not_write_is_unintelligible() -> None:
    message = msgspec.structs.replace(spoken(1, ""), unintelligible=True)
    record = UtteranceRecord(site="main", utterance_id="c:0:1", conversation_id="c", heard=message)
    assert card_view(record, ()).status == "unintelligible"
