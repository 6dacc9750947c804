"""Prices, days and caps; pure."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from quickcomm.intelligence.model.usage import Calendar, Spent, UsageSettings, cap_state, spent_on
from quickcomm.kernel.errors import ConfigurationError


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def test_prices_are_for_a_million_tokens_and_sums_are_exact() -> None:
    settings = UsageSettings(prompt_price=0.15, completion_price=0.6)
    once = spent_on(settings, 1_000, 100)
    assert once.cost == pytest.approx(0.000_21)
    total = sum((once for _ in range(10_000)), Spent())
    assert total.cost_nano == 10_000 * once.cost_nano == 2_100_000_000
    assert (total.calls, total.tokens) == (10_000, 11_000_000)


def test_counts_that_make_no_sense_cost_nothing() -> None:
    assert spent_on(UsageSettings(prompt_price=1.0), -5, -1) == Spent(calls=1)


@pytest.mark.parametrize(
    ("settings", "tokens", "state"),
    [
        (UsageSettings(), 10**9, "none"),
        (UsageSettings(daily_tokens=100), 79, "below"),
        (UsageSettings(daily_tokens=100), 80, "near"),
        (UsageSettings(daily_tokens=100), 100, "reached"),
        (UsageSettings(daily_cost=1.0, prompt_price=1.0), 1_000_000, "reached"),
        (UsageSettings(daily_cost=1.0, daily_tokens=10, prompt_price=1.0), 10, "reached"),
    ],
)
def test_the_first_cap_that_is_reached_counts(settings: UsageSettings, tokens: int, state: str) -> None:
    assert cap_state(settings, spent_on(settings, tokens, 0)) == state


def test_the_day_ends_at_the_midnight_of_the_site() -> None:
    paris = ZoneInfo("Europe/Paris")
    calendar = Calendar("Europe/Paris")
    evening = ns(datetime(2026, 7, 1, 23, 59, tzinfo=paris))
    assert calendar.day(evening) == "2026-07-01"
    assert calendar.next_midnight_ns(evening) == ns(datetime(2026, 7, 2, tzinfo=paris))
    assert calendar.day(calendar.next_midnight_ns(evening)) == "2026-07-02"


@pytest.mark.parametrize(("day", "hours"), [(datetime(2026, 3, 29), 23), (datetime(2026, 10, 25), 25)])  # noqa: DTZ001 - the zone follows
def test_days_on_which_clocks_change_are_shorter_or_longer(day: datetime, hours: int) -> None:
    start = ns(day.replace(tzinfo=ZoneInfo("Europe/Paris")))
    assert Calendar("Europe/Paris").next_midnight_ns(start) - start == hours * 3_600 * 10**9


def test_without_a_name_the_machine_says_when_it_is_midnight() -> None:
    calendar = Calendar("")
    now = ns(datetime(2026, 7, 1, 12).astimezone())
    midnight = datetime.fromtimestamp(calendar.next_midnight_ns(now) / 1e9).astimezone()
    assert (midnight.hour, midnight.minute, midnight.day) == (0, 0, 2)


@pytest.mark.parametrize("name", ["Atlantis/City", "../../etc/passwd", "/etc/passwd", "\x00"])
def test_a_zone_that_nobody_knows_is_a_wrong_setting(name: str) -> None:
    with pytest.raises(ConfigurationError, match="time zone"):
        Calendar(name)
