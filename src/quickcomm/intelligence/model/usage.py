"""What a call to the model costs, what a day may cost, and when the day is over. Pure."""

from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Annotated, Final

import msgspec

from quickcomm.contracts.usage import CapState
from quickcomm.kernel.errors import ConfigurationError

NANO: Final = 10**9
NANO_OF_A_MILLIONTH: Final = 1_000
NEAR: Final = 0.8


class UsageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices are for a million tokens. A cap of 0 is none."""

    prompt_price: float = 0.0
    completion_price: float = 0.0
    currency: Annotated[str, msgspec.Meta(max_length=8)] = "USD"
    """A label only: nothing is converted."""
    daily_cost: float = 0.0
    daily_tokens: int = 0
    time_zone: str = ""
    """Whose midnight ends the day, like "Europe/Paris"; empty: the machine's."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Money in billionths, so that sums are exact."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost_nano=self.cost_nano + other.cost_nano,
        )

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float:
        return self.cost_nano / NANO


def spent_on(settings: UsageSettings, prompt_tokens: int, completion_tokens: int) -> Spent:
    prompt, completion = max(0, prompt_tokens), max(0, completion_tokens)
    money = prompt * settings.prompt_price + completion * settings.completion_price
    return Spent(
        calls=1, prompt_tokens=prompt, completion_tokens=completion, cost_nano=round(money * NANO_OF_A_MILLIONTH)
    )


def share_of_cap(settings: UsageSettings, spent: Spent) -> float:
    """How much of the day's allowance is gone: 1.0 is all of it; 0.0 where there is no cap."""
    by_cost = spent.cost / settings.daily_cost if settings.daily_cost else 0.0
    by_tokens = spent.tokens / settings.daily_tokens if settings.daily_tokens else 0.0
    return max(by_cost, by_tokens)


def cap_state(settings: UsageSettings, spent: Spent) -> CapState:
    if not settings.daily_cost and not settings.daily_tokens:
        return "none"
    share = share_of_cap(settings, spent)
    return "reached" if share >= 1 else "near" if share >= NEAR else "below"


class Calendar:
    """The days of a site. Raises `ConfigurationError` for a time zone that this machine does not know."""

    def __init__(self, time_zone: str) -> None:
        self.name = time_zone
        self._zone: tzinfo | None = None
        if time_zone:
            from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - every command reads these settings

            try:
                self._zone = ZoneInfo(time_zone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ConfigurationError(
                    f"usage.time_zone: this machine knows no time zone {time_zone!r}. Name one as Europe/Paris; on a "
                    "system without zone files, install the Python package tzdata."
                ) from error

    def day(self, now_ns: int) -> str:
        return self._local(now_ns).date().isoformat()

    def next_midnight_ns(self, now_ns: int) -> int:
        """When the day is over, whatever the clocks do that night."""
        tomorrow = datetime.combine(self._local(now_ns).date() + timedelta(days=1), time())
        midnight = tomorrow.replace(tzinfo=self._zone) if self._zone else tomorrow.astimezone()
        return int(midnight.timestamp()) * NANO

    def _local(self, now_ns: int) -> datetime:
        return datetime.fromtimestamp(now_ns / NANO, UTC).astimezone(self._zone)
