"""How the site is on the page: what the instances tell, put together, and words for those that are away."""

import msgspec
import pytest

from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.link import InstanceStatus
from quickcomm.dashboard.service.overview import (
    AWAY_AFTER_S,
    HEARS,
    STALE_AFTER_S,
    UNDERSTANDS,
    Overview,
    away_code,
)
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.telemetry import Budget


class Board:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.overview = Overview(self.clock, Budget())

    def hears(self, number: int = 1, **status: object) -> None:
        self.overview.told(HEARS, f"audio-{number}", msgspec.convert(status, InstanceStatus))

    def understands(self, number: int = 1, **status: object) -> None:
        self.overview.told(UNDERSTANDS, f"intelligence-{number}", msgspec.convert(status, InstanceStatus))

    def codes(self, *own: Alarm) -> list[str]:
        self.overview.told("dashboard", "", InstanceStatus(alarms=own))
        return [alarm.code for alarm in self.overview.health((), None).alarms]


def alarm(code: str, since: str = "2026-01-01T00:00:00Z") -> Alarm:
    return Alarm(code=code, message="Something is wrong.", since=since)


def test_those_that_have_not_been_heard_yet_are_away_after_a_moment() -> None:
    board = Board()
    assert board.codes() == []
    board.clock.advance(AWAY_AFTER_S)
    assert board.codes() == ["audio.away", "intelligence.away"]
    assert board.overview.health((), None).status == "degraded"


def test_what_is_away_is_named_for_probes() -> None:
    board = Board()
    board.clock.advance(10)
    assert set(board.overview.away) == {HEARS, UNDERSTANDS}
    board.hears()
    assert set(board.overview.away) == {UNDERSTANDS}


@pytest.mark.parametrize("module", [HEARS, UNDERSTANDS])
def test_one_service_away_is_told_of_that_one(module: str) -> None:
    board = Board()
    board.clock.advance(AWAY_AFTER_S)
    for other in {HEARS, UNDERSTANDS} - {module}:
        board.overview.told(other, f"{other}-1", InstanceStatus())
    [told] = board.overview.health((), None).alarms
    assert told.code == away_code(module)
    assert f"The {module} service is away" in told.message


def test_a_process_that_is_replaced_is_nothing_to_alarm_people_for() -> None:
    board = Board()
    board.hears(sessions=3)
    board.overview.lost("audio-1")
    assert board.codes() == []
    assert board.overview.health((), None).sessions == 3
    board.hears(sessions=1)
    board.understands()
    board.clock.advance(AWAY_AFTER_S)
    assert board.codes() == []


def test_who_is_gone_or_hangs_is_away_and_comes_back_by_itself() -> None:
    board = Board()
    board.hears(sessions=3)
    board.understands(classifier={"model": "local"})
    board.clock.advance(STALE_AFTER_S)
    health = board.overview.health((), None)
    assert [each.code for each in health.alarms] == ["audio.away", "intelligence.away"]
    assert health.alarms[0].since == "2023-11-14T22:13:20.000Z"
    assert health.sessions == 0
    assert "away" in health.classifier.message
    board.hears(sessions=2)
    board.understands()
    health = board.overview.health((), None)
    assert (health.status, health.sessions, health.alarms) == ("ok", 2, ())


def test_what_runs_in_the_same_process_is_there_however_late_it_is() -> None:
    board = Board()
    for module in (HEARS, UNDERSTANDS):
        board.overview.told(module, "", InstanceStatus())
    board.clock.advance(10 * STALE_AFTER_S)
    assert board.codes() == []


def test_several_are_one() -> None:
    board = Board()
    board.hears(1, sessions=3, stt_backlog_s=1.5, alarms=[alarm("a", "2026-01-02")])
    board.hears(2, sessions=4, alarms=[alarm("a", "2026-01-01"), alarm("b")])
    degraded = ClassifierHealth(model="local", degraded=True, state="degraded")
    board.understands(1, classifier={"model": "llm", "state": "up"}, alarms=[alarm("c")])
    board.understands(2, classifier=degraded)
    board.overview.told("dashboard", "", InstanceStatus(alarms=(alarm("own"),)))
    health = board.overview.health((), "https://trace/{trace_id}")
    assert (health.sessions, health.stt_backlog_s) == (7, 1.5)
    assert [(each.code, each.since[:10]) for each in health.alarms] == [
        ("own", "2026-01-01"),
        ("a", "2026-01-01"),
        ("b", "2026-01-01"),
        ("c", "2026-01-01"),
    ]
    assert health.classifier == degraded
    assert health.trace_url == "https://trace/{trace_id}"


def test_the_budget_is_that_of_who_knows_the_model_as_far_as_it_is_understood() -> None:
    board = Board()
    budget = msgspec.to_builtins(Budget(classify=3_000))
    board.understands(budget={**budget, "of_a_later_version": 1.0})
    board.hears(budget=msgspec.to_builtins(Budget()))
    assert board.overview.budget == Budget(classify=3_000)
    board.overview.told(UNDERSTANDS, "intelligence-1", InstanceStatus(budget={"stt": "much"}))  # type: ignore[dict-item]
    assert board.overview.budget == Budget(classify=3_000)
