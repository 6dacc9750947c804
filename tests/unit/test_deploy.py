"""What is deployed is valid, as far as the machine has what checks it: units, the compose file, the options in both."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from quickcomm.cli.main import main

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))


def options(command: str) -> set[str]:
    found = main.get_command(click.Context(main), command)
    assert found is not None
    return {name for option in found.params for name in option.opts}


def checked(words: list[str]) -> None:
    """The subcommand is there, and has the options."""
    assert {word for word in words[1:] if word.startswith("--")} <= options(words[0])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command_that_there_is(unit: Path) -> None:
    [command] = re.findall(r"^ExecStart=\S+/quickcomm (.*)$", unit.read_text(), re.MULTILINE)
    checked(command.split())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_valid(unit: Path, tmp_path: Path) -> None:
    """As systemd reads it; the program is only where it is installed."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/quickcomm/bin/quickcomm", shutil.which("true") or "/bin/true"))
    for other in UNITS:
        if other.name != unit.name:
            (tmp_path / other.name).write_text(copy.read_text())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    about = [line for line in done.stderr.splitlines() if unit.name in line]
    assert about == []


def test_the_compose_file_is_as_its_schema_says() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            str(DEPLOY / "compose.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_and_the_image_agree() -> None:
    image = (DEPLOY / "Containerfile").read_text()
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name in ("quickcomm", "site"):
        service = compose["services"][name]
        checked(service["command"])
        mounted = {volume.partition(":")[2] for volume in service["volumes"]}
        [volumes] = re.findall(r"^VOLUME (.*)$", image, re.MULTILINE)
        assert mounted == set(yaml.safe_load(volumes))
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    for sources in re.findall(r"^COPY (?!--)(.*) \S+$", image, re.MULTILINE):
        assert all((DEPLOY.parent / each).exists() for each in sources.split()), sources
    [command] = re.findall(r"^CMD (\[.*\])$", image, re.MULTILINE)
    checked(yaml.safe_load(command))
