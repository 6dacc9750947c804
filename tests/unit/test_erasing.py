"""What an erasure means: ids, names as words; and whatever comes late, what was erased is never seen again."""

from collections.abc import Iterator, Sequence

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool
from tests.support.dashboard_site import found, heard, insight
from tests.support.examples import examples

from quickcomm.contracts.conversations import ConversationChanged, Ledger
from quickcomm.contracts.decisions import ArchiveDecision, Decision, TaskBefore, TaskDecision
from quickcomm.contracts.erasing import MAX_IDS, EraseDashboard, Scope, Wanted
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.summaries import ConversationSummarized
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.erasing import erase_in
from quickcomm.dashboard.adapters.history import write
from quickcomm.dashboard.adapters.parameters import wanted
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.adapters.tables import closings, conversations, decisions, erased, rooms, tasks, utterances
from quickcomm.dashboard.model.decisions import without_erased
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.erasing.reading import has_name, is_erased, is_meant, mentions
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.storage import migrate

SECRET = "zanzibar"
START = 16_000
Message = UtteranceTranscribed | InsightsFound | ConversationSummarized | Decision | ConversationChanged


@pytest.mark.parametrize(
    ("text", "is_there"),
    [
        ("Maria Lopez needs towels", True),
        ("ask maria  lopez", True),
        ("maria-lopez", True),
        ("Mariana Lopez", False),
        ("maria lopezia", False),
        ("maria and lopez", False),
        ("", False),
    ],
)
def test_a_name_is_words_and_not_a_part_of_one(text: str, *, is_there: bool) -> None:
    assert mentions(text, "Maria Lopez") is is_there
    assert has_name(msgspec.json.encode({"text": text}), "maria lopez") is is_there


def test_only_fields_with_words_of_people_count() -> None:
    assert not has_name(b'{"intent":"repair","site":"rose"}', "rose")
    assert not has_name(b'{"rose":1}', "rose")
    assert has_name(b'{"what":{"assignee":"Rose"}}', "rose")
    assert has_name(b'{"insights":[{"summary":"Call Ren\\u00e9"}]}', "ren\u00e9")


def test_what_a_message_is_about() -> None:
    scope = Scope(conversations=("whole",), utterances=("part:0:16000",))
    said = msgspec.json.encode(heard(START, "x", conversation="part"))
    assert is_erased(said, "part", scope)
    assert not is_erased(msgspec.json.encode(heard(2 * START, "x", conversation="part")), "part", scope)
    assert is_erased(msgspec.json.encode(heard(9 * START, "x", conversation="whole")), "whole", scope)
    assert not is_erased(msgspec.json.encode(heard(9 * START, "x", conversation="whole", site="b")), "whole", scope)
    assert is_erased(msgspec.json.encode(summary("part")), "part", scope), "it has words of all that was said"
    assert not is_erased(msgspec.json.encode(ended("whole")), "whole", scope), "its end has none"
    closed = Decision(
        site="main",
        decision_id="d",
        epoch=1,
        version=1,
        at_ns=1,
        what=ArchiveDecision(
            conversation_id="part",
            tasks=(TaskBefore(task_id="part:0:16000:0", status="open", assignee="Rose", version=1),),
        ),
    )
    assert is_erased(msgspec.json.encode(closed), "main:archive:part", scope), "it names whose task it was"
    without = without_erased(closed, lambda each: each == "part:0:16000")
    assert not is_erased(msgspec.json.encode(without), "main:archive:part", scope)
    assert is_erased(b"broken", "whole", scope)
    assert is_erased(b"broken", "part", scope), "nobody knows what it is about"
    assert not is_erased(b"broken", "other", scope)


def test_who_is_meant() -> None:
    message = heard(START, "tell Rose")
    payload = msgspec.json.encode(message)
    assert is_meant(payload, Wanted(name="rose")) == message.utterance_id
    assert is_meant(payload, Wanted(name="rosa")) is None
    at = message.spoken_at_ns
    assert is_meant(payload, Wanted(since_ns=at, until_ns=at + 1)) == message.utterance_id
    assert is_meant(payload, Wanted(since_ns=at + 1, until_ns=at + 2)) is None
    assert is_meant(payload, Wanted(site="other", name="rose")) is None


def test_one_of_the_three() -> None:
    assert Wanted(conversation="c").is_one
    assert Wanted(since_ns=1, until_ns=2).is_one
    assert not Wanted().is_one
    assert not Wanted(name="  ").is_one
    assert not Wanted(since_ns=2, until_ns=1).is_one
    assert not Wanted(conversation="c", name="n").is_one


def test_scopes_are_joined_and_cut_into_parts() -> None:
    one = Scope(conversations=("c",)).joined(Scope(utterances=("c:0:1", "d:0:1")))
    assert one == Scope(conversations=("c",), utterances=("d:0:1",))
    many = Scope(conversations=("c",), utterances=tuple(f"d:0:{number}" for number in range(MAX_IDS)))
    first, second = many.parts()
    assert len(first.utterances) + len(first.conversations) == MAX_IDS
    assert first.joined(second) == many.joined(Scope())
    assert Scope().parts() == []


# -- never visible again ----------------------------------------------------------------------------------------------


def summary(conversation: str, revision: int = 1, at_ns: int = 1) -> ConversationSummarized:
    return ConversationSummarized(
        site="main",
        conversation_id=conversation,
        channel="housekeeping",
        revision=revision,
        text=f"About {SECRET}.",
        source="local",
        utterances=1,
        at_ns=at_ns,
    )


def ended(conversation: str) -> ConversationChanged:
    return ConversationChanged(
        site="main",
        conversation_id=conversation,
        channel="housekeeping",
        state="ended",
        sample_rate=16_000,
        speakers=1,
        ledgers=(Ledger(received=1, silence=1),),
        at_ns=2,
    )


def decided(utterance: UtteranceTranscribed) -> Decision:
    what = TaskDecision(
        task_id=f"{utterance.utterance_id}:0",
        utterance_id=utterance.utterance_id,
        insight_index=0,
        channel="housekeeping",
        status="acknowledged",
        intent="request_item",
        department="housekeeping",
        urgency="normal",
        rooms=("412",),
        summary=f"Bring {SECRET}",
        assignee="Ada",
        created_ns=1,
    )
    return Decision(site="main", decision_id="d", epoch=1, version=1, at_ns=1, what=what)


SPOKEN = [
    heard(place * START, f"{SECRET} {place}", conversation=name) for name in ("whole", "part") for place in range(2)
]
KEPT = "part:0:16000"
SCOPE = Scope(conversations=("whole",), utterances=("part:0:0",))
MESSAGES: Sequence[Message] = [
    *SPOKEN,
    *(
        found(each, insight("request_item", "412", summary=f"Bring {SECRET}"), revision=number)
        for each in SPOKEN
        for number in (1, 2)
    ),
    *map(decided, SPOKEN),
    *(summary(name, revision) for name in ("whole", "part") for revision in (1, 2)),
    *map(ended, ("whole", "part")),
]
ERASE = EraseDashboard(erasure="e", at_ns=10, scope=SCOPE)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    migrate(engine, "dashboard", MIGRATIONS)
    yield engine
    engine.dispose()


def apply(connection: Connection, message: Message) -> None:
    projector = Projector(SqlState(connection))
    match message:
        case UtteranceTranscribed():
            projector.transcript(message)
        case InsightsFound():
            projector.insights(message)
        case ConversationSummarized():
            projector.summary(message)
        case ConversationChanged():
            projector.conversation(message)
        case Decision():
            projector.decision(message)
    projector.finish()


def visible(connection: Connection) -> set[str]:
    """Return the ids of utterances that any table has."""
    tables = (utterances, tasks, closings, decisions)
    return {name for table in tables for name in connection.execute(sa.select(table.c.utterance_id)).scalars()}


def indexed(connection: Connection) -> int:
    query = sa.text("SELECT count(*) FROM dashboard_fts WHERE dashboard_fts MATCH :word")
    return int(connection.execute(query, {"word": SECRET}).scalar_one())


def copied(connection: Connection) -> list[tuple[str, list[dict[str, object]]]]:
    """Return all rows as a copier reads them."""
    return [
        (name, [dict(row._mapping) for row in connection.execute(sa.select(table))])
        for name, table in (
            ("decisions", decisions),
            ("tasks", tasks),
            ("closings", closings),
            ("utterances", utterances),
            ("conversations", conversations),
        )
    ]


@given(
    before=st.lists(st.sampled_from(MESSAGES), max_size=25),
    after=st.lists(st.sampled_from(MESSAGES), max_size=25),
    again=st.booleans(),
    copies=st.booleans(),
)
@examples(60)
def test_what_was_erased_is_never_visible_again(
    engine: Engine, before: list[Message], after: list[Message], *, again: bool, copies: bool
) -> None:
    """Whatever was known before, whatever comes late or is replayed, and whatever a copier had read before."""
    with engine.connect() as connection, connection.begin() as transaction:
        for message in before:
            apply(connection, message)
        rows = copied(connection)
        erase_in(connection, ERASE)
        if again:
            assert not any(erase_in(connection, ERASE).values()), "there is nothing more"
        for place, message in enumerate(after):
            if copies and place == len(after) // 2:
                for name, read in rows:
                    write(connection, name, [dict(row) for row in read], 0.5)
            apply(connection, message)
        assert visible(connection) <= {KEPT}
        assert indexed(connection) <= 1
        about = connection.execute(sa.select(conversations.c.conversation_id, conversations.c.summary)).all()
        assert all(text == "" for _, text in about)
        owners = set(connection.execute(sa.select(rooms.c.owner)).scalars())
        assert all(owner.startswith(KEPT) for owner in owners)
        counted = connection.execute(sa.select(sa.func.coalesce(sa.func.sum(conversations.c.utterances), 0))).scalar()
        is_heard = utterances.c.heard
        assert counted == connection.execute(sa.select(sa.func.count()).where(is_heard)).scalar()
        assert connection.execute(sa.select(sa.func.count()).select_from(erased)).scalar() == 2
        transaction.rollback()


def test_a_later_summary_is_shown(engine: Engine) -> None:
    """It was made of what is left."""
    with engine.connect() as connection, connection.begin() as transaction:
        for message in MESSAGES:
            apply(connection, message)
        erase_in(connection, ERASE)
        apply(connection, summary("part", 1, at_ns=11))
        apply(connection, summary("whole", 3, at_ns=11))
        query = sa.select(conversations.c.conversation_id).where(conversations.c.summary != "")
        assert connection.execute(query).scalars().all() == ["part"]
        assert visible(connection) == {KEPT}
        transaction.rollback()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "one of the three"),
        ({"conversation": "c", "name": "n"}, "one of the three"),
        ({"name": " "}, "one of the three"),
        ({"name": "..."}, "one of the three"),
        ({"conversation": "c", "until": "2026-05-01T00:00:00Z"}, "one of the three"),
        ({"until": "2026-05-01T00:00:00Z"}, "before `until`"),
        ({"since": "2026-05-02T00:00:00Z", "until": "2026-05-01T00:00:00Z"}, "before `until`"),
        ({"since": "2026-05-02T00:00:00Z", "until": "1970-01-01T00:00:00Z"}, "before `until`"),
        ({"since": "yesterday"}, "`since`"),
        ({"conversation": "a\x00"}, "no text"),
    ],
)
def test_a_request_that_is_not_clear_erases_nothing(asked: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        wanted("main", asked, FakeClock())


def test_a_request_stands_for_one_of_three() -> None:
    clock = FakeClock()
    assert wanted("main", {"name": " Maria  Lopez "}, clock) == Wanted(name="Maria  Lopez")
    assert wanted("east", {"conversation": "c"}, clock) == Wanted(site="east", conversation="c")
    since = wanted("main", {"since": "1970-01-01T00:00:01Z"}, clock)
    assert (since.since_ns, since.until_ns) == (10**9, clock.now_ns())
