"""`quickcomm bench` finds the benchmarks of its own checkout, says where there is none, and gives their JSON."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import quickcomm
from quickcomm.cli import bench as cli_bench
from quickcomm.cli.main import main


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a checkout with benchmarks that say how they were called."""
    package = tmp_path / "src" / "quickcomm"
    for folder in (package, tmp_path / "benchmarks", tmp_path / "tests" / "support"):
        folder.mkdir(parents=True)
    (tmp_path / "benchmarks" / "__init__.py").touch()
    told = "import json, sys\nprint('a table')\nprint(json.dumps({}))\nsys.exit(3)\n"
    (tmp_path / "benchmarks" / "compare.py").write_text(told.format("{'arguments': sys.argv[1:]}"))
    (tmp_path / "benchmarks" / "capacity.py").write_text(told.format("[{'talkers': 8}, {'talkers': 16}]"))
    monkeypatch.setattr(quickcomm, "__file__", str(package / "__init__.py"))
    return tmp_path


def rows(output: str) -> list[Any]:
    return [json.loads(line) for line in output.splitlines()]


def test_options_go_on_and_the_status_comes_back(checkout: Path) -> None:
    assert cli_bench._source() == checkout
    done = ran("compare", "--quick", "--loads", "audio", "--json")
    assert rows(done.stdout) == [{"arguments": ["--quick", "--loads", "audio"]}]
    assert done.stderr == "a table\n"
    assert done.exit_code == 3


@pytest.mark.usefixtures("checkout")
def test_a_list_is_an_object_a_line() -> None:
    assert rows(ran("capacity", "--json").stdout) == [{"talkers": 8}, {"talkers": 16}]


def test_an_installed_package_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickcomm, "__file__", str(tmp_path / "site-packages" / "quickcomm" / "__init__.py"))
    done = ran("compare")
    assert done.exit_code == 1
    assert "make install" in done.stderr
    assert "quickcomm bench compare" in done.stderr


@pytest.mark.parametrize("name", ["capacity", "hops", "compare", "units"])
def test_each_has_help_and_is_there(name: str) -> None:
    assert ran(name, "--help").exit_code == 0
    source = cli_bench._source()
    assert source is not None
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"benchmarks.{name}" in done.stdout
