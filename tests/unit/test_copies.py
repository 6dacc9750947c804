"""One transmission, one card: what is a copy of what, whichever message comes first, and what is none."""

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool
from tests.support.dashboard_site import START_NS, found, heard, insight
from tests.support.examples import examples

from quickcomm.contracts.insight import Insight, Item
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.model.copies import Said, first_of, words_of
from quickcomm.dashboard.model.copies import said as said_by
from quickcomm.dashboard.model.edits import Edit
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import Applied
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.storage import migrate

MS = 1_000_000
Message = UtteranceTranscribed | InsightsFound


def said(text: str, at_ms: int = 0, *, lasts: int = 2000, line: str = "a", channel: str = "one", **more: Any) -> Said:
    return Said(
        utterance_id=f"{line}:{more.get('speaker', 0)}:{at_ms}",
        conversation_id=line,
        speaker=more.pop("speaker", 0),
        channel=channel,
        started_ns=at_ms * MS,
        ended_ns=(at_ms + lasts) * MS,
        words=words_of(text),
        rooms=frozenset(more.pop("rooms", ())),
        things=frozenset(more.pop("things", ())),
        acts=frozenset(more.pop("acts", ())),
        **more,
    )


def is_copy(one: Said, other: Said) -> bool:
    """Return True if the second is a copy of the first, and not the other way round."""
    assert first_of(one, [one, other]) is None
    return first_of(other, [other, one]) == one.utterance_id


TOWELS: dict[str, Any] = {"rooms": ["412"], "acts": ["request_item"]}
FIRE: dict[str, Any] = {"acts": ["emergency"], "critical": True}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (said("Two towels to 412.", **TOWELS), said("Two towels to 412.", 300, line="b", **TOWELS)),
        (said("Two towels to 412.", **TOWELS), said("Two towels to 412.", 300, line="b", channel="two", **TOWELS)),
        (said("Two towels to 412.", **TOWELS), said("Two tarles to fort wells.", 300, line="b")),
        (said("Fire in the laundry!", **FIRE), said("Fire in the laundry", 900, line="b", channel="two", **FIRE)),
        (said("Fire in the laundry!", **FIRE), said("Fire in the foundry", 40, speaker=1, **FIRE)),
        (said("412 is done.", rooms=["412"], acts=["task_done"]),
         said("412 is done.", 250, line="b", rooms=["412"], acts=["task_done"])),
        # Noise hides the begin of the second one.
        (said("Housekeeping, please send two extra bath towels to room 412.", lasts=4000, **TOWELS),
         said("2 extra bath towels to rim 412.", 1850, lasts=2300, line="b", channel="two", **TOWELS)),
        (said("Housekeeping, please send two extra bath towels to room 412.", lasts=4000, **TOWELS),
         said("2 extra bath towels, the room for 12.", 1850, lasts=2300, line="b", channel="two",
              acts=["request_item"])),
        (said("We need towels in 412 right now please", lasts=4000, **TOWELS),
         said("right now please", 2600, lasts=1500, line="b")),
    ],
)  # fmt: skip
def test_one_transmission_heard_twice_is_a_copy(one: Said, other: Said) -> None:
    assert is_copy(one, other)


def test_the_one_that_says_more_is_the_first_though_it_is_later() -> None:
    noisy = said("Two towels to for wealth.", acts=["request_item"])
    clear = said("Two towels to 412.", 300, line="b", **TOWELS)
    assert is_copy(clear, noisy)
    calm, alarmed = said("Smoke in the laundry room"), said("Smoke in the laundry room", 300, line="b", **FIRE)
    assert is_copy(alarmed, calm)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # The same person says it again, or a second one reads it back.
        (said("Fire in the laundry", **FIRE), said("Fire in the laundry", 5000, **FIRE)),
        (said("Fire in the laundry", **FIRE), said("Fire in the laundry", 5000, line="b", **FIRE)),
        (said("Two towels to 412.", **TOWELS), said("Two towels to 412.", 2600, line="b", channel="two", **TOWELS)),
        # Two people report one fire, each in words of his own.
        (said("There is a fire in the laundry", **FIRE),
         said("The laundry is burning, send security", 300, line="b", channel="two", **FIRE)),
        # Two people want the same thing somewhere else.
        (said("Two towels to 412.", **TOWELS),
         said("Two towels to 421.", 300, line="b", channel="two", rooms=["421"], acts=["request_item"])),
        (said("Two towels to 412.", things=["towel"], **TOWELS),
         said("Two pillows to 412.", 300, line="b", channel="two", things=["pillow"], **TOWELS)),
        # Two people have finished at the same moment, and nobody says where.
        (said("All done.", lasts=800, acts=["task_done"]),
         said("All done.", 200, lasts=800, line="b", channel="two", acts=["task_done"])),
        # Both speakers of a call talk at once, a second apart.
        (said("Okay, thank you."), said("Okay, thank you.", 900, speaker=1)),
        # The second hears more than the first.
        (said("Two towels to 412.", **TOWELS),
         said("Two towels to 412. And the shower leaks.", 300, line="b", rooms=["412"],
              acts=["request_item", "repair"])),
    ],
)  # fmt: skip
def test_what_is_said_again_or_by_another_is_no_copy(one: Said, other: Said) -> None:
    assert first_of(other, [one]) is None


@st.composite
def crowds(draw: st.DrawFn) -> list[Said]:
    texts = ["two towels to 412 please", "two towels to 412", "to 412 please", "fire in the laundry room"]
    return [
        said(
            draw(st.sampled_from(texts)),
            draw(st.integers(0, 20)) * 100,
            lasts=draw(st.integers(5, 30)) * 100,
            line=f"line-{index}",
            rooms=draw(st.sampled_from([[], ["412"], ["412", "413"]])),
            acts=draw(st.sampled_from([[], ["request_item"], ["task_done"], ["request_item", "repair"]])),
            critical=draw(st.booleans()),
        )
        for index in range(draw(st.integers(1, 6)))
    ]


@given(crowds())
def test_every_copy_has_a_first_that_says_all_of_it(crowd: list[Said]) -> None:
    by_id = {one.utterance_id: one for one in crowd}
    for one in crowd:
        first = first_of(one, crowd)
        seen = {one.utterance_id}
        while first is not None:
            assert first not in seen
            seen.add(first)
            assert by_id[first].rooms >= one.rooms
            assert by_id[first].critical >= one.critical
            first = first_of(by_id[first], crowd)


def test_what_is_sent_at_once_and_again_later_is_no_copy() -> None:
    """A recording that comes in a moment lasts no longer: what it says again is said again."""
    one, other = said("Smoke in 430!", lasts=20, **FIRE), said("Smoke in 430!", 900, lasts=20, line="b", **FIRE)
    assert first_of(other, [one]) is None


@given(st.text(), st.text(), st.sampled_from([0, 300]))
def test_no_text_breaks_it(one: str, other: str, later: int) -> None:
    first_of(said(other, later, line="b"), [said(one)])
    assert first_of(said(f"412 {one}", later, line="b"), [said(f"412 {one}")]) in {None, "a:0:0"}


def test_a_thing_is_compared_by_its_noun() -> None:
    one = told("a", "two extra bath towels to 412", with_items("extra bath towels"))
    other = told("b", "two bath towel to 412", with_items("bath towel"), ms=300)
    things = []
    for transcript, answer in (one, other):
        assert isinstance(transcript, UtteranceTranscribed)
        assert isinstance(answer, InsightsFound)
        things.append(said_by(transcript, answer, 0.5).things)
    assert things == [frozenset({"towel"})] * 2


# -- the projector ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    migrate(engine, "dashboard", MIGRATIONS)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection
        connection.rollback()


def told(line: str, text: str, *insights: Insight, ms: int = 0, channel: str = "one") -> tuple[Message, Message]:
    transcript = heard(ms * 16, text, conversation=line, channel=channel)
    opens = any(each.intent != "task_done" for each in insights)
    return transcript, found(transcript, *insights, opens=opens)


def apply(connection: Connection, *messages: Message) -> Applied:
    state = SqlState(connection)
    projector = Projector(state)
    for message in messages:
        if isinstance(message, UtteranceTranscribed):
            projector.transcript(message)
        else:
            projector.insights(message)
    Decider(projector, state, START_NS).settle()
    return projector.finish()


def relations(connection: Connection) -> dict[str, str | None]:
    return dict(connection.exec_driver_sql("SELECT conversation_id, copy_of FROM dashboard_utterances").fetchall())


def tasks(connection: Connection) -> dict[str, str]:
    return dict(connection.exec_driver_sql("SELECT task_id, status FROM dashboard_tasks").fetchall())


def with_items(*names: str) -> Insight:
    return msgspec.structs.replace(insight("request_item", "412"), items=tuple(Item(name=name) for name in names))


ONE = told("a", "Two towels to 412.", insight("request_item", "412"))
TWO = told("b", "Two towels to 412", insight("request_item", "412"), ms=300, channel="two")
DONE_ONE = told("c", "412 is done.", insight("task_done", "412"), ms=9000)
DONE_TWO = told("d", "412 is done.", insight("task_done", "412"), ms=9200, channel="two")


@pytest.mark.parametrize("order", list(permutations([*ONE, *TWO])))
def test_the_relation_is_the_same_whichever_message_is_first(connection: Connection, order: Sequence[Message]) -> None:
    for message in order:
        apply(connection, message)
    apply(connection, *order)
    assert relations(connection) == {"a": None, "b": "a:0:0"}
    assert tasks(connection) == {"a:0:0:0": "open"}


@examples(40)
@given(
    order=st.permutations([*ONE, *TWO, *DONE_ONE, *DONE_TWO]),
    again=st.lists(st.sampled_from([*ONE, *TWO, *DONE_ONE, *DONE_TWO]), max_size=4),
    cut=st.integers(0, 12),
)
def test_done_leaves_nothing_open_in_any_order(
    engine: Engine, order: list[Message], again: list[Message], cut: int
) -> None:
    messages = [*order, *again]
    with engine.connect() as connection:
        apply(connection, *messages[:cut])
        apply(connection, *messages[cut:])
        assert tasks(connection) == {"a:0:0:0": "done"}
        assert relations(connection) == {"a": None, "b": "a:0:0", "c": None, "d": "c:0:144000"}
        connection.rollback()


def test_both_cards_change_and_the_first_names_its_copy(connection: Connection) -> None:
    apply(connection, *ONE)
    applied = apply(connection, *TWO)
    assert [record.utterance_id for record, _ in applied.cards] == ["b:0:4800", "a:0:0"]
    assert [copy.utterance_id for copy in applied.copies["main", "a:0:0"]] == ["b:0:4800"]
    assert apply(connection, *TWO).cards == []


def test_a_renewed_insight_may_part_them_again(connection: Connection) -> None:
    apply(connection, *ONE, *TWO)
    assert isinstance(TWO[1], InsightsFound)
    other = msgspec.structs.replace(TWO[1], revision=2, insights=(insight("request_item", "421"),))
    apply(connection, other)
    assert relations(connection) == {"a": None, "b": None}
    assert len(tasks(connection)) == 2
    back = msgspec.structs.replace(TWO[1], revision=3)
    apply(connection, back)
    assert tasks(connection) == {"a:0:0:0": "open"}


def test_the_better_copy_takes_the_task_over(connection: Connection) -> None:
    apply(connection, *told("a", "Two towels to for wealth", insight("request_item")))
    assert tasks(connection) == {"a:0:0:0": "open"}
    apply(connection, *TWO)
    assert relations(connection) == {"a": "b:0:4800", "b": None}
    assert tasks(connection) == {"b:0:4800:0": "open"}


def test_work_that_a_person_has_touched_stays(connection: Connection) -> None:
    apply(connection, *told("a", "Two towels to for wealth", insight("request_item")))
    state = SqlState(connection)
    projector = Projector(state)
    Decider(projector, state, START_NS).edit("main", "a:0:0:0", Edit(action="acknowledge", by="Ann"))
    projector.finish()
    apply(connection, *TWO)
    assert tasks(connection) == {"a:0:0:0": "acknowledged", "b:0:4800:0": "open"}
