"""Whatever way messages come — any order, any number of times, in any batches — the cards end up the same."""

from collections.abc import Iterator, Sequence

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool
from tests.support.examples import examples

from quickcomm.contracts.conversations import ConversationChanged, ConversationState, Ledger
from quickcomm.contracts.insight import CLOSING_CONFIDENCE, TASK_DONE, Insight, Source
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.summaries import ConversationSummarized
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.adapters.tables import conversations, utterances
from quickcomm.dashboard.model.edits import Action, Edit
from quickcomm.dashboard.model.projections import with_summary
from quickcomm.dashboard.model.records import Closing, TaskRecord
from quickcomm.dashboard.model.views import Conversation, card_view, conversation_view, rfc3339
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.storage import migrate

Message = UtteranceTranscribed | InsightsFound | ConversationChanged
SECOND = 10**9
START = 1_760_000_000 * SECOND
ROOMS = ("411", "412", "413")
STATES: tuple[ConversationState, ...] = ("live", "interrupted", "ended")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    migrate(engine, "dashboard", MIGRATIONS)
    yield engine
    engine.dispose()


def heard(place: int, second: int, *, conversation: int = 0, channel: str = "hk") -> UtteranceTranscribed:
    at_ns = START + second * SECOND
    return UtteranceTranscribed(
        site="main",
        conversation_id=f"c{conversation}",
        utterance_id=f"c{conversation}:0:{place}",
        channel=channel,
        speaker=0,
        seq=1,
        start_offset=place,
        end_offset=place + 1,
        sample_rate=16_000,
        text=f"words {place}",
        words=(),
        confidence=1.0,
        stt_model="test",
        spoken_at_ns=at_ns - 1,
        speech_ended_ns=at_ns,
        published_ns=at_ns,
        latency=Latency(stt=1.0),
    )


def insight(
    index: int,
    intent: str,
    rooms: Sequence[str] = (),
    department: str = "housekeeping",
    *,
    confidence: float = 1.0,
    source: Source = "local",
) -> Insight:
    return Insight(
        index=index,
        intent=intent,
        department=department,
        urgency="normal",
        rooms=tuple(rooms),
        summary=f"{intent} {' '.join(rooms)}",
        confidence=confidence,
        source=source,
        model="test",
    )


def found(transcript: UtteranceTranscribed, insights: Sequence[Insight], revision: int = 1) -> InsightsFound:
    return InsightsFound(
        site="main",
        conversation_id=transcript.conversation_id,
        utterance_id=transcript.utterance_id,
        revision=revision,
        insights=tuple(insights),
        opens_tasks=tuple(each.index for each in insights if each.intent == "cleaning"),
        speech_ended_ns=transcript.speech_ended_ns,
        published_ns=transcript.published_ns,
        latency=Latency(queue=1.0),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """What was said in two conversations, with renewed insights and the life of the conversations."""
    messages: list[Message] = []
    for place in range(draw(st.integers(1, 7))):
        transcript = heard(place, draw(st.integers(0, 5)), conversation=draw(st.integers(0, 1)))
        messages.append(transcript)
        for revision in range(1, draw(st.integers(1, 3)) + 1):
            kinds = draw(
                st.lists(st.sampled_from(["cleaning", "cleaning", TASK_DONE, "chatter"]), min_size=1, max_size=3)
            )
            insights = [
                insight(
                    index,
                    kind,
                    sorted(draw(st.sets(st.sampled_from(ROOMS), max_size=2))),
                    draw(st.sampled_from(["housekeeping", "engineering"])),
                    confidence=draw(st.sampled_from([0.32, CLOSING_CONFIDENCE, 1.0])),
                )
                for index, kind in enumerate(kinds)
            ]
            messages.append(found(transcript, insights, revision))
    for moment, state in enumerate(draw(st.lists(st.sampled_from(STATES), max_size=3))):
        messages.append(
            ConversationChanged(
                site="main",
                conversation_id="c0",
                channel="hk",
                state=state,
                sample_rate=16_000,
                speakers=1,
                ledgers=(Ledger(received=moment, silence=moment),),
                at_ns=START + moment * SECOND,
                continues=None if moment else "c-before",
            )
        )
    return messages


def apply(connection: Connection, messages: Sequence[Message]) -> None:
    state = SqlState(connection)
    projector = Projector(state)
    for message in messages:
        if isinstance(message, UtteranceTranscribed):
            projector.transcript(message)
        elif isinstance(message, InsightsFound):
            projector.insights(message)
        else:
            projector.conversation(message)
    Decider(projector, state, START).settle()
    projector.finish()


def picture(connection: Connection) -> tuple[dict[str, object], dict[str, object]]:
    """All cards and conversations, but for the numbers that tell of the way and not of the end."""
    state = SqlState(connection)
    cards = {}
    for (utterance_id,) in connection.execute(sa.select(utterances.c.utterance_id)).all():
        record = state.utterance("main", utterance_id)
        assert record is not None
        tasks = tuple(msgspec.structs.replace(task, version=0) for task in state.tasks_of("main", utterance_id))
        cards[utterance_id] = msgspec.structs.replace(card_view(record, tasks), change=0)
    talks = {}
    for (conversation_id,) in connection.execute(sa.select(conversations.c.conversation_id)).all():
        talk = state.conversation("main", conversation_id)
        assert talk is not None
        talks[conversation_id] = msgspec.structs.replace(conversation_view(talk), change=0)
    return dict(cards), dict(talks)


def outcome(engine: Engine, batches: Sequence[Sequence[Message]]) -> tuple[dict[str, object], dict[str, object]]:
    with engine.connect() as connection:
        for batch in batches:
            apply(connection, batch)
        result = picture(connection)
        connection.rollback()
    return result


@examples(40)
@given(data=st.data(), history=histories())
def test_order_and_repetition_do_not_matter(engine: Engine, data: st.DataObject, history: list[Message]) -> None:
    expected = outcome(engine, [history])
    again = data.draw(st.lists(st.sampled_from(history), max_size=5))
    shuffled = data.draw(st.permutations(history + again))
    cut = data.draw(st.integers(0, len(shuffled)))
    assert outcome(engine, [shuffled[:cut], shuffled[cut:]]) == expected


@examples(40)
@given(data=st.data(), history=histories())
def test_closings_are_as_if_heard_in_order(engine: Engine, data: st.DataObject, history: list[Message]) -> None:
    """Against a plain retelling of the day: everything in the order spoken, each with its last revision."""
    cards, _ = outcome(engine, [data.draw(st.permutations(history))])
    closed = {
        task.task_id: task.completed_by_utterance
        for card in cards.values()
        for task in card.tasks  # type: ignore[attr-defined]
    }
    assert closed == retell(history)


def retell(history: Sequence[Message]) -> dict[str, str | None]:
    spoken = {message.utterance_id: message for message in history if isinstance(message, UtteranceTranscribed)}
    final: dict[str, InsightsFound] = {}
    for message in history:
        if isinstance(message, InsightsFound):
            final[message.utterance_id] = message  # revisions are in order here
    steps = sorted(
        (
            (spoken[utterance_id].speech_ended_ns, utterance_id, each.index, each)
            for utterance_id, message in final.items()
            for each in message.insights
        ),
        key=lambda step: step[:3],
    )
    tasks: list[tuple[int, str, Insight]] = []
    closed: dict[str, str | None] = {}
    for at_ns, utterance_id, index, each in steps:
        if each.intent == "cleaning":
            tasks.append((at_ns, utterance_id, each))
            closed[f"{utterance_id}:{index}"] = None
        elif each.intent == TASK_DONE and each.confidence >= CLOSING_CONFIDENCE:
            fitting = [
                (other.department == each.department, created, other_id, other.index)
                for created, other_id, other in tasks
                if set(other.rooms) & set(each.rooms)
                and other_id != utterance_id
                and closed[f"{other_id}:{other.index}"] is None
            ]
            if fitting:
                *_, other_id, other_index = max(fitting)
                closed[f"{other_id}:{other_index}"] = utterance_id
    return closed


class Desk:
    """One transaction with somebody at the desk."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.state = SqlState(connection)

    def say(self, transcript: UtteranceTranscribed, *insights: Insight, revision: int = 1) -> None:
        apply(self.connection, [transcript, found(transcript, insights, revision)])

    def edit(self, task_id: str, action: Action, *, second: int, assignee: str | None = None) -> TaskRecord:
        projector = Projector(self.state)
        decider = Decider(projector, self.state, START + second * SECOND)
        task = decider.edit("main", task_id, Edit(action=action, by="Ann", assignee=assignee))
        projector.finish()
        return task

    def task(self, task_id: str) -> TaskRecord:
        task = self.state.task("main", task_id)
        assert task is not None
        return task

    def closing(self, utterance_id: str) -> Closing:
        return self.state.closings_of("main", utterance_id)[0]


@pytest.fixture
def desk(engine: Engine) -> Iterator[Desk]:
    with engine.connect() as connection:
        yield Desk(connection)
        connection.rollback()


def test_a_closing_without_room_needs_one_acknowledged_task(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["411"]))
    desk.say(heard(1, 1), insight(0, "cleaning", ["412"]))
    desk.say(heard(2, 2), insight(0, TASK_DONE))
    assert {desk.task("c0:0:0:0").status, desk.task("c0:0:1:0").status} == {"open"}
    desk.edit("c0:0:0:0", "acknowledge", second=3)
    desk.say(heard(3, 4), insight(0, TASK_DONE))
    assert desk.task("c0:0:0:0").completed_by_utterance == "c0:0:3"
    assert desk.task("c0:0:1:0").status == "open"


def test_a_closing_without_room_is_no_guess_between_two(desk: Desk) -> None:
    for place, room in enumerate(("411", "412")):
        desk.say(heard(place, place), insight(0, "cleaning", [room]))
        desk.edit(f"c0:0:{place}:0", "acknowledge", second=2)
    desk.say(heard(3, 4), insight(0, TASK_DONE))
    assert {desk.task("c0:0:0:0").status, desk.task("c0:0:1:0").status} == {"acknowledged"}


def test_what_a_person_reopened_is_not_closed_again_and_nothing_else_instead(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    desk.say(heard(1, 1), insight(0, "cleaning", ["412"]))
    desk.say(heard(2, 2), insight(0, TASK_DONE, ["412"]))
    assert desk.task("c0:0:1:0").status == "done"
    desk.edit("c0:0:1:0", "reopen", second=10)
    desk.say(heard(2, 2), insight(0, TASK_DONE, ["412"]), revision=2)
    desk.say(heard(9, 0, conversation=1), insight(0, "cleaning", ["412"]))  # comes late, was said before
    assert {task.status for task in desk.state.tasks_in_rooms("main", ["412"], 0, 0)} == {"open"}
    desk.say(heard(4, 11), insight(0, TASK_DONE, ["412"]))
    assert desk.task("c0:0:1:0").completed_by_utterance == "c0:0:4"


def test_a_renewed_closing_does_not_close_twice(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    desk.say(heard(1, 1), insight(0, "cleaning", ["412"]))
    desk.say(heard(2, 2), insight(0, TASK_DONE, ["412"]))
    desk.say(heard(2, 2), insight(0, TASK_DONE, ["412"], "engineering"), revision=2)
    assert [task.status for task in desk.state.tasks_in_rooms("main", ["412"], 0, 0)] == ["open", "done"]


def test_a_closing_taken_back_by_a_later_revision_opens_the_task_again(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    desk.edit("c0:0:0:0", "acknowledge", second=1)
    desk.say(heard(2, 2), insight(0, TASK_DONE, ["412"]))
    assert desk.task("c0:0:0:0").status == "done"
    desk.say(heard(2, 2), insight(0, "chatter"), revision=2)
    assert desk.task("c0:0:0:0").status == "acknowledged"


@pytest.mark.parametrize("source", ["local", "llm"])
def test_a_report_that_is_not_sure_closes_nothing_and_keeps_its_card(desk: Desk, source: Source) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    desk.say(heard(2, 2), insight(0, TASK_DONE, ["412"], confidence=0.32, source=source))
    assert desk.task("c0:0:0:0").status == "open"
    assert desk.state.closings_of("main", "c0:0:2") == []
    record = desk.state.utterance("main", "c0:0:2")
    assert record is not None
    card = card_view(record, ())
    assert [(one.intent, one.confidence) for one in card.insights or ()] == [(TASK_DONE, 0.32)]


def test_a_report_that_is_not_sure_closes_no_acknowledged_task_of_its_channel(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    desk.edit("c0:0:0:0", "acknowledge", second=1)
    desk.say(heard(2, 2), insight(0, TASK_DONE, confidence=0.32))
    assert desk.task("c0:0:0:0").status == "acknowledged"


def test_the_newest_revision_decides_how_sure_a_report_is(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    for revision, confidence, status in ((1, 0.32, "open"), (2, 0.9, "done"), (3, 0.32, "open")):
        desk.say(heard(2, 2), insight(0, TASK_DONE, ["412"], confidence=confidence), revision=revision)
        assert desk.task("c0:0:0:0").status == status


def test_only_the_sure_one_of_two_reports_closes(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["411"]))
    desk.say(heard(1, 1), insight(0, "cleaning", ["412"]))
    sure, unsure = insight(0, TASK_DONE, ["411"]), insight(1, TASK_DONE, ["412"], confidence=0.5)
    desk.say(heard(2, 2), sure, unsure)
    assert [desk.task(f"c0:0:{place}:0").status for place in (0, 1)] == ["done", "open"]


def test_yesterdays_tasks_are_not_closed_by_voice(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    desk.say(heard(1, 25 * 3600), insight(0, TASK_DONE, ["412"]))
    assert desk.task("c0:0:0:0").status == "open"
    assert desk.closing("c0:0:1").task_id is None


def test_a_renewed_insight_changes_what_to_do_but_not_what_people_did(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]), insight(1, "cleaning", ["413"]))
    desk.edit("c0:0:0:0", "assign", second=1, assignee="Maria")
    desk.edit("c0:0:0:0", "complete", second=2)
    desk.say(heard(0, 0), insight(0, "cleaning", ["411"], "engineering"), revision=2)
    task = desk.task("c0:0:0:0")
    assert (task.status, task.assignee, task.completed_by) == ("done", "Maria", "Ann")
    assert (task.rooms, task.department) == (("411",), "engineering")
    assert desk.state.task("main", "c0:0:0:1") is None  # nobody had touched it


def test_a_person_cannot_acknowledge_what_is_done(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    first = desk.edit("c0:0:0:0", "complete", second=1)
    assert desk.edit("c0:0:0:0", "complete", second=2) == first
    with pytest.raises(ConflictError):
        desk.edit("c0:0:0:0", "acknowledge", second=3)


def test_seen_twice_moves_no_change_number(desk: Desk) -> None:
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    before = desk.state.next_change("main")
    desk.say(heard(0, 0), insight(0, "cleaning", ["412"]))
    assert desk.state.next_change("main") == before + 1


@pytest.mark.parametrize(
    ("states", "since"),
    [
        (["live", "interrupted"], 1),
        (["live", "interrupted", "expired"], 1),
        (["interrupted", "live"], None),
        (["interrupted", "live", "expired"], None),
        (["live", "interrupted", "ended"], None),
    ],
)
def test_it_is_known_since_when_a_client_is_away(
    engine: Engine, states: list[ConversationState], since: int | None
) -> None:
    told = [
        ConversationChanged(
            site="main",
            conversation_id="c0",
            channel="hk",
            state=state,
            sample_rate=16_000,
            speakers=1,
            ledgers=(Ledger(),),
            at_ns=START + moment * SECOND,
        )
        for moment, state in enumerate(states)
    ]
    for order in (told, told[::-1]):
        [talk] = outcome(engine, [order])[1].values()
        assert isinstance(talk, Conversation)
        assert talk.unreachable_since == (None if since is None else rfc3339(START + since * SECOND))


def test_a_summary_that_comes_first_leaves_no_trace_in_when_somebody_spoke() -> None:
    summary = ConversationSummarized(
        site="main",
        conversation_id="c",
        channel="one",
        text="Towels.",
        source="local",
        revision=1,
        at_ns=9 * SECOND,
        utterances=1,
    )
    assert with_summary(None, summary).last_spoken_ns == 0
