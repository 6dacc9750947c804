"""A line of the log about an utterance leads to its trace; one that cannot be written ends nobody."""

import sys
from pathlib import Path
from typing import TextIO, cast

import pytest
import structlog

from quickcomm.cli.logs import Unfailing, add_trace_id
from quickcomm.kernel.telemetry import trace_id_of
from quickcomm.operate.up import stream


def line(**bound: str) -> structlog.typing.EventDict:
    return add_trace_id(None, "info", {"event": "something", **bound})


def test_a_line_about_an_utterance_has_its_trace() -> None:
    assert line(utterance_id="talk:0:1")["trace_id"] == f"{trace_id_of('main', 'talk:0:1'):032x}"
    assert line(site="north", utterance_id="talk:0:1")["trace_id"] == f"{trace_id_of('north', 'talk:0:1'):032x}"


def test_any_other_has_none() -> None:
    assert "trace_id" not in line(conversation_id="talk")


FULL = Path("/dev/full")
"""Every write to it fails with ENOSPC."""


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_log_on_a_full_disk_ends_nobody() -> None:
    with pytest.raises(OSError, match="space"), FULL.open("w", buffering=1) as file:
        print("it raises by itself", file=file)
    file = FULL.open("w", buffering=1)
    structlog.PrintLogger(cast("TextIO", Unfailing(file))).msg("checkpoint.failed")
    with pytest.raises(OSError, match="space"):
        file.close()


def test_the_stream_of_up_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    stream._write("a line\n")
