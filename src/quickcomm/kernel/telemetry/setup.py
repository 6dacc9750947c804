"""Turns tracing on where the settings ask for it; called by the assembler of a process."""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

import structlog

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.telemetry import set_tracing
from quickcomm.kernel.telemetry.settings import Budget, TelemetrySettings
from quickcomm.kernel.telemetry.side import set_side
from quickcomm.kernel.telemetry.spans import MODULES, Word
from quickcomm.kernel.telemetry.traces import Traces

CLOSE_S: Final = 3.0

log = structlog.get_logger(__name__)


def start_tracing(
    settings: TelemetrySettings,
    clock: Clock,
    budget: Callable[[], Budget],
    *,
    modules: frozenset[str] = MODULES,
    process: str = "monolith",
    tell: Callable[[Word], None] | None = None,
) -> Traces | None:
    """None where no collector is named. For the rest see `Traces`. Raises `ConfigurationError`."""
    if not settings.otlp_url:
        set_tracing(None)
        return None
    address = urlsplit(settings.otlp_url)
    if address.scheme not in {"http", "https"} or not address.hostname:
        raise ConfigurationError(
            f"telemetry.otlp_url is no address: {settings.otlp_url!r}. It looks like http://127.0.0.1:4318."
        )
    from quickcomm.kernel.telemetry.otlp import OtlpSink  # noqa: PLC0415 - a quarter of a second, for those who want it

    def allowed_ms() -> float:
        allowed = budget()
        return allowed.total + allowed.painted

    sink = OtlpSink(settings.otlp_url)
    traces = Traces(settings, clock, sink, allowed_ms, modules=modules, process=process, tell=tell)
    set_tracing(traces)
    log.info("tracing.on", url=_without_user(address), sample=settings.sample)
    return traces


def _without_user(address: SplitResult) -> str:
    """A collector's user and password are in no log; nor is a query, which may have a token."""
    return urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment=""))


async def stop_tracing(traces: Traces | None) -> None:
    """Send what is left, for a few seconds at most."""
    set_tracing(None)
    set_side(None)
    if traces is not None:
        await asyncio.to_thread(traces.close, CLOSE_S)
