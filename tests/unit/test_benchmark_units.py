"""Unit costs out of measurements: what was planted in the cores of a site is found again, and nothing twice."""

import json

import msgspec
import pytest
from benchmarks.capacity import Row
from benchmarks.units import TINY, Key, Quiet, Understood, costs, machine, units

from quickcomm.capacity.model.units import Deployment, UnitCosts, read_units

EACH = Understood(local=0.02, model=0.01, tokens_in=1_400.0, tokens_out=60.0)
SPEECH, UTTERANCES = 2.0, 1.0
"""A second."""


def row(**parts: float) -> Row:
    figures = dict.fromkeys(("p50", "p95", "worst", "card_p50", "card_p95", "late_by"), 0.0)
    return Row(
        talkers=2,
        utterances=round(UTTERANCES * TINY.seconds),
        cpu=sum(parts.values()) / SPEECH,
        cores=sum(parts.values()),
        rss_mb=0,
        parts=parts,
        **figures,
    )


def measured(deployment: Deployment, **parts: float) -> dict[Key, float]:
    """`parts`: cores while people talk. At rest each takes 0.01, with queries, rooms and pages 0.1 more."""
    rest = dict.fromkeys(parts, 0.01)
    more = {name: value + 0.1 for name, value in rest.items()}
    still = Quiet(
        rest=rest,
        queries=more,
        rooms=more,
        memory=dict.fromkeys(parts, 400.0),
        rooms_memory=dict.fromkeys(parts, 410.0),
        processes={name: 2 if name == "audio" else 1 for name in parts},
    )
    with_pages = row(**{name: value + 0.1 for name, value in parts.items()})
    return costs(deployment, TINY, still, (row(**parts), with_pages), EACH)


def test_services_have_the_costs_of_each_module() -> None:
    found = measured("services", audio=0.11, intelligence=0.03, valkey=0.02, operations=0.01)
    assert found["audio", "speech_s", "cpu_s"] == pytest.approx(0.1 / SPEECH)
    assert found["audio", "process", "memory_mb"] == 200
    assert found["intelligence", "utterance_local", "cpu_s"] == pytest.approx(0.02 / UTTERANCES)
    assert found["store", "utterance_local", "cpu_s"] == pytest.approx(0.01 / UTTERANCES)
    assert found["audio", "silent_channel_h", "cpu_s"] == pytest.approx(0.1 * 3_600 / TINY.rooms)
    assert found["audio", "conversation", "memory_mb"] == pytest.approx(10 / TINY.rooms)
    assert found["intelligence", "query", "cpu_s"] == pytest.approx(0.1 / TINY.queries)
    assert found["intelligence", "page_h", "cpu_s"] == pytest.approx(0.1 * 3_600 / TINY.pages)
    assert found["intelligence", "utterance_model", "tokens_out"] == 60
    assert ("audio", "utterance_local", "cpu_s") not in found


def test_what_utterances_take_of_a_monolith_is_not_counted_for_speech_again() -> None:
    found = measured("monolith", monolith=0.11)
    speech, utterance = found["monolith", "speech_s", "cpu_s"], found["monolith", "utterance_local", "cpu_s"]
    assert utterance == EACH.local
    assert SPEECH * speech + UTTERANCES * utterance == pytest.approx(0.1)


def test_rounds_become_medians_with_their_spread_and_a_gpu_says_where_it_is_from() -> None:
    rounds = [measured("monolith", monolith=cores) for cores in (0.31, 0.11, 0.21)]
    found = UnitCosts(machine=machine(), taken_at="2026-12-01", deployments={"monolith": tuple(units(rounds))})
    assert read_units(msgspec.json.encode(found)) == found
    assert json.loads(msgspec.json.encode(found))["machine"]["cores"] >= 1
    speech = found.find("monolith", "monolith", "speech_s", "cpu_s")
    assert speech is not None
    assert (speech.low, speech.median, speech.high, speech.runs) == pytest.approx((0.04, 0.09, 0.14, 3))
    gpu = found.find("monolith", "monolith", "utterance_model", "gpu_s")
    assert gpu is not None
    assert (gpu.origin, gpu.median < gpu.high) == ("published", True)
