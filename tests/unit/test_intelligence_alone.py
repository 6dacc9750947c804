"""Intelligence as a service needs its own module, kernel and contracts: it starts where there is nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[2] / "src/quickcomm"
COMMAND: Final = ("__init__", "main", "services", "options", "logs")
HEAVY: Final = frozenset({"faster_whisper", "av", "soundfile", "onnxruntime"})
PROGRAM: Final = """
import json, sys
import quickcomm.cli.services
import quickcomm.kernel.runtime.app
import quickcomm.intelligence.assembly
print(json.dumps([quickcomm.__file__, sorted(sys.modules)]))
"""


def copied(root: Path) -> Path:
    """A tree with what the service needs, and nothing else; it goes on the path of Python."""
    tree = root / "quickcomm"
    for folder in ("contracts", "kernel", "intelligence", "packs"):
        shutil.copytree(SOURCE / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "__init__.py", tree)
    (tree / "cli").mkdir()
    for name in COMMAND:
        shutil.copy(SOURCE / "cli" / f"{name}.py", tree / "cli")
    return root


def test_the_service_is_imported_from_a_tree_that_has_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(copied(tmp_path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, modules = json.loads(done.stdout)
    assert Path(where).is_relative_to(tmp_path)
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()
    assert not [name for name in modules if name.startswith(("quickcomm.audio", "quickcomm.dashboard"))]
