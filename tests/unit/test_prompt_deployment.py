"""Prompt versions in force: sticky, at once here and soon elsewhere, with a way back and a trail of who did it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tests.support.prompting import PACK, PHRASES, ScriptedModel, built_in_source, examples, named, oracle

from quickcomm.intelligence.adapters.sql_prompts import SqlPrompts, prompts
from quickcomm.intelligence.adapters.sql_results import MIGRATIONS
from quickcomm.intelligence.service.prompt_desk import EVALUATED, PromptDesk
from quickcomm.intelligence.service.prompt_evaluation import DEFAULT_CONCURRENCY, Examined, LabelledSet
from quickcomm.intelligence.service.prompt_version import PromptVersion, make_version
from quickcomm.intelligence.service.prompts import DeployedPrompts, in_canary
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import ConfigurationError, ConflictError, InvalidInputError, NotFoundError
from quickcomm.kernel.storage import Database, StorageError, migrate

SET = LabelledSet(name="eight", cases=PHRASES)
BETTER, WORSE = named("better", system="Label this for $site."), named("worse", system="be brief")
BUILT_IN = built_in_source()
TALKS = [f"talk-{number}" for number in range(400)]


class Site:
    """One process on a store that others may share."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        shared = examples()
        self.clock = clock

        def make(source: str, origin: str) -> PromptVersion:
            return make_version(source, PACK, shared, origin)

        self.store = SqlPrompts(database)
        self.deployed = DeployedPrompts(self.store, make(BUILT_IN, "built-in"), make, clock)
        self.desk = PromptDesk(self.store, self.deployed, make, PACK, clock, BUILT_IN)

    def connect(self, model: str = "scripted") -> None:
        self.desk.connect(Examined(model=ScriptedModel(oracle(wrong_where="be brief"), model)))

    async def evaluated(self, source: str) -> str:
        stored = await self.desk.add(source, "ada", "mine.toml")
        await self.desk.evaluate(stored, SET, "ada", concurrency=DEFAULT_CONCURRENCY, progress=lambda _done, _all: None)
        return stored.id

    async def deploy(self, prompt_id: str, *, weight: int = 100, force: bool = False) -> None:
        self.clock.advance(1)
        await self.desk.deploy(await self.desk.source(prompt_id), "ada", weight=weight, force=force)

    def share(self, prompt_id: str) -> set[str]:
        return {talk for talk in TALKS if self.deployed.of(talk).id == prompt_id}


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "site.sqlite")
    database.open()
    migrate(database.engine, "intelligence", MIGRATIONS)
    yield database
    await database.aclose()


@pytest.fixture
def site(database: Database) -> Site:
    made = Site(database, FakeClock())
    made.connect()
    return made


@given(st.text(max_size=40), st.integers(0, 100), st.integers(0, 100))
def test_a_growing_canary_only_gains_conversations(conversation: str, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert in_canary(conversation, large) or not in_canary(conversation, small)
    assert in_canary(conversation, 100)
    assert not in_canary(conversation, 0)


def test_a_canary_has_about_its_share() -> None:
    talks = [f"{number}-talk" for number in range(20_000)]
    assert sum(in_canary(talk, 10) for talk in talks) / len(talks) == pytest.approx(0.1, abs=0.01)


async def test_without_any_deployment_the_built_in_version_is_live(site: Site) -> None:
    await site.deployed.refresh()
    built_in = site.deployed.built_in.id
    assert site.share(built_in) == set(TALKS)
    view = await site.desk.view()
    assert view.live is not None
    assert (view.live.prompt.id, view.live.weight, view.live.event, view.canary) == (built_in, 100, None, None)
    with pytest.raises(ConflictError, match="nothing to go back to"):
        await site.desk.rollback("ada")


async def test_canary_then_all_then_back(site: Site) -> None:
    built_in = site.deployed.built_in.id
    better = await site.evaluated(BETTER)
    await site.deploy(better, weight=10)
    first = site.share(better)
    assert 10 < len(first) < 80
    await site.deploy(better, weight=50)
    assert first < site.share(better)
    assert site.share(built_in) == set(TALKS) - site.share(better)
    await site.deploy(better)
    assert site.share(better) == set(TALKS)
    record = await site.desk.rollback("ben")
    assert (record.prompt_id, record.against_id, record.by) == (built_in, better, "ben")
    assert site.share(built_in) == set(TALKS)
    with pytest.raises(ConflictError, match="first version"):
        await site.desk.rollback("ben")


async def test_a_rollback_takes_the_canary_first_and_then_goes_back_step_by_step(site: Site) -> None:
    built_in = site.deployed.built_in.id
    ids = [built_in]
    for name in ("one", "two", "three"):
        ids.append(await site.evaluated(named(name)))
        await site.deploy(ids[-1])
    canary = await site.evaluated(named("four"))
    await site.deploy(canary, weight=30)
    await site.desk.rollback("ada")
    assert (site.share(canary), site.share(ids[3])) == (set(), set(TALKS))
    for expected in reversed(ids[:3]):
        await site.desk.rollback("ada")
        assert site.deployed.now.live.id == expected
    again = await site.evaluated(named("five"))
    await site.deploy(again)
    await site.desk.rollback("ada")
    assert site.deployed.now.live.id == built_in


async def test_it_is_in_force_elsewhere_as_soon_as_the_store_is_read_again(site: Site, database: Database) -> None:
    worker = Site(database, FakeClock())
    await worker.deployed.refresh()
    better = await site.evaluated(BETTER)
    await site.deploy(better, weight=10)
    assert worker.share(better) == set()
    await worker.deployed.refresh()
    assert worker.share(better) == site.share(better) != set()
    await site.desk.rollback("ada")
    await worker.deployed.refresh()
    assert worker.share(better) == set()


async def test_deploying_needs_evidence(site: Site) -> None:
    stored = await site.desk.add(BETTER, "ada")
    with pytest.raises(ConflictError, match="never evaluated"):
        await site.deploy(stored.id)
    worse = await site.evaluated(WORSE)
    with pytest.raises(ConflictError, match=r"on eight, its score is .* it misses 1 of 1 dangers"):
        await site.deploy(worse, weight=1)
    better = await site.evaluated(BETTER)
    other = await site.evaluated(named("other"))
    await site.deploy(better)
    with pytest.raises(ConflictError, match="Evaluate it again"):
        await site.deploy(other)
    await site.evaluated(named("other"))
    site.connect("another-model")
    with pytest.raises(ConflictError, match="another-model is connected now"):
        await site.deploy(other)
    site.connect("")  # connected, but it has not told its name yet
    await site.deploy(other)
    assert site.deployed.now.live.id == other


async def test_the_newest_evaluation_counts(site: Site) -> None:
    better = await site.evaluated(BETTER)
    site.desk.connect(Examined(model=ScriptedModel(oracle(wrong_where="Label this"))))
    await site.evaluated(BETTER)
    with pytest.raises(ConflictError, match="its score"):
        await site.deploy(better)


async def test_force_is_possible_and_recorded(site: Site) -> None:
    worse = await site.evaluated(WORSE)
    await site.deploy(worse, weight=5, force=True)
    view = await site.desk.view()
    assert view.canary is not None
    assert view.canary.event is not None
    event = view.canary.event
    assert (event.action, event.forced, event.weight, event.by) == ("canary", True, 5, "ada")
    assert event.note.startswith("On eight, its score is")
    assert event.evidence is not None
    assert event.evidence.candidate.score < event.evidence.live.score


async def test_force_without_need_is_not_called_forced(site: Site) -> None:
    better = await site.evaluated(BETTER)
    await site.deploy(better, force=True)
    assert (await site.desk.view()).events[0].forced is False


async def test_the_trail_tells_who_when_and_on_what_evidence(site: Site) -> None:
    better = await site.evaluated(BETTER)
    await site.deploy(better, weight=10)
    await site.desk.rollback("ben")
    events = (await site.desk.view()).events
    assert [(event.action, event.by, event.prompt_id == better) for event in events] == [
        ("rolled_back", "ben", False),
        ("canary", "ada", True),
        ("deployed", "QuickComm", False),
        ("added", "QuickComm", False),
        ("evaluated", "ada", True),
        ("added", "ada", True),
    ]
    assert events[1].at == "2023-11-14T22:13:21.000Z"
    assert events[1].evidence == events[4].evidence
    assert events[4].evidence is not None
    assert (events[4].evidence.set_name, events[4].evidence.candidate.cases) == ("eight", 8)
    short = await site.desk.view(1)
    assert len(short.events) == 1
    assert short.live is not None
    assert short.live.event == events[0]


async def test_nonsense_is_refused(site: Site) -> None:
    better = await site.evaluated(BETTER)
    for name in ("nowhere", "ffffffffffff", "canary", "../x"):
        with pytest.raises(NotFoundError):
            await site.desk.source(name)
    with pytest.raises(InvalidInputError):
        await site.deploy(better, weight=101)
    with pytest.raises(ConflictError, match="live version already"):
        await site.deploy("live", weight=10)
    await site.deploy(better, weight=10)
    with pytest.raises(ConflictError, match="10 % of the conversations already"):
        await site.deploy(better, weight=10)
    with pytest.raises(ConfigurationError, match=r"mine.toml: system: there is no \$nothing"):
        await site.desk.add(named("x", system="$nothing"), "ada", "mine.toml")
    site.desk.connect(None)
    with pytest.raises(ConfigurationError, match="No language model is connected"):
        await site.evaluated(BETTER)


async def test_a_version_is_found_by_name_and_by_the_beginning_of_its_id(site: Site) -> None:
    better = await site.evaluated(BETTER)
    await site.deploy(better, weight=10)
    built_in = site.deployed.built_in.id
    assert [(await site.desk.source(name)).id for name in ("live", "canary", "built-in", better[:6])] == [
        built_in,
        better,
        built_in,
        better,
    ]
    assert (await site.desk.source("live")).source == BUILT_IN
    assert (await site.desk.source("canary")).source == BETTER


async def test_a_broken_stored_prompt_leaves_the_last_good_one_in_force(site: Site, database: Database) -> None:
    better, broken = await site.evaluated(BETTER), await site.evaluated(named("broken"))
    await site.deploy(better)
    worker = Site(database, FakeClock())
    await worker.deployed.refresh()
    await database.write(
        lambda connection: connection.execute(
            sa.update(prompts).where(prompts.c.id == broken).values(source="format = 1\n")
        )
    )
    present = await site.store.deployment()
    assert present is not None
    record = (await site.store.records(1))[0]
    following = msgspec.structs.replace(present, revision=present.revision + 1, live_id=broken)
    await site.store.deploy(following, record)
    await worker.deployed.refresh()
    assert worker.share(better) == set(TALKS)
    assert f"{broken} cannot be used" in worker.deployed.now.problem
    assert worker.deployed.now.problem == (await worker.desk.view()).problem
    fresh = Site(database, FakeClock())
    await fresh.deployed.refresh()
    assert fresh.share(fresh.deployed.built_in.id) == set(TALKS)
    canary = msgspec.structs.replace(following, revision=following.revision + 1, live_id=better, weight=50)
    await site.store.deploy(msgspec.structs.replace(canary, canary_id=broken), record)
    await worker.deployed.refresh()
    assert worker.share(better) == set(TALKS)
    await site.store.deploy(msgspec.structs.replace(canary, revision=canary.revision + 1), record)
    await worker.deployed.refresh()
    assert worker.deployed.now.problem == ""


async def test_only_one_of_two_that_deploy_at_once_succeeds(site: Site) -> None:
    better = await site.evaluated(BETTER)
    await site.deploy(better)
    present = await site.store.deployment()
    assert present is not None
    record = (await site.store.records(1))[0]
    with pytest.raises(ConflictError, match="Somebody else"):
        await site.store.deploy(present, record)
    assert len(await site.store.records(100)) == len((await site.desk.view()).events)
    assert (await site.store.deployment()) == present


async def test_a_version_is_kept_once(site: Site) -> None:
    first = await site.desk.add(BETTER, "ada")
    site.clock.advance(60)
    await site.desk.add("# the same\n" + BETTER, "ben")
    [kept] = await site.store.prompts()
    assert (kept, len(await site.store.records(10))) == (first, 1)
    assert await site.store.newest(kept.id, EVALUATED) is None
    assert await site.store.deployment_at(7) is None


async def test_following_the_store_survives_a_store_in_trouble(
    site: Site, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = await site.evaluated(BETTER)
    await site.deploy(better)
    worker = Site(database, FakeClock(pauses=0.01))
    there, failed = asyncio.Event(), asyncio.Event()
    refresh = worker.deployed.refresh

    async def flaky() -> None:
        if not failed.is_set():
            failed.set()
            raise StorageError("disk full")
        await refresh()
        there.set()

    monkeypatch.setattr(worker.deployed, "refresh", flaky)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        following = group.create_task(worker.deployed.run())
        await there.wait()
        following.cancel()
    assert failed.is_set()
    assert worker.deployed.now.live.id == better
