"""Error budgets: what is late is counted once, and the alert rules are about metrics that there are."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from tests.support.examples import examples

from quickcomm.contracts.timing import Latency
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.telemetry.live import NAMES, LiveStages
from quickcomm.kernel.telemetry.settings import Budget

RULES: Final = Path(__file__).parents[2] / "deploy/prometheus/quickcomm.rules.yml"
BURN: Final = {"QuickCommBudgetBurnsFast": 14.4, "QuickCommBudgetBurns": 6.0, "QuickCommBudgetBurnsSlowly": 1.0}
OBJECTIVE: Final = 0.95


def late(stage: str) -> float:
    return REGISTRY.get_sample_value("quickcomm_stage_over_budget_total", {"stage": stage, "side": ""}) or 0.0


@examples(40)
@given(st.lists(st.floats(0, 500), max_size=30), st.floats(1, 400))
def test_what_is_above_the_budget_in_force_is_counted(took: list[float], allowed: float) -> None:
    stages = LiveStages(FakeClock(), lambda: Budget(stt=allowed))
    before, total = late("stt"), late("total")
    for ms in took:
        stages.observe(Latency(stt=ms, total=1.0))
    assert late("stt") - before == sum(ms > allowed for ms in took)
    assert late("total") == total


def test_every_stage_has_a_series_from_the_start() -> None:
    LiveStages(FakeClock(), Budget)
    for name in NAMES:
        assert REGISTRY.get_sample_value("quickcomm_stage_over_budget_total", {"stage": name, "side": ""}) is not None


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_rules_ask_for_metrics_that_there_are_and_for_each_other() -> None:
    there = {family.name + suffix for family in REGISTRY.collect() for suffix in ("", "_total", "_count")}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for rule in rules() for name in re.findall(r"quickcomm[:_][a-z0-9:_]+", rule["expr"])}
    assert asked <= there | recorded
    assert recorded - {"quickcomm:error_budget:left"} <= asked


@pytest.mark.parametrize(("name", "burn"), BURN.items())
def test_alerts_are_burn_rates_of_the_error_budget(name: str, burn: float) -> None:
    [alert] = [rule for rule in rules() if rule.get("alert") == name]
    limits = [float(limit) for limit in re.findall(r"> ([0-9.]+)", alert["expr"])]
    assert limits == pytest.approx([burn * (1 - OBJECTIVE)] * 2)
    assert "docs/find-a-slow-utterance.md" in alert["annotations"]["description"]
