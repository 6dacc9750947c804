"""Another version of the code is put in place while a site runs: `restart` takes it up, a process at a time."""

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.resuming import assert_as_undisturbed, assert_listed_once, stream
from tests.support.server import command, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk

import quickcomm as package
from quickcomm.client.audio_client import Event
from quickcomm.contracts.audio_socket import Utterance
from quickcomm.kernel.discovery import DirectoryRegistry, Instance

NEXT: Final = "9.9.9"
NOT_OURS: Final = frozenset({"up", "supervisor", "valkey", "edge"})
LOOK_EVERY_S: Final = 0.02


class Release:
    """A copy of the package that a site runs from, which can be replaced by the next version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = Path(package.__file__).parent
        shutil.copytree(source, folder / "quickcomm", ignore=shutil.ignore_patterns("__pycache__"))

    def upgrade(self) -> None:
        """As an installer does: the files are other ones, while the old ones run."""
        file = self.folder / "quickcomm" / "__init__.py"
        text, count = re.subn(r'__version__ = ".*"', f'__version__ = "{NEXT}"', file.read_text())
        assert count == 1
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(file)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "release")


@pytest.fixture
def site(tmp_path: Path, release: Release) -> Iterator[Site]:
    made = Site(tmp_path / "data", "--deployment", "services", PYTHONPATH=str(release.folder))
    try:
        made.start()
        yield made
    finally:
        made.make_sure()


def versions(site: Site) -> dict[str, set[str]]:
    """Of each module of ours."""
    found: dict[str, set[str]] = {}
    for row in site.status():
        if row["module"] not in NOT_OURS:
            found.setdefault(row["module"], set()).add(row["version"])
    return found


def rolled(site: Site, module: str) -> list[list[Instance]]:
    """Run `quickcomm restart`; return the module's processes that could be found, at every moment meanwhile."""
    registry = DirectoryRegistry(site.layout.instances)
    arguments = [command(), "restart", module, "--data-dir", str(site.data_dir)]
    moments: list[list[Instance]] = []
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as restarting:
        while restarting.poll() is None:
            moments.append([each for each in registry.instances() if each.module == module])
            time.sleep(LOOK_EVERY_S)
    assert restarting.returncode == 0
    return moments


def assert_new_before_old(moments: list[list[Instance]], old: str) -> None:
    """Assert that the first process goes after the first new one was there, and the second after the second.

    By process and not by count: on a busy machine one may be late to say that it lives, and is not found for a moment.
    """
    pids = {each.pid: each.version for moment in moments for each in moment}
    seen = {pid: [at for at, moment in enumerate(moments) if pid in {each.pid for each in moment}] for pid in pids}
    came = sorted(seen[pid][0] for pid, version in pids.items() if version == NEXT)
    went = sorted(seen[pid][-1] for pid, version in pids.items() if version == old)
    assert len(came) >= len(went) >= 2
    assert all(new <= gone for new, gone in zip(came, went, strict=False)), "A new one serves before an old one goes."


class Restart:
    """Begins at the first utterance."""

    def __init__(self, site: Site, module: str, tasks: asyncio.TaskGroup) -> None:
        self.begun = False
        self._site = site
        self._module = module
        self._tasks = tasks

    def __call__(self, event: Event) -> None:
        if isinstance(event, Utterance) and not self.begun:
            self.begun = True
            self._tasks.create_task(asyncio.to_thread(rolled, self._site, self._module))


@pytest.mark.long
async def test_modules_take_up_a_new_version_one_by_one_while_people_talk(
    site: Site, release: Release, talk: Talk
) -> None:
    old = package.__version__
    key = await asyncio.to_thread(site.key)
    undisturbed = await stream(site.url, key, talk.wire)
    before = await asyncio.to_thread(versions, site)
    assert set(before) >= {"dashboard"}
    assert all(each == {old} for each in before.values())
    release.upgrade()
    done: set[str] = set()
    for module in before:
        async with asyncio.TaskGroup() as tasks:
            restart = Restart(site, module, tasks)
            heard = await stream(site.url, key, talk.wire, restart)
        assert restart.begun
        assert_as_undisturbed(heard, undisturbed)
        done.add(module)
        now = await asyncio.to_thread(versions, site)
        assert now == {name: {NEXT if name in done else old} for name in before}
        await assert_listed_once(site, heard)


@pytest.mark.long
async def test_of_several_processes_the_old_and_the_new_serve_side_by_side(site: Site, release: Release) -> None:
    old = package.__version__
    where = ("--data-dir", str(site.data_dir))
    several = []
    for module in await asyncio.to_thread(versions, site):
        said = await asyncio.to_thread(quickcomm, "scale", f"{module}=2", *where, timeout=300, statuses=(0, 1))
        several += [module] if said else []
    assert "audio" in several
    release.upgrade()
    for module in several:
        moments = await asyncio.to_thread(rolled, site, module)
        assert_new_before_old(moments, old)
        assert any({old, NEXT} <= {each.version for each in moment} for moment in moments)
        assert sum(len(moment) > 3 for moment in moments) == 0, "One at a time."
        assert (await asyncio.to_thread(versions, site))[module] == {NEXT}
