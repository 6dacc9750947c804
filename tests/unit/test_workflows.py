"""The pipelines of the services: each looks at its own files, and runs tests that load its module."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tools.tests_of import MODULES, files_loading

ROOT: Final = Path(__file__).parents[2]
WORKFLOWS: Final = ROOT / ".github/workflows"


def workflow(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_pipeline_looks_at_its_own_module_and_at_what_all_share(module: str) -> None:
    found = workflow(module)
    on = found[True]  # YAML 1.1 takes `on` for a truth value
    paths = on["push"]["paths"]
    assert on["pull_request"]["paths"] == paths
    assert {f"src/quickcomm/{each}/**" for each in (module, "contracts", "kernel")} <= set(paths)
    others = [each for each in MODULES if each != module]
    assert not any(f"/{other}/" in path for path in paths for other in others)
    assert all((ROOT / path.removesuffix("/**")).exists() for path in paths)
    [job] = found["jobs"].values()
    assert job["with"] == {"module": module}
    assert (ROOT / job["uses"]).is_file()


@pytest.mark.parametrize("module", MODULES)
def test_a_pipeline_runs_the_tests_that_load_its_module(module: str) -> None:
    names = {str(path) for path in files_loading(module, ROOT)}
    assert 10 < len(names) < len(list((ROOT / "tests").rglob("test_*.py")))
    assert all((ROOT / name).is_file() for name in names)


def test_a_test_that_loads_one_module_alone_is_in_one_pipeline() -> None:
    where = {module: {path.name for path in files_loading(module, ROOT)} for module in MODULES}
    assert "test_resample.py" in where["audio"]
    assert "test_resample.py" not in where["dashboard"]
    assert "test_emergencies.py" not in where["audio"]
    assert "test_deciding.py" in where["dashboard"]
