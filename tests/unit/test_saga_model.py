"""Whatever is lost, doubled, late or killed in an operation, it ends in all or nothing. Planted bugs are found."""

from collections import Counter
from typing import Final, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from tests.support.sagas import Trip, trip

from quickcomm.kernel.errors import ConfigurationError, ConflictError
from quickcomm.kernel.saga import Operation, Progress, Step, digest
from quickcomm.kernel.saga.definition import key_of
from quickcomm.kernel.saga.progress import (
    begun,
    compensating,
    did,
    failed,
    next_turn,
    not_undone,
    resumed,
    undid,
    view,
)

Bug = Literal["", "no key", "undo twice", "early answer", "no refusal", "late record"]
REPLY: Final = msgspec.Raw(b'{"number":1}')
SETTINGS: Final = settings(
    max_examples=100,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


class Modules:
    """What the modules of a site keep: effects and keys, changed together or not at all."""

    def __init__(self, bug: Bug = "") -> None:
        self.effects: Counter[str] = Counter()
        self.keys: dict[str, str] = {}
        self.refused: set[str] = set()
        """Steps that a module refuses for what they ask: today, and when they come again."""
        self.uncommitted: list[tuple[str, str]] = []
        self._bug = bug

    def do(self, key: str, name: str) -> bool:
        """Return False where the step is refused: it was taken back."""
        if key in self.refused or (self.keys.get(key) == "undone" and self._bug != "no refusal"):
            return False
        if self.keys.get(key) != "done" or self._bug == "no key":
            if self._bug == "early answer":
                self.uncommitted.append((key, name))
            else:
                self._have(key, name)
        return True

    def undo(self, key: str, name: str) -> None:
        if self.keys.get(key) == "done" or (self._bug == "undo twice" and self.keys.get(key)):
            self.effects[name] -= 1
        self.keys[key] = "undone"

    def commit(self) -> None:
        for key, name in self.uncommitted:
            self._have(key, name)
        self.uncommitted.clear()

    def crash(self) -> None:
        self.uncommitted.clear()

    def _have(self, key: str, name: str) -> None:
        self.effects[name] += 1
        self.keys[key] = "done"


class OperationMachine(RuleBasedStateMachine):
    """`stands`: how it stands; `recorded`: what is left of that by a crash. Commands may come late, and again.

    The executor records when it likes, but always before it takes something back, and what an operator decided.
    """

    bug: Bug = ""

    def __init__(self) -> None:
        super().__init__()
        self.modules = Modules(self.bug)
        self.sent: list[tuple[str, Step, bool]] = []
        self.now = 1

    @initialize(told_stays=st.booleans(), flight_stays=st.booleans())
    def begin(self, *, told_stays: bool, flight_stays: bool) -> None:
        self.operation: Operation = trip(
            told_stays="Said is said." if told_stays else "", flight_stays="No refund." if flight_stays else ""
        )
        self.stands: Progress = begun(self.operation, "trip-1", "main", "ada", Trip(who="ada"), 0)
        self.recorded = self.stands

    @precondition(lambda self: next_turn(self.operation, self.stands) is not None)
    @rule(outcome=st.sampled_from(["answered", "killed", "lost", "gave up before", "gave up after", "refused"]))
    def turn(self, outcome: str) -> None:
        """The executor sends the next command; `killed`, `lost`: it does not learn or record what came of it."""
        turn = next_turn(self.operation, self.stands)
        assert turn is not None
        key = key_of(self.stands.id, turn.step)
        self.sent.append((key, turn.step, turn.back))
        self.now += 1
        if outcome == "lost":
            return
        if outcome == "refused":
            if self.modules.keys.get(key) != "done":  # what was done before is answered, not refused
                if not turn.back:
                    self.modules.refused.add(key)
                self.failed(turn.step, back=turn.back, refused=True)
            return
        if outcome == "gave up before":
            self.failed(turn.step, back=turn.back)
            return
        accepted = self.deliver(key, turn.step, back=turn.back)
        if outcome == "killed":
            self.executor_is_killed()
            return
        if outcome == "gave up after":
            self.failed(turn.step, back=turn.back)
        elif not accepted:
            self.failed(turn.step, back=turn.back, refused=True)
        elif turn.back:
            self.stands = undid(self.operation, self.stands, turn.step, self.now)
            self.executor_records()
        else:
            self.stands = did(self.operation, self.stands, turn.step, REPLY, self.now)

    @precondition(lambda self: bool(self.sent))
    @rule(which=st.integers(min_value=0))
    def late(self, which: int) -> None:
        """A command that was sent arrives once more, or only now."""
        key, step, back = self.sent[which % len(self.sent)]
        self.deliver(key, step, back=back)

    @rule()
    def executor_records(self) -> None:
        self.recorded = self.stands

    @rule()
    def executor_is_killed(self) -> None:
        self.stands = self.recorded

    @rule()
    def module_is_killed(self) -> None:
        self.modules.crash()

    @rule()
    def module_commits(self) -> None:
        self.modules.commit()

    @precondition(lambda self: self.stands.status == "parked")
    @rule()
    def operator_resumes(self) -> None:
        self.now += 1
        self.stands = resumed(self.stands, "grace", self.now)
        self.executor_records()

    @precondition(lambda self: self.stands.status == "parked")
    @rule()
    def operator_takes_back(self) -> None:
        self.now += 1
        self.stands = compensating(self.operation, self.stands, "grace", self.now)
        self.executor_records()

    def teardown(self) -> None:
        """All is well from now on: it comes to an end. Then everything that is still under way arrives."""
        if not hasattr(self, "operation"):
            return
        self.modules.crash()
        for look in range(20):
            if self.stands.status == "parked" and look < 3:
                self.operator_resumes()
            elif self.stands.status == "parked":  # it is refused for good
                self.operator_takes_back()
            if next_turn(self.operation, self.stands) is None:
                break
            self.turn("answered")
        assert self.stands.over
        for key, step, back in sorted(self.sent, key=lambda sent: not sent[2]):  # what is too late last
            self.deliver(key, step, back=back)
        self.modules.crash()
        self.check()

    def check(self) -> None:
        """All effects once, or none but those whose staying the history tells."""
        kept = {event.step for event in self.stands.history if event.what == "kept"}
        for step in self.operation.steps:
            count = self.modules.effects[step.name]
            if self.stands.status == "done":
                assert count == 1, f"{step.name} has its effect {count} times"
            elif step.undo is not None:
                assert count == 0, f"{step.name} was taken back, and has its effect {count} times"
            elif step.name in kept:
                assert count in (0, 1)
            else:
                assert count == 0, f"{step.name} stays, and the history does not say so"
        told = view(self.operation, self.stands)
        assert told.status == self.stands.status
        assert told.history

    def deliver(self, key: str, step: Step, *, back: bool) -> bool:
        if back:
            self.modules.undo(key, step.name)
            return True
        return self.modules.do(key, step.name)

    def failed(self, step: Step, *, back: bool, refused: bool = False) -> None:
        self.now += 1
        if back:
            self.stands = not_undone(self.stands, step, "away", self.now)
        else:
            self.stands = failed(self.operation, self.stands, step, "no", self.now, refused=refused)
        if self.bug != "late record":
            self.executor_records()


def test_it_ends_in_all_or_nothing() -> None:
    run_state_machine_as_test(OperationMachine, settings=SETTINGS)


@pytest.mark.parametrize("planted", ["no key", "undo twice", "early answer", "no refusal", "late record"])
def test_a_planted_bug_is_found(planted: Bug) -> None:
    class Planted(OperationMachine):
        bug = planted

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Planted, settings=settings(SETTINGS, print_blob=False, report_multiple_bugs=False))


def test_what_cannot_be_taken_back_parks_it_and_nothing_is_undone() -> None:
    operation = trip(flight_stays="No refund.")
    progress = begun(operation, "one", "main", "ada", Trip(who="ada"), 0)
    for step in operation.steps[:2]:
        progress = did(operation, progress, step, REPLY, 1)
    progress = failed(operation, progress, operation.steps[2], "the phone is off", 2, refused=True)
    told = view(operation, progress)
    assert (told.status, told.step, told.why) == ("parked", "tell", "the phone is off")
    assert [event.what for event in told.history] == ["started", "done", "done", "failed", "parked"]
    progress = compensating(operation, progress, "grace", 3)
    kept = [event for event in progress.history if event.what == "kept"]
    assert [(event.step, event.text) for event in kept] == [("flight", "No refund.")]


@pytest.mark.parametrize("decided", [True, False])
def test_where_taking_back_failed_it_goes_on_with_that(*, decided: bool) -> None:
    operation = trip(flight_stays="No refund.")
    progress = begun(operation, "one", "main", "ada", Trip(who="ada"), 0)
    progress = did(operation, progress, operation.steps[0], REPLY, 1)
    progress = failed(operation, progress, operation.steps[1], "sold out", 2, refused=not decided)
    if decided:
        assert progress.status == "parked"
        progress = compensating(operation, progress, "grace", 3)
    progress = not_undone(progress, operation.steps[0], "away", 4)
    assert view(operation, progress).back
    assert resumed(progress, "grace", 5).status == "compensating"


def test_only_a_parked_one_can_be_resumed_or_taken_back() -> None:
    operation = trip()
    progress = begun(operation, "one", "main", "ada", Trip(who="ada"), 0)
    with pytest.raises(ConflictError, match="running"):
        resumed(progress, "grace", 1)
    with pytest.raises(ConflictError, match="running"):
        compensating(operation, progress, "grace", 1)


def test_the_history_is_bounded_and_keeps_its_beginning() -> None:
    operation = trip(told_stays="Said.")
    progress = begun(operation, "one", "main", "ada", Trip(who="ada"), 0)
    for at in range(300):
        progress = failed(operation, progress, operation.steps[2], "away", at, refused=False)
        progress = resumed(progress, "grace", at)
    assert len(progress.history) == 200
    assert progress.history[0].what == "started"
    assert progress.events == 901


def test_a_definition_needs_a_compensation_or_a_reason() -> None:
    step = trip().steps[0]
    with pytest.raises(ConfigurationError, match="compensation"):
        Operation(name="x", input=Trip, subject=str, steps=(msgspec.structs.replace(step, undoes=None, undo=None),))
    with pytest.raises(ConfigurationError, match="one name"):
        Operation(name="x", input=Trip, subject=str, steps=(step, step))


def test_the_digest_changes_with_a_definition() -> None:
    operation = trip()
    assert digest([operation]) == digest([trip()])
    other = msgspec.structs.replace(operation, steps=operation.steps[::-1])
    assert digest([other]) != digest([operation])
    assert digest([trip(told_stays="Said.")]) != digest([operation])
