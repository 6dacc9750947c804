"""Another release of intelligence takes its place on a running site, or is taken back, while people talk."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_check import check
from tests.e2e.test_intelligence_moves import GATES, SAMPLES, answered_once
from tests.support.releasing import BROKEN, NEXT, OTHER_MESSAGES, WRONG, Checkout
from tests.support.resuming import assert_as_undisturbed, assert_listed_once, stream
from tests.support.routing import routing
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk, shift_talk

from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.kernel.runtime.releases import releases_of

NAME: Final = "intelligence"
LINES: Final = 3
"""Talk at once, so that a gate soon has its samples: 229 answers of the release, for the 99th percentile."""
PATIENT: Final = GATES | {
    "QUICKCOMM_TRAFFIC_BAKE_S": "0",
    "QUICKCOMM_TRAFFIC_ANSWER_MS": "10000",  # how fast this machine is is no matter here
    "QUICKCOMM_BUDGETS_QUEUE": "10000",
}
Json = dict[str, Any]


async def asked(site: Site, *words: str, status: int = 0) -> str:
    """Run a command about the site; return what it says, also beside its output where it fails."""
    where = ("--data-dir", str(site.data_dir))
    return await asyncio.to_thread(quickcomm, *words, *where, timeout=600, statuses=(status,), errors=status != 0)


async def moved(site: Site) -> None:
    """Have intelligence be a service, which the monolith does without."""
    await asyncio.to_thread(site.start)
    await asked(site, "migrate", "start", NAME, "--force")
    await asked(site, "migrate", "promote", NAME, "--force")
    assert "retired" in await asked(site, "migrate", "step", NAME, "--force")


async def status(site: Site) -> Json:
    found: list[Json] = json.loads(await asked(site, "migrate", "status", "--json"))["modules"]
    return next(each for each in found if each["name"] == NAME)


async def until(site: Site, holds: Callable[[Json], bool]) -> Json:
    async with asyncio.timeout(3 * EVENTUALLY_S):
        while not holds(found := await status(site)):  # noqa: ASYNC110 - the controller tells nobody
            await asyncio.sleep(0.2)
    return found


async def modules(site: Site) -> set[str]:
    return {row["module"] for row in await asyncio.to_thread(site.status)}


async def test_a_release_takes_the_place_of_a_service_while_somebody_talks(
    new_site: NewSite, talk: Talk, tmp_path: Path
) -> None:
    site, release = new_site("--deployment", "monolith"), Checkout(tmp_path / "next")
    await moved(site)
    key = await asyncio.to_thread(site.key)
    undisturbed = await stream(site.url, key, talk.wire)
    async with routing(site) as routes:
        talking = asyncio.create_task(stream(site.url, key, talk.wire, paced=True))
        said = await asked(site, "deploy", NAME, *release.flags, "--by-hand")
        side = (await status(site))["candidate"]
        assert side.startswith(f"service@{NEXT}-")
        assert "shadow, service decides" in said
        place = f"{NAME}@{side[-6:]}"
        assert {NAME, place} <= await modules(site)
        await asked(site, "migrate", "promote", NAME, "--force")
        assert side in await asked(site, "migrate", "status")
        assert "retired" in await asked(site, "migrate", "step", NAME, "--force")
        assert_as_undisturbed(heard := await talking, undisturbed)
        assert await answered_once(routes, heard) <= {SERVICE, side}
        again = await stream(site.url, key, talk.wire)
        assert_as_undisturbed(again, undisturbed)
        assert await answered_once(routes, again) == {side}
    await assert_listed_once(site, again)
    there = await modules(site)
    assert place in there
    assert NAME not in there
    assert releases_of(site.data_dir).serves(NAME) == side
    assert not (site.data_dir / NAME).exists(), "what the former one kept is deleted"
    assert await asked(site, "prompts", "list"), "commands find it"
    assert "settle" in await asked(site, "migrate", "history", "--module", NAME)


@pytest.mark.long
async def test_a_release_passes_the_gates_by_itself_survives_a_restart_and_is_followed_by_the_next(
    new_site: NewSite, tmp_path: Path
) -> None:
    site = new_site("--deployment", "monolith", **PATIENT)
    await moved(site)
    key, wire = await asyncio.to_thread(site.key), shift_talk().wire
    undisturbed = await stream(site.url, key, wire)
    for number, version in enumerate((NEXT, "0.3.0")):
        release = Checkout(tmp_path / version, version)
        deploying = asyncio.create_task(asked(site, "deploy", NAME, *release.flags, "--share", "50"))
        heard = []
        while not deploying.done():
            heard += await asyncio.gather(*(stream(site.url, key, wire) for _ in range(LINES)))
        assert "retired" in await deploying
        for each in heard:
            assert_as_undisturbed(each, undisturbed)
        side = (await status(site))["candidate"]
        assert side.startswith(f"service@{version}-")
        if not number:
            assert sum(len(each.utterances) for each in heard) >= SAMPLES
            await asyncio.to_thread(site.down)
            site.launch()
            await asyncio.to_thread(site.wait_ready)
            assert f"{NAME}@{side[-6:]}" in await modules(site)
            await asked(site, "restart", NAME)
    async with routing(site) as routes:
        last = await stream(site.url, key, wire)
        assert await answered_once(routes, last) == {side}
        await asked(site, "migrate", "start", NAME, "--to", "monolith", "--force")
        await asked(site, "migrate", "rollback", NAME)
        assert await answered_once(routes, await stream(site.url, key, wire)) == {MONOLITH}
    findings, totals = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
    assert (findings, totals["findings"]) == ([], 0)


@pytest.mark.long
async def test_a_release_that_understands_otherwise_is_back_by_itself(new_site: NewSite, tmp_path: Path) -> None:
    site = new_site("--deployment", "monolith", **GATES)
    await moved(site)
    key, wire = await asyncio.to_thread(site.key), shift_talk().wire
    undisturbed = await stream(site.url, key, wire)
    wrong = Checkout(tmp_path / "wrong", changes=WRONG)
    deploying = asyncio.create_task(asked(site, "deploy", NAME, *wrong.flags, status=1))
    while not deploying.done():
        assert_as_undisturbed(await stream(site.url, key, wire), undisturbed)
    assert "agreement" in await deploying
    back = await until(site, lambda module: not module["change"])
    assert (back["candidate"], back["base"], back["mode"]) == (SERVICE, MONOLITH, "retired")
    assert {each for each in await modules(site) if each.startswith(NAME)} == {NAME}
    async with routing(site) as routes:
        assert await answered_once(routes, await stream(site.url, key, wire)) == {SERVICE}


@pytest.mark.long
async def test_what_cannot_serve_is_refused_or_taken_back(new_site: NewSite, tmp_path: Path) -> None:
    site = new_site("--deployment", "monolith")
    await moved(site)
    other = Checkout(tmp_path / "other", changes=OTHER_MESSAGES)
    refused = await asked(site, "deploy", NAME, *other.flags, status=1)
    assert "transcripts.v1, from audio: floor is missing" in refused
    assert "Nothing was started" in refused
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no interpreter" in await asked(site, "deploy", NAME, "--release", str(empty), status=1)
    assert "cannot be deployed as a release yet" in await asked(site, "deploy", "audio", *other.flags, status=1)
    assert "no release is on its way" in await asked(site, "deploy", NAME, "--rollback", status=1)
    broken = Checkout(tmp_path / "broken", changes=BROKEN)
    assert "is not ready after" in await asked(site, "deploy", NAME, *broken.flags, status=1)
    back = await until(site, lambda module: not module["change"])
    assert (back["candidate"], back["mode"]) == (SERVICE, "retired")
    release = Checkout(tmp_path / "next")
    await asked(site, "deploy", NAME, *release.flags, "--by-hand")
    await asked(site, "migrate", "step", NAME, "--force")
    assert "shadow" in await asked(site, "deploy", NAME, "--rollback")
    back = await until(site, lambda module: module["mode"] == "retired" and not module["change"])
    assert back["candidate"] == SERVICE
    assert {each for each in await modules(site) if each.startswith(NAME)} == {NAME}
