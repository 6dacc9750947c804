"""Prints the test files that load a module of QuickComm: what its pipeline runs.

`python -m tools.tests_of intelligence`: files of unit, contract and integration tests, one a line. Loaded is what a
file imports, also through files of `tests/support`.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
KINDS: Final = ("unit", "contract", "integration")
"""End-to-end tests run processes of all modules, and are run with a whole release."""
MODULES: Final = ("audio", "intelligence", "dashboard")


def files_loading(module: str, root: Path) -> list[Path]:
    """Return the test files that load a module, relative to the root, in order."""
    wanted = f"quickcomm.{module}"
    found = [path for kind in KINDS for path in sorted((root / "tests" / kind).rglob("test_*.py"))]
    return [path.relative_to(root) for path in found if _loads(path, wanted, root)]


def _loads(path: Path, wanted: str, root: Path) -> bool:
    names = set(_names(path, root, frozenset()))
    return any(name == wanted or name.startswith(f"{wanted}.") for name in names)


def _names(path: Path, root: Path, seen: frozenset[Path]) -> Iterator[str]:
    """Yield what a file imports, and what files of the tests do that it imports."""
    for name in _imports(path):
        yield name
        if name.startswith("tests."):
            other = root.joinpath(*name.split(".")).with_suffix(".py")
            if other.is_file() and other not in seen:
                yield from _names(other, root, seen | {path, other})


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return the modules that a file imports; of `from a import b`, both `a` and `a.b`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
    return tuple(dict.fromkeys(found))


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in MODULES:  # noqa: PLR2004 - the program and a module
        sys.stderr.write(f"usage: python -m tools.tests_of {'|'.join(MODULES)}\n")
        return 2
    sys.stdout.writelines(f"{path}\n" for path in files_loading(sys.argv[1], ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
