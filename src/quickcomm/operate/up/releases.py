"""Other releases of services on a running site: asked what they are, checked, given a row, and forgotten again."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from quickcomm.apps import DEPLOYMENTS
from quickcomm.contracts.commands import InstallRelease
from quickcomm.contracts.routes import MONOLITH, SERVICE, Side, place_of, side_of
from quickcomm.intelligence.model.settings import StoreSettings
from quickcomm.kernel.errors import MALFORMED, ConfigurationError, ConflictError
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.releases import Release, Releases, keep, place_at, releases_of
from quickcomm.operate.fitting import MOST_TOLD, misfits
from quickcomm.operate.release import Told, own
from quickcomm.operate.up.modules import Site, release_row
from quickcomm.topology.module import Fleet, Module

TELLS_WITHIN_S: Final = 30.0
SHOWN: Final = 400
"""Characters at the end of what a release says that cannot tell what it is."""
DEPLOYABLE: Final = ("intelligence",)
"""The modules of which two releases can serve at once."""

log = structlog.get_logger(__name__)


class ReleaseError(ConfigurationError):
    """A release cannot be used here; the text says why."""

    code = "release.refused"


class Installer:
    """Keeps the file of releases, and the rows of the fleet that follow from it."""

    def __init__(
        self,
        shape: str,
        site: Site,
        fleet: Fleet,
        own_places: dict[str, DataDirectory | None],
        prioritised: Callable[[Module], Module],
    ) -> None:
        """`own_places`: gets the place where a release answers operators. `prioritised`: says how much it yields."""
        self._shape = shape
        self._apps = {app.name: app for app in DEPLOYMENTS[shape]}
        self._site = site
        self._fleet = fleet
        self._own = own_places
        self._prioritised = prioritised
        self._path = site.layout.directory.path
        self._changing = asyncio.Lock()

    async def install(self, request: InstallRelease) -> Release:
        """Have the site know a release. Raises `ReleaseError` where it is no other one, or does not fit."""
        self._check_possible(request.name)
        told, source = await self._told(request.directory, request.python)
        async with self._changing:
            releases = releases_of(self._path)
            here = await self._running(releases)
            if told.digest == here[request.name].digest:
                raise ReleaseError(
                    f"{request.name} runs {told.name} already: the files of {request.directory} are the same."
                )
            found = await asyncio.to_thread(misfits, request.name, told, here)
            if found:
                more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
                raise ReleaseError(
                    f"{request.name} of {told.name} does not fit to this site: {'; '.join(found[:MOST_TOLD])}{more}. "
                    "Nothing was started. Deploy first what both sides understand."
                )
            release = Release(
                name=told.name,
                side=side_of(told.name),
                directory=request.directory,
                python=request.python,
                source=source,
                version=told.version,
                digest=told.digest,
            )
            keep(self._path, self._living(releases).with_release(request.name, release))
            row = release_row(self._apps[request.name], self._site, release)
            self._fleet.put(self._prioritised(row.module))
            self._own[row.module.name] = row.own
        log.info("release.installed", module=request.name, release=release.name)
        return release

    async def go_on(self, module: str, side: Side, without: Side) -> None:
        """Go on with one side alone. Raises `ScaleError` while a process of the other one runs."""
        async with self._changing:
            if MONOLITH in {side, without} or side == without:
                raise ConflictError(f"{module}: a site goes on with one of two releases of a service.")
            releases = releases_of(self._path)
            gone = place_of(module, without)
            if without != SERVICE:
                self._fleet.drop(gone)
                self._own.pop(gone, None)
            keep(self._path, releases.going_on(module, side, without))
            await asyncio.to_thread(shutil.rmtree, place_at(self._path, module, without), ignore_errors=True)
        log.info("release.goes_on", module=module, side=side, without=without)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _check_possible(self, module: str) -> None:
        if self._shape != MONOLITH:
            raise ReleaseError(
                f"A site of the deployment {self._shape} has no controller that could compare two releases. It can be "
                "done on one that was migrated from a monolith: docs/deploy-a-release.md"
            )
        if module not in DEPLOYABLE or self._apps[module].side != SERVICE:
            raise ReleaseError(f"{module} cannot be deployed as a release yet. There are: {', '.join(DEPLOYABLE)}.")
        if self._site.settings.of(StoreSettings).database_url is not None:
            raise ReleaseError(
                f"{module} keeps what it has in PostgreSQL (QUICKCOMM_INTELLIGENCE_DATABASE_URL), and a release needs "
                "a database of its own. That is not built yet."
            )

    def _living(self, releases: Releases) -> Releases:
        """Return them without those that were refused before a process of them was started."""
        there = {keeper.module for keeper in self._fleet.keepers}
        return msgspec.structs.replace(
            releases,
            known={
                module: tuple(
                    each
                    for each in known
                    if each.side == releases.serves(module) or place_of(module, each.side) in there
                )
                for module, known in releases.known.items()
            },
        )

    async def _running(self, releases: Releases) -> dict[str, Told]:
        """Return what each module of the site tells that it is."""
        here = await asyncio.to_thread(own)
        found = dict.fromkeys([*here.modules, *(each.module for each in here.requests.values())], here)
        for module in here.modules:
            release = releases.of(module, releases.serves(module))
            if release is not None:
                found[module], _ = await self._told(release.directory, release.python)
        return found

    async def _told(self, directory: str, python: str) -> tuple[Told, str]:
        """Ask a release what it is; return that, and the directory that goes before those of its interpreter."""
        source = Path(directory) / "src"
        first = str(source) if (source / "quickcomm" / "__init__.py").is_file() else ""
        try:
            process = await asyncio.create_subprocess_exec(
                *(python, "-m", "quickcomm.cli.main", "release", "--json"),
                env={**os.environ, "PYTHONPATH": first},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise ReleaseError(f"{python} cannot be started: {error.strerror}.") from error
        try:
            async with asyncio.timeout(TELLS_WITHIN_S):
                said, wrong = await process.communicate()
        except TimeoutError as error:
            process.kill()
            raise ReleaseError(f"{directory} does not tell what it is within {TELLS_WITHIN_S:.0f} s.") from error
        try:
            told = msgspec.json.decode(said, type=Told)
        except MALFORMED as error:
            because = wrong.decode(errors="replace").strip()[-SHOWN:] or str(error)
            raise ReleaseError(f"{directory} does not tell what it is: {because}") from error
        if not _is_inside(told.package, directory):
            raise ReleaseError(f"{python} runs the QuickComm of {told.package}, which is not in {directory}.")
        return told, first


def _is_inside(path: str, directory: str) -> bool:
    return Path(path).resolve().is_relative_to(Path(directory).resolve())
