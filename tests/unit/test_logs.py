"""A line of the log about an utterance leads to its trace."""

import structlog

from quickcomm.entrypoints.logs import add_trace_id
from quickcomm.kernel.telemetry import trace_id_of


def line(**bound: str) -> structlog.typing.EventDict:
    return add_trace_id(None, "info", {"event": "something", **bound})


def test_a_line_about_an_utterance_has_its_trace() -> None:
    assert line(utterance_id="talk:0:1")["trace_id"] == f"{trace_id_of('main', 'talk:0:1'):032x}"
    assert line(site="north", utterance_id="talk:0:1")["trace_id"] == f"{trace_id_of('north', 'talk:0:1'):032x}"


def test_any_other_has_none() -> None:
    assert "trace_id" not in line(conversation_id="talk")
