"""Samples that come with QuickComm: loads, prices, unit costs, days of metrics. Each is named in place of a file."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, Literal

from quickcomm.kernel.errors import ConflictError, NotFoundError

Kind = Literal["loads", "prices", "units", "days"]
KINDS: Final[tuple[Kind, ...]] = ("loads", "prices", "units")
"""What a plan reads."""
_ROOT: Final = files("quickcomm.capacity") / "samples"


def samples(kind: Kind) -> dict[str, Traversable]:
    """Return files by name, in alphabetical order."""
    found = sorted((_ROOT / kind).iterdir(), key=lambda file: file.name)
    return {file.name.rpartition(".")[0]: file for file in found}


def read_input(kind: Kind, name: str) -> bytes:
    """Read a file, or the sample of this name. Raises `NotFoundError` that lists the samples."""
    path = Path(name)
    if path.is_file():
        return path.read_bytes()
    known = samples(kind)
    if name in known:
        return known[name].read_bytes()
    raise NotFoundError(f"{name} is no file, and no sample of {kind}. Samples: {', '.join(known)}.")


def write_samples(folder: Path) -> list[Path]:
    """Write all samples into a folder, below `loads`, `prices` and `units`.

    Raises `ConflictError`, and writes nothing, where one of them is there already.
    """
    targets = {folder / kind / file.name: file for kind in KINDS for file in samples(kind).values()}
    for target in targets:
        if target.exists():
            raise ConflictError(f"{target} exists. Name another folder.")
    for target, file in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return list(targets)
