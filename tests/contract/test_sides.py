"""One side answers a conversation at a time, whatever the order of publishing, answering and reassigning."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tests.support.examples import examples
from tests.support.two_sides import STEP_S, TwoSides
from tests.support.valkey import Valkey

from quickcomm.contracts.routes import MONOLITH, SERVICE, ModuleRoute, Side
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.messaging.bus import BusUnavailableError


@pytest.fixture
async def site(valkey: Valkey, tmp_path: Path) -> AsyncIterator[TwoSides]:
    made = TwoSides(valkey.url, tmp_path.name)
    try:
        yield made
    finally:
        await made.aclose()


async def test_a_transcript_says_who_answers_it(site: TwoSides) -> None:
    await site.say(text='so "seq":0, and "owner":"monolith","owner_epoch":0, are said')
    [found] = await site.transcripts()
    assert (found.owner, found.owner_epoch, found.seq) == ("monolith", 1, 1)
    assert found.text == 'so "seq":0, and "owner":"monolith","owner_epoch":0, are said'


async def test_a_conversation_changes_sides_with_the_first_utterance_after_all_is_answered(site: TwoSides) -> None:
    first = await site.say()
    await site.route("service")
    second = await site.say()
    assert await site.stamps() == [(first, "monolith", 1), (second, "monolith", 1)]
    assert all(await site.answer(*await site.transcripts()))
    third = await site.say()
    assert (await site.stamps())[-1] == (third, "service", 2)


async def test_a_channel_and_a_site_with_a_side_of_their_own_have_it_for_each_conversation(site: TwoSides) -> None:
    await site.publish_route(ModuleRoute(mode="canary", weight=1, channels={"desk": "service"}))
    await site.say("one")
    await site.publish_route(
        ModuleRoute(mode="canary", weight=1, sites={"main": "service"}, channels={"pool": "monolith"})
    )
    await site.say("two")
    await site.publish_route(
        ModuleRoute(mode="canary", weight=1, sites={"main": "service"}, overrides={"three": "monolith"})
    )
    await site.say("three")
    sides = [(await site.stamps(name))[0][1] for name in ("one", "two", "three")]
    assert sides == ["service", "service", "monolith"]


@pytest.mark.parametrize("own", [{"channels": {"desk": "service"}}, {"sites": {"main": "service"}}])
async def test_what_is_unanswered_goes_along_with_an_override_and_back(site: TwoSides, own: dict[str, Any]) -> None:
    said = await site.say()
    await site.publish_route(ModuleRoute(mode="canary", weight=1, **own))
    assert await site.sweep() == 1, "the monolith may finish"
    site.clock.advance(STEP_S)
    assert await site.sweep() == 0
    await site.publish_route(ModuleRoute(mode="shadow"))
    assert await site.sweep() == 0
    assert await site.stamps() == [(said, "monolith", 1), (said, "service", 2), (said, "monolith", 3)]


async def test_who_publishes_by_older_routes_than_the_stores_looks_again(site: TwoSides) -> None:
    await site.route("service", follow=False)
    await site.say()
    assert [stamp[1:] for stamp in await site.stamps()] == [("service", 1)]


async def test_in_an_emptied_store_the_publishers_routes_stand(site: TwoSides) -> None:
    await site.route("service")
    await site.empty_routes()
    await site.say()
    assert [stamp[1:] for stamp in await site.stamps()] == [("service", 1)]


async def test_routes_that_never_rest_keep_the_utterance_for_later(
    site: TwoSides, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = site.followed.known

    async def overtaken() -> Any:
        found = await known()
        monkeypatch.setattr(site.followed, "known", known)
        await site.route("monolith", follow=False)
        monkeypatch.setattr(site.followed, "known", overtaken)
        return found

    await site.route("service", follow=False)
    monkeypatch.setattr(site.followed, "known", overtaken)
    with pytest.raises(BusUnavailableError):
        await site.say()
    assert await site.transcripts() == []


async def test_the_way_back_is_taken_at_once_and_the_way_there_after_some_seconds(site: TwoSides) -> None:
    said = [await site.say(), await site.say()]
    await site.route("service")
    assert await site.sweep() == 1
    assert await site.stamps() == [(each, "monolith", 1) for each in said]
    site.clock.advance(STEP_S)
    assert await site.sweep() == 0
    assert (await site.stamps())[2:] == [(each, "service", 2) for each in said]
    await site.route("monolith")
    assert await site.sweep() == 0
    assert (await site.stamps())[4:] == [(each, "monolith", 3) for each in said]


async def test_late_answers_are_refused_and_answered_utterances_stay(site: TwoSides) -> None:
    await site.route("service")
    said = [await site.say() for _ in range(3)]
    before = await site.transcripts()
    assert await site.answer(before[0]) == [True]
    await site.route("monolith")
    await site.sweep()
    assert await site.answer(*before[1:]) == [True, True], "the outbox may forget them"
    assert await site.answer(before[0], revision=2) == [True]
    assert await site.insights() == [(said[0], "service", 1)]
    after = (await site.transcripts())[3:]
    assert [each.utterance_id for each in after] == said[1:]
    await site.answer(*after)
    assert await site.insights() == [(said[0], "service", 1), *((each, "monolith", 2) for each in said[1:])]
    assert await site.unanswered() == set()


async def test_a_conversation_that_goes_there_and_back_is_answered_in_its_newest_epoch(site: TwoSides) -> None:
    said = await site.say()
    for side in ("service", "monolith"):
        await site.route(side)
        site.clock.advance(STEP_S)
        await site.sweep()
    first, _, last = await site.transcripts()
    assert (first.owner, last.owner) == ("monolith", "monolith")
    await site.answer(first, last)
    assert await site.insights() == [(said, "monolith", 3)]


async def test_a_sweep_by_old_routes_changes_nothing(site: TwoSides) -> None:
    await site.route("service")
    await site.say()
    await site.route("monolith")
    await site.route("service", follow=False)
    assert await site.sweep() == 1
    assert len(await site.stamps()) == 1
    await site.followed.follow()
    assert await site.sweep() == 0
    assert len(await site.stamps()) == 1


async def test_what_is_reassigned_is_appended_beyond_the_mark(valkey: Valkey, tmp_path: Path) -> None:
    """A side that sleeps acknowledges nothing: its conversations must not wait for it."""
    site = TwoSides(valkey.url, tmp_path.name, high_water=2)
    try:
        await site.route("service")
        said = [await site.say(), await site.say()]
        await site.route("monolith")
        await site.sweep()
        assert (await site.stamps())[2:] == [(each, "monolith", 2) for each in said]
    finally:
        await site.aclose()


async def test_the_sweep_begins_when_the_routes_change(site: TwoSides) -> None:
    sweeping = asyncio.create_task(site.sessions.sides.reassign_forever())
    try:
        await site.route("service")
        await site.say()
        await site.route("monolith")
        async with asyncio.timeout(20):
            while len(await site.stamps()) < 2:  # noqa: ASYNC110 - only the store knows
                await asyncio.sleep(0)
    finally:
        sweeping.cancel()
    assert [stamp[1:] for stamp in await site.stamps()] == [("service", 1), ("monolith", 2)]


# -- every interleaving -----------------------------------------------------------------------------------------------

SIDES: Final[tuple[Side, ...]] = (MONOLITH, SERVICE)
CONVERSATIONS: Final = ("c", "d")
_sides = st.sampled_from(SIDES)
_conversations = st.sampled_from(CONVERSATIONS)


class Interleaved(RuleBasedStateMachine):
    """Each side takes transcripts in order, and answers in order what is stamped for it, as late as it likes."""

    valkey: Valkey
    number = 0

    @initialize()
    def begin(self) -> None:
        Interleaved.number += 1
        self.runner = asyncio.Runner()
        self.site = self.runner.run(self._made(f"interleaved{Interleaved.number}"))
        self.said: dict[str, list[str]] = {name: [] for name in CONVERSATIONS}
        self.read = {(side, name): 0 for side in SIDES for name in CONVERSATIONS}
        self.hand: dict[tuple[Side, str], list[UtteranceTranscribed]] = {key: [] for key in self.read}

    async def _made(self, prefix: str) -> TwoSides:
        return TwoSides(self.valkey.url, prefix)

    @rule(name=_conversations)
    def say(self, name: str) -> None:
        self.said[name].append(self.runner.run(self.site.say(name)))

    @rule(side=_sides, name=_conversations, follow=st.booleans())
    def route(self, side: Side, name: str, *, follow: bool) -> None:
        self.runner.run(self.site.route(side, name, follow=follow))

    @rule()
    def empty_routes(self) -> None:
        self.runner.run(self.site.empty_routes())

    @rule(passed=st.booleans())
    def sweep(self, *, passed: bool) -> None:
        if passed:
            self.site.clock.advance(STEP_S)
        self.runner.run(self.site.sweep())

    @rule(side=_sides, name=_conversations)
    def take(self, side: Side, name: str) -> None:
        found = self.runner.run(self.site.transcripts(name))
        self.hand[side, name] += [each for each in found[self.read[side, name] :] if each.owner == side]
        self.read[side, name] = len(found)

    @rule(side=_sides, name=_conversations, count=st.integers(1, 3), again=st.booleans())
    def answer(self, side: Side, name: str, count: int, *, again: bool) -> None:
        """`again`: as if the outbox had not heard that they were taken."""
        hand = self.hand[side, name]
        if hand:
            self.runner.run(self.site.answer(*hand[:count]))
            self.hand[side, name] = hand if again else hand[count:]

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            try:
                self._check()
            finally:
                self.runner.run(self.site.aclose())
                self.runner.close()

    def _check(self) -> None:
        """The side that the routes end with answers everything that is left, whether the other one wakes up or not."""
        self.runner.run(self.site.route("service"))
        self.site.clock.advance(STEP_S)
        self.site.clock.advance(STEP_S)
        assert self.runner.run(self.site.sweep()) == 0
        self.answer("monolith", CONVERSATIONS[0], 100, again=False)
        for name in CONVERSATIONS:
            self.take("service", name)
            if self.hand["service", name]:
                self.answer("service", name, len(self.hand["service", name]), again=False)
            stamps = self.runner.run(self.site.stamps(name))
            assert [epoch for *_, epoch in stamps] == sorted(epoch for *_, epoch in stamps)
            assert len({(side, epoch) for _, side, epoch in stamps}) == len({epoch for *_, epoch in stamps})
            found = self.runner.run(self.site.insights(name))
            assert len(set(found)) == len(self.said[name]), "each by one side, and none by nobody"
            firsts = list(dict.fromkeys(utterance for utterance, *_ in found))
            assert firsts == self.said[name]
        assert self.runner.run(self.site.unanswered()) == set()


@pytest.mark.timeout(600)
def test_no_interleaving_has_an_utterance_answered_by_two_sides_or_by_none(valkey: Valkey) -> None:
    Interleaved.valkey = valkey
    run_state_machine_as_test(Interleaved, settings=examples(120, stateful_step_count=30))
