"""How things are, in words for people: made by whoever knows, shown by the dashboard."""

from typing import ClassVar, Literal

import msgspec

from quickcomm.contracts.messaging import EVERY, Request


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something that people should know of. `since` is RFC 3339."""

    code: str
    message: str
    since: str


class ClassifierHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers now; `degraded` when the local one stands in for the LLM, `off` where there is none.

    `message` says it to operators; `since` is RFC 3339.
    """

    model: str = ""
    source: Literal["llm", "local"] = "local"
    degraded: bool = False
    state: Literal["up", "degraded", "off"] = "off"
    message: str = ""
    since: str | None = None


class MetricsText(msgspec.Struct, frozen=True, kw_only=True):
    """`text`: in Prometheus' text format."""

    text: str


class ReadMetrics(Request[MetricsText], frozen=True, kw_only=True, tag="metrics.read"):
    """Asks every process of a site for its metrics."""

    module: ClassVar = EVERY
    callers: ClassVar = ("dashboard",)
    about: ClassVar = "its metrics"
