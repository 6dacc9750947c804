"""Verdicts on made-up days, each with its figures: most sites stay; few split, and each for a reason that pays."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from benchmarks import site_days
from benchmarks.assessed import judge, sites
from benchmarks.site_days import Costs, Site, day, samples
from benchmarks.site_truth import by_plan
from click.testing import CliRunner, Result
from prometheus_client import generate_latest

import quickcomm.audio.service.metrics
import quickcomm.dashboard.adapters.admission
import quickcomm.dashboard.adapters.hub
import quickcomm.intelligence.service.metrics
import quickcomm.kernel.runtime.process
import quickcomm.kernel.storage.database
import quickcomm.kernel.telemetry.live
from quickcomm.capacity.adapters.metrics import LEVELS, TOTALS, sample_of
from quickcomm.capacity.model.assessment import NEEDED, Verdict, assess
from quickcomm.capacity.model.findings import Limits
from quickcomm.capacity.model.samples import Sample, record
from quickcomm.cli.main import main
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.telemetry.machine import cpu_by_work

ROOT = Path(__file__).parents[2]
BIG = day("big", 2_500, speech=0.25)
WITH_GPU = day("gpu", 2_500, speech=0.25, model=1.0)
QUICK_MODEL = Costs(gpu_s=0.002)
IN_EACH = Limits(gpu_in_each_copy=True)


def verdict(site: Site, **levels: float) -> Verdict:
    """`levels`: in each sample, over what it has; NaN takes one away. Each copy must have its GPU."""
    found = list(samples(site))[::3]
    changed = [
        {**each.levels, **{name.replace("_", ".", 1): value for name, value in levels.items()}} for each in found
    ]
    kept = [{name: value for name, value in each.items() if value == value} for each in changed]  # noqa: PLR0124 - NaN
    seen = record(msgspec.structs.replace(one, levels=level) for one, level in zip(found, kept, strict=True))
    return assess(seen, IN_EACH)


def rules(found: Verdict) -> dict[str, Any]:
    return {each.rule: each for each in found.findings}


@pytest.mark.parametrize("seed", range(4))
def test_a_small_hotel_stays_and_is_told_how_much_room_there_is(seed: int) -> None:
    found = verdict(Site(load=day("hotel", 12), cores=2, seed=seed))
    assert (found.advice, found.module) == ("stay", "")
    assert re.match(r"Stay one process: nothing is full. There is room for \d", found.says)
    assert rules(found)["full"].figures["cores"] < 0.3
    assert found.would_change


@pytest.mark.parametrize("seed", range(4))
def test_cores_that_are_full_alone_are_no_reason(seed: int) -> None:
    found = verdict(Site(load=BIG, cores=16, seed=seed))
    assert found.advice == "stay"
    assert "second copy" in found.says
    assert rules(found)["copies"].figures["saves"] < 0


@pytest.mark.parametrize("seed", range(4))
def test_a_gpu_that_each_copy_would_leave_idle_is_one(seed: int) -> None:
    found = verdict(Site(load=WITH_GPU, cores=16, gpu=True, costs=QUICK_MODEL, seed=seed))
    assert (found.advice, found.module) == ("split", "intelligence")
    assert rules(found)["copies"].figures["saves"] > 0.2
    assert rules(found)["copies"].figures["gpu_busy"] < 0.4


def test_copies_that_can_share_a_model_need_no_split() -> None:
    found = assess(record(samples(Site(load=WITH_GPU, cores=16, gpu=True, costs=QUICK_MODEL))))
    assert found.advice == "stay"
    assert "a machine of its own (llm.url)" in found.says
    assert rules(found)["copies"].figures["saves"] > 0.2


def test_a_gpu_that_is_as_full_as_the_cores_is_none() -> None:
    assert verdict(Site(load=WITH_GPU, cores=16, gpu=True, costs=Costs(gpu_s=0.1))).advice == "stay"


def test_a_small_machine_grows_before_it_is_copied() -> None:
    found = verdict(
        Site(load=day("grows", 700, model=1.0), cores=8, gpu=True, costs=Costs(gpu_s=0.002, silent_channel=0))
    )
    assert found.advice == "stay"
    assert "larger machine" in found.says
    assert "can grow" in rules(found)["copies"].says


def test_whether_there_is_a_gpu_is_not_guessed() -> None:
    found = verdict(Site(load=WITH_GPU, cores=16, gpu=True, costs=QUICK_MODEL), gpus=float("nan"))
    assert found.advice == "stay"
    assert any("--gpus" in each for each in found.missing)
    assert "not known" in rules(found)["copies"].says


def test_the_memory_of_the_engines_in_each_copy_is_no_reason() -> None:
    costs = Costs(memory_mb=3_900.0, page=0.1, page_loop=0.0001, query=0.02)
    found = verdict(Site(load=day("pages", 20, pages=300.0, queries_per_s=40.0), cores=16, costs=costs))
    assert rules(found)["full"].figures["cores"] > 0.7
    assert found.advice == "stay"


def test_other_programs_go_first() -> None:
    found = verdict(Site(load=day("shared", 30), cores=4, others=3.0))
    assert found.advice == "stay"
    assert "other programs" in found.says
    assert rules(found)["other programs"].figures["others"] > 0.6


def test_an_event_loop_that_is_full_first_is_named_with_whom_it_follows() -> None:
    costs = Costs(page=0.002, page_loop=0.002)
    found = verdict(Site(load=day("pages", 100, pages=450.0, late=1), cores=8, costs=costs))
    assert found.advice == "stay"
    assert "A second copy" in found.says
    kind = rules(found)["one of a kind"]
    assert kind.figures["dashboard"] > kind.figures["audio"]


def late_pages(site: Site, stt: float, store: float) -> Verdict:
    """Have stages take these shares of their budgets wherever the cores are full."""
    found = []
    before = None
    for each in list(samples(site))[::3]:
        passed = each.at - before.at if before else 60.0
        busy = 0.0 if before is None else each.totals["machine_cpu"] - before.totals["machine_cpu"]
        tight = busy / passed / site.cores > 0.7
        late = {"used.stt": stt, "used.store": store} if tight else {"used.stt": 0.3, "used.store": 0.3}
        found.append(msgspec.structs.replace(each, levels={**each.levels, **late}))
        before = each
    return assess(record(found))


def test_pages_that_wait_for_audio_which_is_in_time_get_a_machine_of_their_own() -> None:
    site = Site(load=day("event", 1_100, speech=0.25), cores=16, costs=Costs(silent_channel=0.0001))
    found = late_pages(site, stt=0.8, store=4.0)
    assert (found.advice, found.module) == ("split", "dashboard")
    assert "small machine" in found.says
    assert late_pages(site, stt=1.5, store=4.0).advice == "stay", "audio is late itself: more cores help both"
    assert late_pages(site, stt=0.8, store=1.2).advice == "stay", "a little late"


def test_deploys_that_cut_talk_count_where_a_second_machine_is_needed_anyway() -> None:
    assert verdict(Site(load=day("hotel", 12), cores=2, restarts=8)).advice == "stay"
    found = verdict(Site(load=BIG, cores=16, restarts=8))
    assert (found.advice, found.module) == ("split", "dashboard")
    assert rules(found)["deploys"].figures["cut"] >= 6


@pytest.mark.parametrize("name", NEEDED)
def test_a_team_that_is_not_ready_stays_for_now(name: str) -> None:
    site = Site(load=WITH_GPU, cores=16, gpu=True, costs=QUICK_MODEL)
    found = verdict(site, **{f"ready_{name}": 0.0})
    assert found.advice == "stay"
    assert "Then split intelligence" in found.says
    assert found.would_change == (NEEDED[name],)
    assert verdict(site, **{f"ready_{name}": 1.0}).advice == "split"


def test_contracts_that_change_and_a_morning_alone_hold_a_split_back() -> None:
    site = Site(load=WITH_GPU, cores=16, gpu=True, costs=QUICK_MODEL)
    found = list(samples(site))
    streams = [("transcripts.v1",) if each.at < 40_000 else ("transcripts.v2",) for each in found]
    changed = assess(
        record(msgspec.structs.replace(one, streams=of) for one, of in zip(found, streams, strict=True)), IN_EACH
    )
    assert (changed.advice, "contracts" in " ".join(changed.missing)) == ("stay", False)
    morning = assess(record(each for each in found if 36_000 <= each.at < 50_000), IN_EACH)
    assert (morning.advice, "Then split" in morning.says) == ("stay", True)
    assert any("A day of samples" in each for each in morning.would_change)


def test_too_few_samples_or_none_of_the_cpu_say_nothing() -> None:
    found = list(samples(Site(load=BIG, cores=16)))
    assert assess(record(found[:8])).advice == "not enough"
    assert assess(record(found[::20] + found[:3])).findings[0].figures["missing"] == 0
    gone = [each for each in found if not 1_000 < each.at < 60_000]
    assert assess(record(gone)).advice == "not enough"
    bare = [msgspec.structs.replace(each, totals={"speech": each.totals["speech"]}, levels={}) for each in found]
    assert assess(record(bare)).advice == "not enough"


def services(share: float, restarts: int = 0) -> list[Sample]:
    """Three modules on two machines of 8 cores; `share`: of all the cores that they take."""
    of = {"audio": ("a", 0.8), "intelligence": ("b", 0.1), "dashboard": ("b", 0.1)}
    return [
        Sample(
            at=at * 300.0,
            process=f"{module}-1",
            module=module,
            machine=machine,
            started_at=-60.0 if not (restarts and module == "dashboard") else at // (289 // (restarts + 1)) * 300.0,
            totals={f"cpu.{module}": at * 300.0 * 16 * share * part},
            levels={"cores": 8.0, "machine_memory_mb": 32_000.0, "memory_mb": 400.0},
        )
        for at in range(289)
        for module, (machine, part) in of.items()
    ]


def test_services_that_fit_in_one_machine_may_go_back() -> None:
    found = assess(record(services(0.1)))
    assert found.advice == "go back"
    assert rules(found)["one machine"].figures["cores"] == pytest.approx(0.2, abs=0.01)
    assert assess(record(services(0.4))).advice == "keep"
    used = assess(record(services(0.1, restarts=3)))
    assert (used.advice, "deployed apart" in used.says) == ("keep", True)


def test_eight_sites_against_what_would_have_been_cheaper() -> None:
    judged = [judge(site, by_plan, gpu_in_each_copy=True) for site in sites(8, seed=1)]
    assert sum(each.right for each in judged) >= 7
    assert not any(each.advice == "split" and each.saves <= -0.1 for each in judged)
    assert {each.advice for each in judged} == {"split", "stay"}


# -- the metrics of a process -----------------------------------------------------------------------------------------


def test_the_metrics_of_this_process_are_a_sample() -> None:
    assert all(
        (quickcomm.audio.service.metrics, quickcomm.dashboard.adapters.admission, quickcomm.dashboard.adapters.hub)
    ), "they bring the metrics"
    assert all(
        (quickcomm.kernel.runtime.process, quickcomm.intelligence.service.metrics, quickcomm.kernel.storage.database)
    )
    quickcomm.kernel.telemetry.live.SECONDS.labels("classify", "").observe(0.02)
    found = sample_of(generate_latest().decode(), 2e9, "monolith", "monolith")
    assert set(TOTALS.values()) | {"utterances", "cpu.audio", "cpu.shared", "loop"} <= found.totals.keys()
    assert {name for name, _ in LEVELS.values()} <= found.levels.keys()
    assert found.totals["loop"] > 0
    assert found.levels["ready.alerts"] == 0
    alone = sample_of(generate_latest().decode(), 2e9, "audio-1", "audio")
    assert alone.totals["cpu.audio"] > found.totals["cpu.audio"]
    assert not {"cpu.shared", "loop"} & alone.totals.keys()


def test_what_is_no_exposition_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="text format"):
        sample_of("<html>{", 0, "monolith", "monolith")
    with pytest.raises(InvalidInputError, match="process_start_time_seconds"):
        sample_of("", 0, "monolith", "monolith")


def test_cpu_is_told_by_the_work_of_threads() -> None:
    found = cpu_by_work()
    assert found["loop"] > 0
    assert found["speech"] >= 0


# -- the command ------------------------------------------------------------------------------------------------------


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["assess", *arguments])


def test_the_command_reads_sample_days_and_files(tmp_path: Path) -> None:
    hotel = ran("small-hotel", "--json")
    assert hotel.exit_code == 0, hotel.output
    assert json.loads(hotel.stdout)["advice"] == "stay"
    event = ran("event")
    assert event.stdout.startswith("Split dashboard first.")
    assert "Not known:" in event.stdout
    assert "tracing" not in ran("event", "--have", "tracing").stdout.partition("Not known:")[2]
    assert ran("resort", "--gpus", "0", "--gpu-in-each-copy").stdout.startswith("Stay one process:")
    few = tmp_path / "few.jsonl"
    few.write_bytes(b"\n".join(msgspec.json.encode(each) for each in list(samples(Site(load=BIG, cores=16)))[:5]))
    assert ran(str(few)).exit_code == 2
    missing = ran("no-such-day")
    assert missing.exit_code == 1
    assert "event, resort, small-hotel" in missing.stderr
    assert ran("--for", "soon").exit_code == 2


def test_the_commands_of_the_how_to_do_what_it_says() -> None:
    text = (ROOT / "docs" / "should-we-split.md").read_text()
    tried = re.findall(r"^(quickcomm assess [a-z].*?) *# ((?:Stay|Split) .*)$", text, re.MULTILINE)
    assert len(tried) >= 3
    for command, says in tried:
        done = ran(*command.split()[2:])
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(says.removesuffix(" …")), command


def test_the_sample_days_are_those_of_the_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {path.name: path.read_bytes() for path in site_days.FOLDER.iterdir()}
    monkeypatch.setattr(site_days, "FOLDER", tmp_path)
    site_days.main()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
