"""The Grafana board asks only for metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from prometheus_client import REGISTRY

import quickcomm.dashboard.module
import quickcomm.intelligence.module
from quickcomm.kernel.telemetry import traces

BOARD: Final = Path(__file__).parents[2] / "deploy/grafana/quickcomm.json"
OF_EVERY_PROCESS: Final = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
SUFFIXES: Final = ("", "_total", "_bucket", "_count", "_sum")


def expressions(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_every_metric_of_the_board_exists() -> None:
    assert all((quickcomm.dashboard.module, quickcomm.intelligence.module, traces)), "they bring the metrics"
    there = {family.name + suffix for family in REGISTRY.collect() for suffix in SUFFIXES} | OF_EVERY_PROCESS
    board = json.loads(BOARD.read_text())
    asked = {name for each in expressions(board) for name in re.findall(r"\b(?:quickcomm|process)_[a-z_]+", each)}
    assert len(asked) > 12
    assert asked <= there


def test_every_panel_has_a_place_of_its_own() -> None:
    cells = [
        (x, y)
        for panel in json.loads(BOARD.read_text())["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
