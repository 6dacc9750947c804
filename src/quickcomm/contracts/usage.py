"""What the language model costs: asked of intelligence, shown by the dashboard."""

from typing import Annotated, ClassVar, Literal

import msgspec

from quickcomm.contracts.messaging import Request

CapState = Literal["off", "none", "below", "near", "reached"]


class DayUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One day of the site's calendar. `cost` is in the currency of the report."""

    day: str
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class ConversationUsage(msgspec.Struct, frozen=True, kw_only=True):
    conversation_id: str
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    last_call_at: str


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """What one day may take; 0 is no limit. `resets_at`: the next midnight of the site."""

    cost: float = 0.0
    tokens: int = 0
    resets_at: str | None = None


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: "off" no model is connected, "none" no cap is set, "near" from 80 %, "reached" answers are local.

    `today` counts all sites of the installation, as the cap does; `days` and `conversations` only the one that asks.
    """

    state: CapState = "off"
    currency: str = ""
    time_zone: str = ""
    cap: Cap = Cap()
    today: DayUsage
    days: tuple[DayUsage, ...] = ()
    conversations: tuple[ConversationUsage, ...] = ()


class GetUsage(Request[UsageReport], frozen=True, kw_only=True, tag="usage"):
    """What a site has used; of one conversation, or of the `limit` most recent ones."""

    module: ClassVar = "intelligence"
    callers: ClassVar = ("dashboard",)
    about: ClassVar = "what the language model costs"

    site: str = ""
    conversation: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 20
