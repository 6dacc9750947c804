"""Which release of a service a site has, and where its data is."""

from pathlib import Path
from typing import Final

import pytest

from quickcomm.contracts.routes import SERVICE, side_of
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.releases import FILE, Release, Releases, keep, releases_of

NAME: Final = "intelligence"
FIRST: Final = "0.2.0-3f2a91"
SECOND: Final = "0.3.0-aabbcc"


def release(name: str) -> Release:
    return Release(name=name, side=side_of(name), directory="/opt/next", python="/opt/next/bin/python")


@pytest.fixture
def site(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path)


def test_without_other_releases_a_site_has_its_own(site: DataDirectory) -> None:
    assert site.intelligence.path == site.path / NAME
    assert [part.path for part in site.parts(NAME)] == [site.path / NAME]
    assert releases_of(site.path) == Releases()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_file_that_cannot_be_read_is_told_and_not_taken_for_none(site: DataDirectory, content: bytes) -> None:
    (site.path / FILE).write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"releases\.json cannot be read"):
        _ = site.intelligence


def test_a_release_that_is_compared_has_a_part_of_its_own(site: DataDirectory) -> None:
    keep(site.path, Releases().with_release(NAME, release(FIRST)))
    assert site.intelligence.path == site.path / NAME, "the service still serves"
    place = site.path / "intelligence@3f2a91"
    assert site.part(NAME, side_of(FIRST)).path == place
    assert site.part(NAME, side_of(FIRST)).database.name == "intelligence.sqlite"
    place.mkdir()
    assert [part.path for part in site.parts(NAME)] == [site.path / NAME, place]


def test_what_serves_is_found_under_the_name_of_the_module(site: DataDirectory) -> None:
    releases = Releases().with_release(NAME, release(FIRST)).going_on(NAME, side_of(FIRST), SERVICE)
    keep(site.path, releases)
    assert site.intelligence.path == site.path / "intelligence@3f2a91"
    assert site.dashboard.path == site.path / "dashboard"
    assert (site.path / FILE).stat().st_mode & 0o777 == 0o600
    after = releases.with_release(NAME, release(SECOND)).going_on(NAME, side_of(SECOND), side_of(FIRST))
    assert after.serves(NAME) == side_of(SECOND)
    assert after.sides(NAME) == (SERVICE, side_of(SECOND))
    assert after.of(NAME, side_of(FIRST)) is None


def test_one_that_was_taken_back_is_forgotten() -> None:
    releases = Releases().with_release(NAME, release(FIRST))
    assert releases.with_release(NAME, release(FIRST)) == releases, "asked again, it is there once"
    assert releases.going_on(NAME, SERVICE, side_of(FIRST)) == Releases(known={NAME: ()})
