"""`quickcomm plan`: what its how-to says comes out, in 100 columns; errors say what to do."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quickcomm.capacity.adapters.samples import read_input
from quickcomm.cli.main import main
from quickcomm.cli.plan_report import verdict

PAGE = Path(__file__).parents[2] / "docs" / "what-will-it-cost.md"


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def blocks() -> list[tuple[list[str], str]]:
    """The commands of the page, block by block, and what it shows of the output of the last one."""
    found = re.findall(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE.read_text(), re.DOTALL)
    return [(commands.splitlines(), shown) for commands, shown in found]


def check_page(*, searching: bool) -> int:
    ran = 0
    for commands, shown in blocks():
        if any("--search" in command for command in commands) is not searching:
            continue
        for command in commands:
            done = plan(*shlex.split(command)[2:])
            assert done.exit_code == 0, (command, done.output)
            assert "--json" in command or max(map(len, done.output.splitlines())) <= 100
            ran += 1
        assert shown in done.output
    return ran


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_page(searching=False) == 5
    assert "services" in (tmp_path / "cost.svg").read_text()


@pytest.mark.long
def test_the_search_of_the_page() -> None:
    assert check_page(searching=True) == 1


def test_the_files_of_the_page(tmp_path: Path) -> None:
    load, prices = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "load.toml").write_text(load)
    (tmp_path / "prices.toml").write_text(prices)
    done = plan("--load", str(tmp_path / "load.toml"), "--prices", str(tmp_path / "prices.toml"))
    assert "Prices: Our rack, 2026-11-30." in done.output
    assert "EUR a month" in done.output


def test_json_has_what_the_table_has() -> None:
    told = json.loads(plan("--load", "call-centre-rare", "--json").output)
    assert told["saving"] == pytest.approx(1 - told["services"]["month"] / told["monolith"]["month"])
    assert sum(told["contributions"].values()) == pytest.approx(told["monolith"]["month"] - told["services"]["month"])
    assert {pool["machine"] for pool in told["services"]["pools"]} == {"c6a.large", "g5.xlarge"}
    assert {figure["origin"] for figure in told["not_measured"]} == {"published", "assumed"}


def test_a_verdict_never_flatters() -> None:
    assert "That is 1.0" in verdict(0.04, 1.04)
    assert "cost 8% more" in verdict(-0.08, 0.9)
    assert "does not hold" in verdict(0.5, 3.1)
    assert "does not hold" in verdict(0.34, 4.0)
    assert "holds" in verdict(0.35, 3.2)
    assert "not" not in verdict(0.35, 3.2)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--load", "big-motel"), "no sample of loads. Samples: big-hotel, call-centre"),
        (("--target", "0.9", "--lost", "0.8"), "must not be below --target"),
        (("--model", "cloud"), "'gpu', 'shared-gpu', 'tokens'"),
        (("--chart", "cost.pdf", "--load", "small-hotel"), "a chart is written as .svg or .png"),
        (("--units", str(PAGE)), "quickcomm bench units"),
        (("--prices", str(PAGE)), "An example is in docs/what-will-it-cost.md"),
    ],
)
def test_errors_say_what_to_do(arguments: tuple[str, ...], why: str) -> None:
    done = plan(*arguments)
    assert done.exit_code != 0
    assert why in done.output


def test_what_unit_costs_lack_is_said(tmp_path: Path) -> None:
    units = json.loads(read_input("units", "speech-on-cpu"))
    services = units["deployments"]["services"]
    units["deployments"]["services"] = [unit for unit in services if unit["module"] != "database"]
    (tmp_path / "units.json").write_text(json.dumps(units))
    done = plan("--load", "small-hotel", "--units", str(tmp_path / "units.json"))
    assert "Not counted, because the unit costs lack it: database (services)." in done.output


def test_samples_are_not_written_over(tmp_path: Path) -> None:
    assert plan("--write-samples", str(tmp_path)).exit_code == 0
    [load] = tmp_path.glob("loads/resort.toml")
    load.write_text("mine")
    done = plan("--write-samples", str(tmp_path))
    assert (done.exit_code, load.read_text()) == (1, "mine")
    assert "exists. Name another folder." in done.output


def test_a_chart_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("1.svg", "2.svg", "1.png", "2.png"):
        assert plan("--load", "small-hotel", "--model", "tokens", "--chart", str(tmp_path / name)).exit_code == 0
    first, second = ((tmp_path / name).read_bytes() for name in ("1.svg", "2.svg"))
    assert first == second
    assert b"conversations at the busiest time" in first
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_without_matplotlib_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = plan("--load", "small-hotel", "--chart", str(tmp_path / "cost.svg"))
    assert done.exit_code == 1
    assert "pip install 'quickcomm[plan]'" in done.output
    assert "monolith:" in done.output
