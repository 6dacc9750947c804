"""The tutorial "Taking it apart": each of its commands as it stands there, in one shell, from the first to the last."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
from tests.support.ports import free_port
from tests.support.server import quickcomm

ROOT: Final = Path(__file__).parents[2]
TUTORIAL: Final = ROOT / "docs" / "taking-it-apart.md"
BLOCK: Final = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
INSTALLED: Final = ("make install",)
"""Done by whoever runs the tests."""
WITHIN_S: Final = 1_200.0


def script() -> str:
    lines = [line for block in BLOCK.findall(TUTORIAL.read_text()) for line in block.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(INSTALLED))


@pytest.mark.long
def test_every_command_of_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("src", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        ["/bin/bash", "-euxo", "pipefail", "-c", script()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        env={**os.environ, "QUICKCOMM_DATA_DIR": str(data), "PORT": str(free_port())},
        check=False,
    )
    quickcomm("down", "--data-dir", str(data), timeout=120)
    assert done.returncode == 0, done.stderr[-6000:]
    heard = [(tmp_path / f"{channel}.log").read_text() for channel in ("housekeeping", "engineering")]
    assert all("Traceback" not in text for text in heard)
    assert all(len(text.splitlines()) > 5 for text in heard)
