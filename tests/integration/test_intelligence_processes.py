"""Several processes of intelligence share the work, agree, and go on for each other; nothing is lost or doubled."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.support.llm import FakeLlm, fake_llm
from tests.support.llm import said as said_in
from tests.support.minds import House, Mind, house
from tests.support.postgres import PostgresServer
from tests.support.prompting import named
from tests.support.valkey import Valkey
from tests.unit.test_intelligence_alone import copied

from quickcomm.contracts.commands import DeployPrompt, GetStatus
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.declaration import GROUP
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS, Names, partition

NOTHING_KEPT = "0.000000001"
SHORTER = named("shorter", system="Label this for $site.")


def everywhere(prefix: str = "talk") -> list[str]:
    """Conversations, one in each partition."""
    found: dict[int, str] = {}
    for number in itertools.count():
        found.setdefault(partition(f"{prefix}-{number}"), f"{prefix}-{number}")
        if len(found) == PARTITIONS:
            return list(found.values())
    raise AssertionError


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


async def holders(valkey: Valkey) -> list[str]:
    """Which consumer has each partition of the transcripts."""
    link = Link(valkey.url)
    try:
        leases: dict[bytes, bytes] = await link.call("HGETALL", Names().leases(TRANSCRIPTS, GROUP))
    finally:
        await link.aclose()
    return [leases[b"%d" % part].decode().partition("/")[0] for part in range(PARTITIONS) if b"%d" % part in leases]


async def divided(valkey: Valkey) -> None:
    """Two processes have half of the partitions each."""
    async with asyncio.timeout(60):
        while sorted(Counter(await holders(valkey)).values()) != [4, 4]:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.02)


def in_order(here: House, conversation: str) -> list[int]:
    """Of the first revisions of a conversation, their numbers as they came."""
    return [
        int(found.utterance_id.rpartition(":")[2])
        for found in here.found
        if found.conversation_id == conversation and found.revision == 1
    ]


def texts(fake: FakeLlm) -> list[str]:
    """What the model was asked about, call by call."""
    return list(filter(None, map(said_in, fake.calls)))


async def deploy(mind: Mind, source: str) -> str:
    arguments = {"name": "shorter.toml", "source": source, "by": "ada", "weight": 100, "force": True}
    [row] = await mind.ask(msgspec.convert(arguments, DeployPrompt))
    return str(row["prompt_id"])


async def test_a_prompt_that_one_deploys_is_in_force_in_all(valkey: Valkey, database_url: str) -> None:
    async with fake_llm() as fake, house(valkey.url, database_url, "--llm-url", fake.url) as here:
        one, two = here.minds
        await divided(valkey)
        said = await here.say(*everywhere())
        await here.understood(said)
        [before] = here.versions(said)
        prompt_id = await deploy(one, SHORTER)
        assert prompt_id != before
        for mind in (one, two):
            await mind.until_logged(f"live={prompt_id}")
        said = await here.say(*everywhere())
        await here.understood(said)
        assert here.versions(said) == {prompt_id}


@pytest.mark.long  # a shorter one is in tests/e2e/test_intelligence_workers.py
async def test_one_is_killed_under_load_and_the_other_goes_on(valkey: Valkey, database_url: str) -> None:
    async with fake_llm() as fake, house(valkey.url, database_url, "--llm-url", fake.url) as here:
        await divided(valkey)
        talks = [*everywhere("a"), *everywhere("b")]
        said = [await here.say(*talks) for _ in range(5)]
        fake.mode = "gate"  # both have calls in hand
        said.append(await here.say(*talks))
        async with asyncio.timeout(60):
            while fake.at_once < len(talks) // 2:  # noqa: ASYNC110 - the endpoint has no event for it
                await asyncio.sleep(0.01)
        here.minds[0].kill()
        said += [await here.say(*talks) for _ in range(5)]
        fake.mode = "answer"
        fake.gate.set()
        everything = list(itertools.chain.from_iterable(said))
        await here.understood(everything)
        assert {found.utterance_id for found in here.found} == set(everything)
        for talk in talks:
            assert in_order(here, talk) == list(range(1, 12))
        assert len(set(await holders(valkey))) == 1
        here.minds[0].launch()
        await here.minds[0].ready()
        await divided(valkey)
        await here.understood(await here.say(*talks))


async def test_the_model_goes_and_comes_back_for_all_at_once(valkey: Valkey, database_url: str) -> None:
    async with (
        fake_llm() as fake,
        house(valkey.url, database_url, "--llm-url", fake.url, QUICKCOMM_ANSWERS_TTL_HOURS=NOTHING_KEPT) as here,
    ):
        one, two = here.minds
        await divided(valkey)
        for mind in (one, two):
            await mind.until_state("up")
        await broken(fake, here)
        states = [await mind.until_state("degraded") for mind in (one, two)]
        assert states[0]["llm"]["why"] == states[1]["llm"]["why"]
        assert states[0]["llm"]["since"] == states[1]["llm"]["since"]
        degraded = await here.say(*everywhere())
        await here.understood(degraded)
        assert all(one.degraded for each in degraded for one in here.of(each)[0].insights)
        asked = len(texts(fake))
        fake.mode = "answer"
        for mind in (one, two):
            await mind.until_state("up")
        await here.until(lambda: all(len(here.of(each)) == 2 for each in degraded))
        assert all(not one.degraded for each in degraded for one in here.of(each)[1].insights)
        assert set(texts(fake)[asked:]) >= set(map(here.text_of, degraded))
        assert max(Counter(texts(fake)[asked:]).values()) == 1, "each was asked for once"
        assert here.repeated == ()


async def broken(fake: FakeLlm, here: House) -> None:
    """The model refuses, and somebody speaks in one conversation: one process finds out."""
    fake.mode = "401"
    [said] = await here.say(everywhere()[0])
    await here.understood([said])


@pytest.mark.long
async def test_one_goes_in_an_orderly_way_and_one_comes(valkey: Valkey, database_url: str) -> None:
    async with fake_llm() as fake, house(valkey.url, database_url, "--llm-url", fake.url) as here:
        talks = everywhere()
        said = await here.say(*talks)
        stopping = asyncio.create_task(asyncio.to_thread(here.minds[0].stop))
        said += await here.say(*talks)
        assert await stopping == 0
        here.mind().launch()
        await here.minds[2].ready()
        await divided(valkey)
        said += await here.say(*talks)
        await here.understood(said)
        assert here.repeated == ()
        assert "Traceback" not in "".join(mind.log for mind in here.minds)


@pytest.mark.long
async def test_the_cache_and_the_bill_are_those_of_all(valkey: Valkey, database_url: str) -> None:
    async with fake_llm() as fake, house(valkey.url, database_url, "--llm-url", fake.url, minds=1) as here:
        said = await here.say(*everywhere())
        await here.understood(said)
        spent = (await here.minds[0].ask(GetStatus()))[0]["usage_today"]
        assert spent["calls"] >= PARTITIONS
        here.minds[0].stop()
        here.mind().launch()
        await here.minds[1].ready()
        assert (await here.minds[1].ask(GetStatus()))[0]["usage_today"]["calls"] >= spent["calls"]
        before = texts(fake)
        assert set(before) == set(map(here.text_of, said))
        await here.understood(await here.say_again(said))
        assert texts(fake) == before


async def test_in_a_file_it_is_one_process(valkey: Valkey) -> None:
    async with house(valkey.url, None, minds=1) as here:
        said = await here.say(*everywhere())
        await here.understood(said)
        second = here.mind()
        second.launch()
        await second.until_logged("Another QuickComm")


async def test_it_starts_where_there_is_nothing_but_its_own_code(
    valkey: Valkey, database_url: str, tmp_path: Path
) -> None:
    tree = copied(tmp_path / "tree")
    async with house(valkey.url, database_url, minds=0, PYTHONPATH=str(tree)) as here:
        mind = here.mind()
        mind.launch()
        await mind.ready()
        await here.understood(await here.say(*everywhere()))
        assert "app.part_not_installed" in mind.log
        assert mind.stop() == 0
