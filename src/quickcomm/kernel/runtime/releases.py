"""Which releases of its services a site knows, and which one serves: `releases.json` in its data directory.

`up` writes it; every process and command reads it to find what a service has. Without the file, the site runs its own
release of everything.
"""

from pathlib import Path
from typing import Final

import msgspec

from quickcomm.contracts.routes import SERVICE, Side, place_of
from quickcomm.kernel.errors import MALFORMED

FILE: Final = "releases.json"


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Another release of a service: `directory` and `python` as the operator named them.

    `source`: the directory of Python modules that goes before those of the interpreter; empty: none.
    """

    name: str
    side: Side
    directory: str
    python: str
    source: str = ""
    version: str = ""
    digest: str = ""


class Releases(msgspec.Struct, frozen=True, kw_only=True):
    """By module: the side that serves where it is a release, and all releases that have processes."""

    serving: dict[str, Side] = {}
    known: dict[str, tuple[Release, ...]] = {}

    def of(self, module: str, side: Side) -> Release | None:
        """Return the release that a side of a module runs; None for one of the site's own."""
        return next((each for each in self.known.get(module, ()) if each.side == side), None)

    def serves(self, module: str) -> Side:
        return self.serving.get(module, SERVICE)

    def sides(self, module: str) -> tuple[Side, ...]:
        """Return the service as the site has it, and all other releases of it."""
        return (SERVICE, *(each.side for each in self.known.get(module, ())))

    def with_release(self, module: str, release: Release) -> "Releases":
        """Return them with a release more."""
        others = [each for each in self.known.get(module, ()) if each.side != release.side]
        return msgspec.structs.replace(self, known={**self.known, module: (*others, release)})

    def going_on(self, module: str, side: Side, without: Side) -> "Releases":
        """Return them with one side that serves, and another one that is gone."""
        known = {**self.known, module: tuple(each for each in self.known.get(module, ()) if each.side != without)}
        serving = {name: each for name, each in self.serving.items() if name != module}
        if side != SERVICE:
            serving[module] = side
        return Releases(serving=serving, known=known)


def releases_of(site: Path) -> Releases:
    """Return the releases that a site knows; none where there is no readable file."""
    try:
        return msgspec.json.decode((site / FILE).read_bytes(), type=Releases)
    except (OSError, *MALFORMED):
        return Releases()


def keep(site: Path, releases: Releases) -> None:
    """Replace the file as a whole. Raises `OSError`."""
    new = site / f".{FILE}.new"
    new.touch(mode=0o600)
    new.write_bytes(msgspec.json.format(msgspec.json.encode(releases)))
    new.replace(site / FILE)


def place_at(site: Path, module: str, side: Side = "") -> Path:
    """Return the directory of a service; without a side, of the one that serves."""
    return site / place_of(module, side or releases_of(site).serves(module))
