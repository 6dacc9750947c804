"""Which releases of its services a site knows, and which one serves: `releases.json` in its data directory.

`up` writes it; every process and command reads it to find what a service has. Without the file, the site runs its own
release of everything.
"""

from pathlib import Path
from typing import Final

import msgspec

from quickcomm.contracts.routes import SERVICE, Side, place_of
from quickcomm.kernel.errors import MALFORMED, ConfigurationError
from quickcomm.kernel.files import replace_file

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
    """Return the releases that a site knows. Raises `ConfigurationError` where the file cannot be read.

    To take that for none would look for what a service has, also for what is to be erased, in the wrong place.
    """
    path = site / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Releases)
    except FileNotFoundError:
        return Releases()
    except (OSError, *MALFORMED) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}); it says which release of a service serves. Mend it, or restore a backup."
        ) from error


def keep(site: Path, releases: Releases) -> None:
    """Replace the file as a whole. Raises `ConfigurationError` where it cannot be written, as on a full disk."""
    try:
        replace_file(site / FILE, msgspec.json.format(msgspec.json.encode(releases)))
    except OSError as error:
        raise ConfigurationError(f"{site / FILE} cannot be written: {error}") from error


def place_at(site: Path, module: str, side: Side = "") -> Path:
    """Return the directory of a service; without a side, of the one that serves."""
    return site / place_of(module, side or releases_of(site).serves(module))
