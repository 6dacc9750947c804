"""Tracing for the process: modules tell `tracing()` what happened, an entrypoint says what becomes of it.

Like metrics, and like OpenTelemetry's own interface, it is one for a process and does nothing until it is set up.
"""

from quickcomm.kernel.telemetry.ids import trace_id_in, trace_id_of
from quickcomm.kernel.telemetry.off import NoTraces
from quickcomm.kernel.telemetry.settings import Budget, TelemetrySettings
from quickcomm.kernel.telemetry.spans import (
    MODULES,
    Attributes,
    Batch,
    Call,
    Detail,
    Origin,
    Over,
    Tracing,
    Word,
    origin_of,
)

_current: Tracing = NoTraces()


def tracing() -> Tracing:
    return _current


def set_tracing(chosen: Tracing | None) -> None:
    """None: off."""
    global _current  # noqa: PLW0603 - see above
    _current = chosen or NoTraces()


__all__ = [
    "MODULES",
    "Attributes",
    "Batch",
    "Budget",
    "Call",
    "Detail",
    "Origin",
    "Over",
    "TelemetrySettings",
    "Tracing",
    "Word",
    "origin_of",
    "set_tracing",
    "trace_id_in",
    "trace_id_of",
    "tracing",
]
