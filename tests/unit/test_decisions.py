"""Two sides of a site, one of which decides at a time: whatever happens, both end with the same tasks.

A model of the whole: messages and decisions come to each side in any order and any number of times, the side that
decides is killed between any two steps, and the lease moves. Projector, decider and database are the real ones.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool
from tests.support.examples import examples
from tests.unit.test_dashboard_projections import START, found, heard, insight

from quickcomm.contracts.correcting import AmendUtterance, RestoreUtterance, first_revision
from quickcomm.contracts.decisions import Decision, TextDecision
from quickcomm.contracts.insight import TASK_DONE
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.adapters.tables import changes, closings, conversations, decisions, rooms, tasks, utterances
from quickcomm.dashboard.model.changes import TaskChangedError
from quickcomm.dashboard.model.edits import Action, Edit
from quickcomm.dashboard.model.records import TaskRecord
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import StaleDecisionError
from quickcomm.dashboard.service.correcting import amend, propose, restore
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.errors import BusyError, ConflictError, NotFoundError
from quickcomm.kernel.storage import migrate

ACTIONS: tuple[Action, ...] = ("acknowledge", "complete", "assign", "reopen")
ROOMS = ("411", "412")
TABLES = (changes, closings, conversations, decisions, rooms, tasks, utterances)
Entry = UtteranceTranscribed | InsightsFound | Decision


class Log:
    """As the store keeps it: an append is taken from the side that has the lease, and only by versions not known."""

    def __init__(self) -> None:
        self.lease = (0, 1)
        self.entries: list[Decision] = []

    def append(self, side: int, epoch: int, made: Sequence[Decision]) -> None:
        known = {one.subject: one.version for one in self.entries}
        if self.lease != (side, epoch) or any(known.get(one.subject, 0) >= one.version for one in made):
            raise StaleDecisionError
        self.entries += made


class Side:
    """A dashboard with a database of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with engine.begin() as connection:
            for table in TABLES:
                connection.execute(table.delete())

    def take(self, entries: Iterable[Entry]) -> None:
        with self.engine.begin() as connection:
            projector = Projector(SqlState(connection))
            for entry in entries:
                _fold(projector, entry)
            projector.finish()

    def decide(self, work: Callable[[Decider], object], entries: Iterable[Entry], epoch: int) -> list[Decision]:
        """Decide in a transaction that is taken back."""
        with self.engine.connect() as connection:
            state = SqlState(connection)
            projector = Projector(state)
            for entry in entries:
                _fold(projector, entry)
            decider = Decider(projector, state, START + 1000 * 10**9, epoch)
            work(decider)
            connection.rollback()
        return list(decider.made.values())

    def tasks(self) -> list[TaskRecord]:
        with self.engine.connect() as connection:
            state = SqlState(connection)
            ids = connection.execute(sa.select(tasks.c.task_id).order_by(tasks.c.task_id)).scalars().all()
            return [task for task_id in ids if (task := state.task("main", task_id)) is not None]

    def picture(self) -> dict[str, list[tuple[object, ...]]]:
        """All that must be the same on every side."""
        with self.engine.connect() as connection:
            return {
                table.name: sorted(
                    (
                        tuple(row)
                        for row in connection.execute(
                            sa.select(*(each for each in table.c if each.name not in {"id", "change"}))
                        )
                    ),
                    key=repr,
                )
                for table in (tasks, closings, decisions, rooms, utterances)
            }


def _fold(projector: Projector, entry: Entry) -> None:
    if isinstance(entry, Decision):
        projector.decision(entry)
    elif isinstance(entry, UtteranceTranscribed):
        projector.transcript(entry)
    else:
        projector.insights(entry)


def _settle(*messages: UtteranceTranscribed | InsightsFound) -> Callable[[Decider], None]:
    def work(decider: Decider) -> None:
        for message in messages:
            decider.settle_utterance(message.site, message.utterance_id)

    return work


def _engine() -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    migrate(engine, "dashboard", MIGRATIONS)
    return engine


class TwoSides(RuleBasedStateMachine):
    engines: tuple[Engine, Engine]

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Side(engine) for engine in self.engines]
        self.log = Log()
        self.messages: list[UtteranceTranscribed | InsightsFound] = []
        self.spoken: dict[str, tuple[UtteranceTranscribed, int]] = {}
        self.undecided: list[UtteranceTranscribed | InsightsFound] = []
        self.answered: list[Decision] = []
        self.texts: list[tuple[UtteranceTranscribed, int]] = []

    @property
    def holder(self) -> Side:
        return self.sides[self.log.lease[0]]

    # -- what is said -----------------------------------------------------------------------------------------------

    @rule(
        place=st.integers(0, 5),
        kinds=st.lists(st.sampled_from(["cleaning", TASK_DONE, "chatter"]), min_size=1, max_size=2),
        where=st.lists(st.sampled_from([(), ("411",), ("412",), ROOMS]), min_size=2, max_size=2),
        channel=st.sampled_from(["hk", "security"]),
    )
    def say(self, place: int, kinds: list[str], where: list[tuple[str, ...]], channel: str) -> None:
        """A new utterance, or a new revision of one."""
        transcript, revision = self.spoken.get(str(place), (heard(place, place, channel=channel), 0))
        insights = [insight(index, kind, where[index]) for index, kind in enumerate(kinds)]
        self.spoken[str(place)] = (transcript, revision + 1)
        said: list[UtteranceTranscribed | InsightsFound] = [] if revision else [transcript]
        said.append(found(transcript, insights, revision + 1))
        self.messages += said
        self.undecided += said

    # -- how it comes ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.messages)
    @rule(data=st.data(), side=st.integers(0, 1))
    def take(self, data: st.DataObject, side: int) -> None:
        entries: list[Entry] = [*self.messages, *self.log.entries]
        self.sides[side].take(data.draw(st.lists(st.sampled_from(entries), min_size=1, max_size=4)))

    # -- decisions ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.undecided)
    @rule(data=st.data(), dies=st.sampled_from(["", "before", "after"]))
    def decide(self, data: st.DataObject, dies: str) -> None:
        """What is not acknowledged is decided again, by whoever has the lease then."""
        message = data.draw(st.sampled_from(self.undecided))
        side, epoch = self.log.lease
        self.sides[side].take([message])
        made = self.sides[side].decide(_settle(message), [], epoch)
        if dies == "before":
            return
        try:
            self.log.append(side, epoch, made)
        except StaleDecisionError:
            self.sides[side].take(self.log.entries)
            return
        if dies == "after":
            return
        self.sides[side].take(made)
        self.undecided.remove(message)

    @precondition(lambda self: self.holder.tasks())
    @rule(
        data=st.data(), action=st.sampled_from(ACTIONS), by=st.sampled_from(["Ann", "Bob"]), behind=st.integers(-1, 1)
    )
    def edit(self, data: st.DataObject, action: Action, by: str, behind: int) -> None:
        """`behind`: the person looks at an old page; -1 does not say what it looks at."""
        side, epoch = self.log.lease
        task = data.draw(st.sampled_from(self.holder.tasks()))
        expected = None if behind < 0 else max(0, task.version - behind)
        edit = Edit(action=action, by=by, assignee=by if action == "assign" else None, expected=expected)
        try:
            made = self.holder.decide(lambda decider: decider.edit("main", task.task_id, edit), [], epoch)
        except TaskChangedError:
            if behind <= 0 and task.status != "done":
                pytest.fail("It was not changed.")
            return
        try:
            self.log.append(side, epoch, made)
        except StaleDecisionError:
            return
        self.answered += made
        self.holder.take(made)

    @precondition(lambda self: self.spoken)
    @rule(data=st.data(), text=st.sampled_from(["clean 411", "clean 412"]))
    def propose(self, data: st.DataObject, text: str) -> None:
        transcript, _ = self.spoken[data.draw(st.sampled_from(sorted(self.spoken)))]
        numbers: list[int] = []
        if self._decide(lambda decider: numbers.append(propose(decider, "main", transcript.utterance_id, text, "Ann"))):
            self.texts.append((transcript, numbers[-1]))

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), back=st.booleans(), kind=st.sampled_from(["cleaning", TASK_DONE, "chatter"]))
    def correct(self, data: st.DataObject, kind: str, *, back: bool) -> None:
        """Put a text in force, and have it understood; or take it back."""
        transcript, number = data.draw(st.sampled_from(self.texts))
        about: dict[str, Any] = {"site": "main", "utterance_id": transcript.utterance_id, "number": number}
        if back:
            self._decide(lambda decider: restore(decider, RestoreUtterance(key="k", by="Ann", **about)))
        elif self._decide(lambda decider: amend(decider, AmendUtterance(key="k", by="Ann", **about))):
            message = found(transcript, [insight(0, kind, ["412"])], first_revision(number))
            self.messages.append(message)
            self.undecided.append(message)

    def _decide(self, work: Callable[[Decider], object]) -> bool:
        """Have the side with the lease decide; return False where nothing comes of it."""
        side, epoch = self.log.lease
        try:
            made = self.holder.decide(work, [], epoch)
            self.log.append(side, epoch, made)
        except (NotFoundError, ConflictError, BusyError):
            return False
        self.answered += made
        self.holder.take(made)
        return bool(made)

    @rule()
    def move_the_lease(self) -> None:
        side, epoch = self.log.lease
        self.log.lease = (1 - side, epoch + 1)

    # -- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        everything: list[Entry] = [*self.messages, *self.log.entries]
        self.holder.take(everything)
        for _ in range(20):
            side, epoch = self.log.lease
            made = self.holder.decide(_settle(*self.undecided), [], epoch)
            if not made:
                break
            self.log.append(side, epoch, made)
            self.holder.take(made)
        else:
            pytest.fail("It never comes to rest.")
        self.sides[1 - self.log.lease[0]].take(reversed([*self.messages, *self.log.entries]))
        assert self.sides[0].picture() == self.sides[1].picture()
        assert set(self.answered) <= set(self.log.entries)
        self._check_texts()
        versions: dict[str, list[tuple[int, int]]] = {}
        for one in self.log.entries:
            versions.setdefault(one.subject, []).append(one.order)
        for orders in versions.values():
            assert [version for _, version in orders] == list(range(1, len(orders) + 1))
            assert orders == sorted(orders)

    def _check_texts(self) -> None:
        """Of the texts in force the one with the highest number stands, with its insights or later ones of it."""
        newest = {one.subject: one.what for one in sorted(self.log.entries, key=lambda one: one.order)}
        texts = [what for what in newest.values() if isinstance(what, TextDecision) and what.state == "in_force"]
        standing = {what.utterance_id: what for what in sorted(texts, key=lambda one: one.number)}
        with self.holder.engine.connect() as connection:
            state = SqlState(connection)
            for transcript, _ in self.spoken.values():
                record = state.utterance("main", transcript.utterance_id)
                assert record is not None
                text = standing.get(transcript.utterance_id)
                assert record.text == (transcript.text if text is None else text.text)
                if text is not None and record.found is not None:
                    assert record.found.revision >= first_revision(text.number)


def test_both_sides_are_the_same_at_the_end() -> None:
    TwoSides.engines = (_engine(), _engine())
    try:
        run_state_machine_as_test(TwoSides, settings=examples(120, stateful_step_count=30))
    finally:
        for engine in TwoSides.engines:
            engine.dispose()


def test_what_a_person_decided_stays_though_the_side_never_saw_the_task() -> None:
    """A revision that drops the task comes to the other side before anything else."""
    engine, other = _engine(), _engine()
    one, two = Side(engine), Side(other)
    transcript = heard(0, 0)
    asked, dropped = found(transcript, [insight(0, "cleaning", ["412"])]), found(transcript, [insight(0, "chatter")], 2)
    one.take([transcript, asked])
    made = one.decide(
        lambda decider: decider.edit("main", "c0:0:0:0", Edit(action="acknowledge", by="Ann")),
        [],
        1,
    )
    one.take([*made, dropped])
    two.take([dropped, transcript, *made])
    assert one.picture() == two.picture()
    assert [(task.status, task.rooms, task.version) for task in two.tasks()] == [("acknowledged", ("412",), 1)]
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize(("by", "first"), [("Ann", "Ann completed it at"), ("Bob", "Ann completed it at")])
def test_who_comes_second_is_told_who_was_first(by: str, first: str) -> None:
    engine = _engine()
    side = Side(engine)
    transcript = heard(0, 0)
    side.take([transcript, found(transcript, [insight(0, "cleaning", ["412"])])])

    def edit(action: Action, person: str, assignee: str | None = None) -> None:
        wanted = Edit(action=action, by=person, assignee=assignee, expected=0)
        side.take(side.decide(lambda decider: decider.edit("main", "c0:0:0:0", wanted), [], 1))

    edit("complete", "Ann")
    edit("complete", "Ann")  # the answer was lost
    with pytest.raises(TaskChangedError, match=first) as caught:
        edit("assign", by, "Bob")
    assert caught.value.members["changed_by"] == "Ann"
    assert msgspec.to_builtins(caught.value.members["task"])["version"] == 1
    engine.dispose()
