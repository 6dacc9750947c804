"""The simulator: everything that was said is done or in hand, the same seed gives the same result, cores help."""

import json
from pathlib import Path

import msgspec
import pytest
import simpy
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.capacity.model.load import Load, read_load
from quickcomm.capacity.model.scaling import Rule, ScalingPolicy
from quickcomm.capacity.model.units import Deployment, read_units
from quickcomm.capacity.simulation.cores import Cores, Thread, weight
from quickcomm.capacity.simulation.people import Calendar, Day
from quickcomm.capacity.simulation.result import Result
from quickcomm.capacity.simulation.run import Course, simulate
from quickcomm.capacity.simulation.site import MODULES, Plan
from quickcomm.cli.main import main

HOTEL = """
name = "hotel"
model = 0.5
[[level]]
at_h = 3
conversations = 2
speech = 0.1
[[level]]
at_h = 14
conversations = 8
speech = 0.6
pages = 3
queries_per_s = 2
"""
LOAD: Load = read_load(HOTEL.encode())


def run(plan: Plan, talkers: int = 8, seconds: float = 60.0, course: Course | None = None) -> Result:
    return simulate(plan, Day(load=LOAD, hour=Calendar(), talkers=talkers), course or Course(seconds=seconds))


def p95(result: Result) -> float:
    found = result.stages["heard"].p95
    assert found is not None
    return found


@given(st.lists(st.tuples(st.floats(0.001, 3), st.integers(0, 19)), min_size=1, max_size=8), st.integers(1, 4))
@examples(100)
def test_cores_do_all_the_work_and_no_more_at_once_than_they_are(work: list[tuple[float, int]], cores: int) -> None:
    env = simpy.Environment()
    host = Cores(env, cores, beside=1.0)
    threads = [Thread(host, weight(nice)) for _, nice in work]
    for thread, (seconds, _) in zip(threads, work, strict=True):
        thread.do(seconds)
    env.run()
    total = sum(seconds for seconds, _ in work)
    assert sum(thread.used[0] for thread in threads) == pytest.approx(total, abs=1e-6)
    assert env.now >= max(*(seconds for seconds, _ in work), total / cores) - 1e-6
    assert env.now <= total + 1e-6


def test_a_thread_that_yields_waits_for_one_that_does_not() -> None:
    env = simpy.Environment()
    host = Cores(env, 1, beside=1.0)
    first, last = Thread(host, weight(0)).do(1.0), Thread(host, weight(15)).do(1.0)
    env.run(until=first)
    assert env.now == pytest.approx(1 + weight(15), abs=1e-6)
    env.run(until=last)
    assert env.now == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("deployment", ["monolith", "services"])
@pytest.mark.parametrize(("hosts", "talkers"), [(1, 8), (2, 24), (1, 96)])
def test_every_utterance_is_done_or_in_hand_whatever_happens(deployment: Deployment, hosts: int, talkers: int) -> None:
    course = Course(
        seconds=60.0,
        deploys=(("audio", 40.0), ("intelligence", 50.0)),
        lost_at_s=60.0,
        lost_for_s=10.0,
        autoscale=ScalingPolicy(audio=Rule(talkers=4, behind_s=5, most=4)) if deployment == "services" else None,
        burst=2.0,
    )
    found = run(Plan(deployment=deployment, hosts=hosts, model=0.5), talkers, course=course)
    assert found.arrived > talkers
    assert found.arrived == found.done + found.in_hand
    if talkers < 96:
        assert found.in_hand < talkers, "all that had the time is done"
    for stage in found.stages.values():
        assert stage.count == 0 or (stage.p50 or 0.0) >= 0
    assert sum(found.cores.values()) <= hosts * 2 + 1e-6
    assert found.happened


def test_others_do_what_a_lost_host_had_in_hand() -> None:
    plan = Plan(deployment="services", hosts=2, processes=dict.fromkeys(MODULES, 2))
    course = Course(seconds=120.0, lost_at_s=50.0, lost_for_s=1_000.0)
    found = run(plan, 32, course=course)
    assert found.late > 0
    assert found.in_hand < 12, "what is in hand at the end was said just then"


def test_no_time_is_negative_and_each_step_comes_after_the_one_before() -> None:
    found = run(Plan(deployment="services", model=0.5), 16)
    stages = found.stages
    for before, after in (("endpoint", "heard"), ("heard", "shown"), ("shown", "understood")):
        for quantile in ("p50", "p95", "worst"):
            assert 0 <= getattr(stages[before], quantile) <= getattr(stages[after], quantile)


def test_the_same_seed_gives_the_same_result_and_another_one_does_not() -> None:
    plan = Plan(deployment="services", seed=3)
    assert run(plan) == run(plan)
    assert run(plan) != run(msgspec.structs.replace(plan, seed=4))


@pytest.mark.parametrize("talkers", [8, 32, 64])
def test_more_cores_make_nothing_later(talkers: int) -> None:
    later, sooner = (p95(run(Plan(deployment="monolith", cores=cores, workers=2), talkers)) for cores in (2, 4))
    assert sooner <= later * 1.05


def test_more_talkers_are_later_and_priorities_let_audio_go_first() -> None:
    assert p95(run(Plan(deployment="monolith"), 8)) < p95(run(Plan(deployment="monolith"), 64))
    crowded = msgspec.structs.replace(LOAD, level=(msgspec.structs.replace(LOAD.busiest, queries_per_s=300),))
    both = [
        simulate(Plan(deployment=deployment), Day(load=crowded, hour=Calendar(), talkers=24), Course(seconds=20.0))
        for deployment in ("monolith", "services")
    ]
    assert p95(both[1]) < p95(both[0])


def test_unit_costs_and_their_timing_go_before_the_defaults() -> None:
    unit = """{"module": "audio", "per": "speech_s", "resource": "cpu_s",
               "figure": {"median": 0.126, "low": 0.12, "high": 0.13, "runs": 3}}"""
    units = read_units(
        f"""{{"machine": {{"cpu": "slow", "cores": 2, "memory_mb": 1}}, "taken_at": "2026-01-01T00:00:00Z",
              "deployments": {{"services": [{unit}]}}, "timing": {{"encode_s": 0.3}}}}""".encode()
    )
    usual, slow = run(Plan(deployment="services")), run(Plan(deployment="services", units=units))
    assert slow.cores["audio"] > 2 * usual.cores["audio"]
    assert units.timing is not None
    timed = run(Plan(deployment="services", timing=units.timing))
    assert (timed.stages["decode"].p50 or 0) > 0.1 > (usual.stages["decode"].p50 or 0)


def test_a_deploy_of_intelligence_delays_audio_in_a_monolith_only() -> None:
    course = Course(seconds=60.0, deploys=(("intelligence", 60.0),))
    assert run(Plan(deployment="monolith"), course=course).late > 0
    services = run(Plan(deployment="services"), course=course)
    assert services.late == 0
    assert (services.stages["understood"].worst or 0) > 4


def test_scaling_starts_processes_for_a_crowd_and_stops_them_later() -> None:
    at = ((10.0, 4), (10.05, 4), (10.051, 24), (10.1, 24), (10.101, 4))
    levels = tuple(msgspec.structs.replace(LOAD.busiest, at_h=hour, conversations=lines) for hour, lines in at)
    calendar = Calendar(start_h=10.0)
    course = Course(
        seconds=600.0, calendar=calendar, autoscale=ScalingPolicy(audio=Rule(talkers=8, behind_s=20), calm_s=20)
    )
    crowd = Day(load=msgspec.structs.replace(LOAD, level=levels), hour=calendar)
    found = simulate(Plan(deployment="services", workers=1, cores=4), crowd, course)
    changes = [each.what for each in found.happened if each.what.startswith("audio")]
    assert len(changes) <= 5, "it does not flap"
    assert any("→ 3 processes: 2" in change for change in changes), "24 talkers, of whom some may be silent"
    assert found.processes["audio"] == 1
    assert found.arrived == found.done + found.in_hand


def test_a_whole_day_goes_by_in_steps() -> None:
    calendar = Calendar(start_h=6.0, step_s=3_600.0, look_s=30.0)
    assert calendar.at(0.0) == 6.0
    assert calendar.at(30.0) == 7.0
    assert calendar.at(calendar.when(8 * 3_600.0)) == pytest.approx(14.0, abs=0.01)
    found = simulate(
        Plan(deployment="services"), Day(load=LOAD, hour=calendar), Course(seconds=720.0, lead_s=0.0, calendar=calendar)
    )
    assert found.arrived == found.done + found.in_hand > 0


def test_the_example_of_the_docs_is_a_load() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text(encoding="utf-8")
    load = read_load(text.split("```toml\n")[1].split("```")[0].encode())
    assert load.at(14).conversations == 40


def test_the_command_says_what_came_of_it_and_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "hotel.toml"
    file.write_text(HOTEL)
    few = ["simulate", "--load", str(file), "--minutes", "1"]
    told = CliRunner().invoke(main, [*few, "--deploy", "dashboard@14:00", "--price", "0.1"])
    assert told.exit_code == 0, told.output
    assert "end of speech → utterance" in told.output
    assert "deploy of dashboard" in told.output
    rows = CliRunner().invoke(main, [*few, "--json"]).output.splitlines()
    assert [json.loads(row)["deployment"] for row in rows] == ["monolith", "services"]
    for wrong, words in (
        (["--deploy", "relay@5"], "say it as dashboard@13:30"),
        (["--processes", "audio=0"], "audio=2"),
        (["--kill-host", "noon"], "13:30"),
        (["--kill-host", "20:00"], "over before"),
    ):
        failed = CliRunner().invoke(main, [*few, *wrong])
        assert failed.exit_code != 0
        assert words in failed.output
