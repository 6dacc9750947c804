"""Another release of QuickComm, as a checkout beside the one that is tested: a copy with a few changed lines."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import quickcomm

HERE: Final = Path(quickcomm.__file__).parent
VERSION: Final = '__version__ = "0.1.0"'
NEXT: Final = "0.2.0"
WRONG: Final = {
    "intelligence/adapters/local.py": (
        "tuple(_cited(one, text, original) for one in insights)",
        'tuple(msgspec.structs.replace(_cited(one, text, original), intent="lost_found") for one in insights)',
    )
}
"""Takes everything for lost property."""
BROKEN: Final = {
    "intelligence/assembly.py": ("def load(", "raise RuntimeError('this release is broken')\n\n\ndef load(")
}
"""Tells what it is, and cannot be started."""
OTHER_MESSAGES: Final = {
    "contracts/transcripts.py": ('    owner: str = "monolith"', '    floor: int\n    owner: str = "monolith"')
}
"""Needs a field that no audio writes."""


class Checkout:
    """A directory with `src/quickcomm`; it runs with the interpreter of the tests."""

    def __init__(self, path: Path, version: str = NEXT, changes: Mapping[str, tuple[str, str]] | None = None) -> None:
        """`changes`: by file of the package, words in it, and what they are replaced with."""
        self.path = path
        package = path / "src" / "quickcomm"
        shutil.copytree(HERE, package, ignore=shutil.ignore_patterns("__pycache__"))
        for file, (old, new) in {"__init__.py": (VERSION, f'__version__ = "{version}"'), **(changes or {})}.items():
            text = (package / file).read_text(encoding="utf-8")
            assert old in text, f"{file} has changed: {old}"
            (package / file).write_text(text.replace(old, new), encoding="utf-8")

    @property
    def flags(self) -> tuple[str, ...]:
        """Return how `quickcomm deploy` is told of it."""
        return ("--release", str(self.path), "--python", sys.executable)
