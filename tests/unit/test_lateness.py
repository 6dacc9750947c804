"""When the page says that cards come late, and when it does not."""

import pytest

from quickcomm.contracts.health import Alarm
from quickcomm.contracts.timing import Latency
from quickcomm.dashboard.ports import Health
from quickcomm.dashboard.service.lateness import CODE, ENOUGH, SAME_CAUSE, WINDOW_S, Lateness
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.telemetry.live import LiveStages
from quickcomm.kernel.telemetry.settings import Budget

BUDGET_MS = Budget().total
SLOW_STAGES = Latency(stt=2_000, store=500, total=BUDGET_MS)


class Site:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stages = LiveStages(self.clock, Budget)
        self.lateness = Lateness(self.clock, self.stages)

    def card(self, late_s: float) -> None:
        self.stages.observe(Latency(total=BUDGET_MS + 1e3 * late_s))

    def cards(self, count: int, late_s: float, every_s: float = 1.0) -> None:
        for _ in range(count):
            self.clock.advance(every_s)
            self.card(late_s)

    def told(self, *alarms: Alarm) -> Health:
        return self.lateness.told(Health(alarms=alarms))

    @property
    def codes(self) -> list[str]:
        return [alarm.code for alarm in self.told().alarms]


def test_late_cards_are_said_in_plain_words() -> None:
    site = Site()
    site.cards(ENOUGH - 1, 3.0)
    assert site.told() == Health(), "of so few nothing can be said"
    site.card(3.1)
    health = site.told()
    [alarm] = health.alarms
    assert (alarm.code, alarm.message) == (CODE, "Running behind: cards come about 3 s late.")
    assert health.status == "degraded"
    site.clock.advance(5)
    assert site.told().alarms[0].since == alarm.since


@pytest.mark.parametrize("late_s", [-0.9, 0.0, 0.4])
def test_what_is_in_time_or_hardly_late_is_no_alarm(late_s: float) -> None:
    site = Site()
    site.cards(50, late_s)
    assert site.codes == []


def test_slow_stages_are_no_alarm_while_the_total_is_in_time() -> None:
    site = Site()
    for _ in range(100):
        site.stages.observe(SLOW_STAGES)
        site.stages.painted(900)
    assert [stage.stage for stage in site.stages.health() if stage.breach] == ["stt", "store", "painted"]
    assert site.codes == []


def test_a_few_late_ones_among_many_are_no_alarm() -> None:
    site = Site()
    site.cards(10, 0.0)
    site.cards(4, 9.0)
    assert site.codes == []


def test_it_clears_once_half_the_window_is_well() -> None:
    site = Site()
    site.cards(60, 3.0)
    assert site.codes == [CODE]
    site.cards(round(WINDOW_S / 2) + 1, 0.0)
    assert site.codes == []


def test_it_clears_within_the_window_where_nobody_speaks() -> None:
    site = Site()
    site.cards(60, 3.0)
    assert site.codes == [CODE]
    site.clock.advance(WINDOW_S + 1)
    assert site.told() == Health()


def test_it_does_not_flicker_at_the_threshold() -> None:
    site = Site()
    site.cards(60, 1.1)
    assert site.codes == [CODE]
    site.cards(60, 0.9)
    assert site.told().alarms[0].message == "Running behind: cards come about 1 s late."
    site.cards(60, 0.4)
    assert site.codes == []
    site.cards(60, 0.9)
    assert site.codes == []


@pytest.mark.parametrize("code", sorted(SAME_CAUSE))
def test_speech_that_waits_is_the_same_cause_and_one_line(code: str) -> None:
    site = Site()
    site.cards(20, 12.0)
    waiting = Alarm(code=code, message="Running behind.", since="")
    away = Alarm(code="language_model", message="Away.", since="")
    assert site.told(away, waiting).alarms == (away, waiting)
    assert [alarm.code for alarm in site.told(away).alarms] == ["language_model", CODE]
