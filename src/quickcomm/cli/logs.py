"""Logging: static events with bound data; for people, or as JSON lines. Never spoken text at info."""

import contextlib
import io
import logging
import sys
from typing import Final, TextIO, cast

import click
import structlog
from aiohttp import http_exceptions, web

from quickcomm.kernel.telemetry import trace_id_of, tracing

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Unfailing(io.TextIOBase):
    """A stream that drops what its file cannot take: on a full disk, what is said must not end who says it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def say(*lines: str) -> None:
    """Print to standard output, which may be a file on a full disk."""
    with contextlib.suppress(OSError):
        for line in lines:
            click.echo(line)


def set_up_logs(level: str, *, as_json: bool, to: TextIO | None = None) -> None:
    """Log to standard error, or to another stream; standard output is for results."""
    stream = cast("TextIO", Unfailing(to or sys.stderr))
    renderer: structlog.typing.Processor
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=28)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([add_trace_id] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("aiohttp.server").addFilter(_our_own_fault)
    logging.basicConfig(level=max(LEVELS[level], logging.WARNING), stream=stream, format="%(levelname)s %(message)s")


def add_trace_id(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The trace of the utterance that a line is about, or else of the request or batch in which it was written."""
    utterance_id = event.get("utterance_id")
    if isinstance(utterance_id, str) and utterance_id:
        event["trace_id"] = f"{trace_id_of(str(event.get('site', 'main')), utterance_id):032x}"
    elif (here := tracing().here) is not None:
        event["trace_id"] = here
    return event


def _our_own_fault(record: logging.LogRecord) -> bool:
    """What is no HTTP at all is answered and then forgotten: aiohttp would quote it, and a key may be in it."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, http_exceptions.HttpProcessingError | web.RequestPayloadError)
