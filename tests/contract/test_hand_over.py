"""Conversations go from one side to the other over the real store: one owner at a time, nothing lost or doubled."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from tests.contract.test_redis_owners import PHRASE, states
from tests.contract.test_redis_sessions import Stores, progress, utterance
from tests.contract.test_session_store import change
from tests.support.hearing import TOKEN, Hall, ScriptedEngine, Talk, hall, request, said, silence, speech
from tests.support.valkey import Valkey
from tests.unit.test_audio_share import Followed, lets_in, routes
from tests.unit.test_conversation import feed, spans

from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.ports import FencedError, Progress
from quickcomm.audio.service import hand_over
from quickcomm.audio.service.hand_over import BACK_WITHIN_S, FRESH_S, LATE_S, PAUSE_WITHIN_S, HandOver, Receivers
from quickcomm.audio.service.manager import Session
from quickcomm.audio.service.share import Share
from quickcomm.contracts.audio_socket import Utterance
from quickcomm.contracts.link import Room
from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.contracts.routes import Side as SideName
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.live import HERE, Peer

SETTINGS: Final = AudioSettings(answer_wait_s=0.0)
SOUND: Final = np.tile(PHRASE, 3)
STAY_S: Final = 600.0
AUDIO: Final = Peer(module="audio", name="audio-1")
MONOLITH_PEER: Final = Peer(module="monolith", name="monolith")


@pytest.fixture
async def stores(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as stack:
        yield Stores(valkey.url, tmp_path.name, stack)


class Side:
    """The audio of a side, with what hands its conversations over."""

    def __init__(self, here: Hall, name: SideName = MONOLITH) -> None:
        self.here = here
        self.clock = FakeClock()
        self.followed = Followed(routes(1, 0), in_force=1)
        self.share = Share(name, self.followed)
        self.receivers = Receivers(self.share, self.clock)
        self.hand_over = HandOver(here.manager, here.store, self.share, self.receivers, self.clock, stay_s=STAY_S)

    def move(self, weight: int = 10_000, *, in_force: bool = True) -> None:
        version = self.followed.routes.version + 1
        self.followed.routes = routes(version, weight)
        self.followed.in_force = version if in_force else version - 1

    def name(self, overrides: dict[str, SideName], channels: dict[str, SideName] | None = None) -> None:
        """Have routes in force that give all to the service but these."""
        version = self.followed.routes.version + 1
        self.followed.routes = routes(version, 10_000, overrides, channels)
        self.followed.in_force = version

    def tell(self, peer: Peer = AUDIO, *, room: int = 1_000, backlog_s: float = 0.0) -> None:
        """Say what a process can take."""
        self.receivers.told(Room(conversations=room, stt_backlog_s=backlog_s), peer)


@pytest.fixture
async def side(stores: Stores, tmp_path: Path) -> AsyncIterator[Side]:
    async with hall(tmp_path / "monolith.sqlite", settings=SETTINGS, store=await stores.store("monolith")) as here:
        yield Side(here)


async def left(session: Session) -> list[dict[str, Any]]:
    return await asyncio.wait_for(said(session), 30)


async def calm(stores: Stores, path: Path) -> list[tuple[int, int, int]]:
    store = await stores.store("calm")
    async with hall(path, settings=SETTINGS, store=store) as here:
        session = await here.open("calm")
        await feed(session, SOUND)
        session.conversation.end()
        return spans(await left(session))


# -- the store --------------------------------------------------------------------------------------------------------


async def test_who_gives_a_conversation_up_can_write_nothing_more(stores: Stores) -> None:
    old, new = await stores.store("monolith"), await stores.store("audio-1")
    stored = await old.open(request(), TOKEN)
    await old.change_state(progress(stored, 1_024), change(stored, "interrupted"), fence=True)
    assert await old.save([progress(stored, 2_048)]) == [("main", "c-1")]
    with pytest.raises(FencedError):
        await old.publish(progress(stored, 2_048), utterance(stored, 1_100))
    with pytest.raises(FencedError):
        await old.change_state(progress(stored, 2_048), change(stored, "live"))
    taken = await new.open(request(), TOKEN)
    assert (taken.checkpoints[0].offset, taken.state, taken.epoch) == (1_024, "interrupted", stored.epoch + 2)
    assert await states(stores, "c-1") == ["live"], "the newest state is what counts"


async def test_a_conversation_that_was_taken_over_is_not_given_up_by_who_had_it(stores: Stores) -> None:
    old, new = await stores.store("monolith"), await stores.store("audio-1")
    stored = await old.open(request(), TOKEN)
    taken = await new.open(request(), TOKEN)
    with pytest.raises(FencedError):
        await old.change_state(progress(stored, 1_024), change(stored, "interrupted"), fence=True)
    assert await new.save([progress(taken, 512)]) == []


# -- one conversation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_s", [0.2, 0.9, 1.4, 2.9, 4.5])
async def test_it_goes_on_at_the_other_side_as_if_nothing_had_happened(
    stores: Stores, side: Side, tmp_path: Path, at_s: float
) -> None:
    expected = await calm(stores, tmp_path / "calm.sqlite")
    session = await side.here.open()
    await feed(session, SOUND[: round(at_s * 16_000)])
    side.move()
    side.tell()
    await side.hand_over.look()
    first = await left(session)
    assert first[-2:] == [{"type": "reconnect", "reason": "handover", "after_ms": 0}, {"type": "close", "code": 1012}]
    await session.conversation.feed(SOUND[:1_600].tobytes())  # what comes meanwhile is sent again to the other side
    store = await stores.store("audio-1")
    async with hall(tmp_path / "service.sqlite", settings=SETTINGS, store=store) as there:
        again = await there.open(after_seq=max((each["seq"] for each in first if "seq" in each), default=0))
        acks = [each["offset"] for each in first if each["type"] == "ack"]
        assert acks == [] or acks[-1] == again.ready.next_offset
        await feed(again, SOUND[again.ready.next_offset :])
        again.conversation.end()
        heard = [*first, *await left(again)]
    assert spans(heard) == expected
    assert [each["seq"] for each in heard if "seq" in each] == [1, 2, 3]
    [ended] = [each for each in heard if each["type"] == "ended"]
    assert ended["ledger"]["received"] == len(SOUND)
    assert side.here.manager.conversations == []


async def test_what_is_decoded_when_it_goes_is_not_published_by_who_had_it(stores: Stores, tmp_path: Path) -> None:
    engine, store = ScriptedEngine(), await stores.store("monolith")
    async with hall(tmp_path / "monolith.sqlite", engine, SETTINGS, store=store) as here:
        side = Side(here)
        session = await here.open()
        engine.go.clear()
        await feed(session, PHRASE)
        side.move()
        side.tell()
        await side.hand_over.look()
        engine.go.set()
        await left(session)
        assert await store.events("main", "c-1", 0) == []


async def test_a_checkpoint_on_its_way_is_refused_without_a_word(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written before the hand-over and comes to the store behind it; the client hears of the hand-over alone."""
    store = await stores.store("monolith")
    save, change_state = store.save, store.change_state
    on_its_way, given_up, refused = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late(moved: Sequence[Progress]) -> Sequence[tuple[str, str]]:
        on_its_way.set()
        await given_up.wait()
        found = await save(moved)
        asyncio.get_running_loop().call_soon(refused.set)
        return found

    async def slow(*what: Any, **more: Any) -> None:
        await change_state(*what, **more)
        given_up.set()
        await refused.wait()

    async with hall(tmp_path / "monolith.sqlite", settings=SETTINGS, store=store) as here:
        side, fenced = Side(here), list[None]()
        here.manager.on_fenced = lambda: fenced.append(None)
        session = await here.open()
        await feed(session, silence(2.0))
        await here.heard(session)
        monkeypatch.setattr(store, "save", late)
        checkpoint = asyncio.create_task(here.manager.checkpoint())
        await on_its_way.wait()
        monkeypatch.setattr(store, "change_state", slow)
        side.move()
        side.tell()
        await side.hand_over.look()
        await checkpoint
        heard = await left(session)
    assert [each["type"] for each in heard if each["type"] != "ack"] == ["reconnect", "close"]
    assert not fenced


@pytest.mark.parametrize("seed", range(3))
async def test_there_and_back_again_and_again_with_one_owner_at_a_time(
    stores: Stores, side: Side, tmp_path: Path, seed: int
) -> None:
    """At random places the routes give it to the other side; sometimes the process that has it has not noticed yet."""
    expected = await calm(stores, tmp_path / "calm.sqlite")
    chance, store = random.Random(seed), await stores.store("audio-1")  # noqa: S311 - to be repeated
    async with hall(tmp_path / "service.sqlite", settings=SETTINGS, store=store) as there:
        sides, heard, last_seq = (side, Side(there, SERVICE)), [], 0
        side.tell()
        sides[1].tell(MONOLITH_PEER)
        for weight in (0, 10_000) * 4:
            for each in sides:
                each.move(weight)
            [has_it] = [each for each in sides if await lets_in(each.share, "c-1", each.followed.in_force)]
            session = await has_it.here.open(after_seq=last_seq)
            start = session.ready.next_offset
            await feed(session, SOUND[start : start + chance.randrange(4_000, 24_000)])
            if chance.random() < 0.5:
                await has_it.here.heard(session)
            for each in sides:
                each.move(10_000 - weight)
            if notices := chance.random() < 0.7:
                await has_it.hand_over.look()
            else:
                await has_it.here.manager.dropped(session)  # the network breaks, and its client is sent elsewhere
            heard += await left(session) if notices else []
            log = await store.events("main", "c-1", 0)
            last_seq = max((event.seq for event in log), default=0)
        for each in sides:
            each.move(0)
        session = await side.here.open(after_seq=last_seq)
        await feed(session, SOUND[session.ready.next_offset :])
        session.conversation.end()
        ended = [each for each in await left(session) if each["type"] == "ended"]
        log = await store.events("main", "c-1", 0)
    assert [(0, each.start_offset, each.end_offset) for each in log if isinstance(each, Utterance)] == expected
    assert [each.seq for each in log] == [1, 2, 3]
    assert ended[0]["ledger"]["received"] == len(SOUND)
    assert {each["type"] for each in heard} >= {"reconnect"}


# -- the rule ---------------------------------------------------------------------------------------------------------


async def test_it_stays_until_the_edge_sends_its_client_to_the_other_side(side: Side) -> None:
    session = await side.here.open()
    side.tell()
    side.move(in_force=False)
    await side.hand_over.look()
    assert side.hand_over.left == 0
    assert session.conversation.connected
    side.followed.in_force = 2
    await side.hand_over.look()
    assert session.conversation.released


async def test_what_is_with_this_side_by_name_or_channel_stays(side: Side) -> None:
    kept, on_desk, other = [
        await side.here.manager.open(msgspec.structs.replace(request(name), sent_on=channel), 0)
        for name, channel in (("c-1", "pool"), ("c-2", "desk"), ("c-3", ""))
    ]
    assert other.conversation.channel == "desk", "but the edge did not choose the side by that"
    side.tell()
    side.name({"c-1": MONOLITH}, {"desk": MONOLITH})
    await side.hand_over.look()
    assert [each.conversation.released for each in (kept, on_desk, other)] == [False, False, True]
    assert side.hand_over.left == 0
    side.name({"c-2": SERVICE}, {"desk": MONOLITH})
    await side.hand_over.look()
    assert [each.conversation.released for each in (kept, on_desk)] == [True, True]


async def test_what_was_being_said_is_shown_as_soon_as_it_has_come_again(tmp_path: Path) -> None:
    """Time stands still: that it is said in a burst is no reason to wait."""
    sound = np.concatenate([silence(1.0), speech(3.0)])
    async with hall(tmp_path / "talk.sqlite", settings=SETTINGS, clock=FakeClock(pauses=0.0)) as here:
        session = await here.open()
        await feed(session, sound)
        assert await here.manager.give_up(session.conversation) is not None
    engine = ScriptedEngine()
    async with hall(tmp_path / "talk.sqlite", engine, SETTINGS, clock=FakeClock(pauses=0.0)) as there:
        there.captions.watches = True
        engine.go.clear()
        busy = there.transcriber.submit(speech(1.0), Talk())
        again = await there.open()
        await feed(again, sound[again.ready.next_offset :])
        async with asyncio.timeout(30):
            while not there.transcriber._guesses:  # noqa: ASYNC110 - the front end tells nobody
                await asyncio.sleep(0.01)
        engine.go.set()
        await busy
        async with asyncio.timeout(30):
            while not there.captions.captions:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        [caption] = there.captions.captions
        assert not caption.final
        assert int(caption.text) > 2.5 * 16_000, "all that came is in it"


async def test_it_stays_where_nobody_can_take_it(side: Side) -> None:
    session = await side.here.open()
    side.move()
    side.tell(Peer(module="monolith", name="monolith"))
    side.tell(HERE)
    for told in ({"backlog_s": 0.6}, {"room": 0}):
        await side.hand_over.look()
        assert session.conversation.connected
        side.tell(**told)
    side.tell()
    side.clock.advance(FRESH_S + 1)
    await side.hand_over.look()
    assert session.conversation.connected, "who said that is long silent"
    assert side.hand_over.left == 1
    side.tell()
    await side.hand_over.look()
    assert session.conversation.released


async def test_more_go_as_the_other_side_takes_them(
    stores: Stores, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over, "UNDERWAY", 4)
    other = await stores.store("audio-1")
    sessions = [await side.here.open(f"c-{number}") for number in range(7)]
    side.move()
    side.tell()
    for _ in range(2):
        await side.hand_over.look()
        await side.hand_over.follow_up()
        assert side.hand_over.left == 3, "four are on their way"
    [first, second, *_] = [each.conversation.id for each in sessions if each.conversation.released]
    await other.open(request(first), TOKEN)
    await other.open(request(second), TOKEN)
    await side.hand_over.follow_up()
    side.tell(room=1)
    await side.hand_over.look()
    assert side.hand_over.left == 2, "there is room for one"
    side.clock.advance(LATE_S + 0.5)
    side.tell()
    await side.hand_over.look()
    assert side.hand_over.left == 0, "those that do not come hold up no one for long"


async def test_of_those_who_speak_one_goes_at_a_time(side: Side) -> None:
    talking = [await side.here.open(f"talks-{number}") for number in range(3)]
    for session in talking:
        await feed(session, speech(0.5))
        await side.here.heard(session)
    await side.here.open("silent")
    side.move()
    side.tell()
    for left_here in (2, 1, 0):
        await side.hand_over.look()
        assert side.hand_over.left == left_here


async def test_one_that_ends_stays(side: Side) -> None:
    side.here.engine.go.clear()
    session = await side.here.open()
    await feed(session, PHRASE)
    session.conversation.end()
    side.move()
    side.tell()
    await side.hand_over.look()
    assert not session.conversation.released
    side.here.engine.go.set()
    assert (await left(session))[-1] == {"type": "close", "code": 1000}


async def test_what_only_this_side_has_of_a_client_that_is_away_is_published_first(side: Side) -> None:
    session = await side.here.open()
    await feed(session, np.concatenate([silence(0.5), speech(0.8)]))
    await side.here.heard(session)
    await side.here.manager.dropped(session)
    side.move()
    side.tell()
    await side.hand_over.look()
    assert session.conversation.state == "interrupted"
    session.conversation.flush_here()  # as after the grace
    async with asyncio.timeout(30):
        while session.conversation.in_hand:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    await side.hand_over.look()
    assert side.here.manager.conversations == []
    assert len(await side.here.store.events("main", "c-1", 0)) == 1


async def test_a_client_that_cannot_resume_stays_for_a_time_and_is_ended_in_a_pause(side: Side) -> None:
    session = await side.here.manager.open(msgspec.structs.replace(request(), resumes=False), 0)
    await feed(session, PHRASE)
    side.move()
    side.tell()
    await side.hand_over.look()
    await feed(session, speech(0.5))
    await side.here.heard(session)
    side.clock.advance(STAY_S + 1)
    side.tell()
    await side.hand_over.look()
    assert session.conversation.connected, "somebody speaks"
    assert side.hand_over.left == 1
    await feed(session, silence(1.0))
    await side.here.heard(session)
    await side.hand_over.look()
    heard = await left(session)
    assert [each["type"] for each in heard[-2:]] == ["ended", "close"]
    assert heard[-1]["code"] == 1001
    assert len(spans(heard)) == 2


async def test_a_client_that_cannot_resume_and_never_pauses_is_ended_a_minute_later(side: Side) -> None:
    session = await side.here.manager.open(msgspec.structs.replace(request(), resumes=False), 0)
    side.move()
    side.tell()
    await side.hand_over.look()
    await feed(session, speech(0.5))
    await side.here.heard(session)
    for seconds in (STAY_S + 1, PAUSE_WITHIN_S - 2):
        side.clock.advance(seconds)
        await side.hand_over.look()
        assert session.conversation.connected
    side.clock.advance(2)
    await side.hand_over.look()
    heard = await left(session)
    assert heard[-1] == {"type": "close", "code": 1001}
    assert len(spans(heard)) == 1


async def test_clients_that_do_not_come_to_the_other_side_are_counted(stores: Stores, side: Side) -> None:
    other = await stores.store("audio-1")
    for name in ("comes", "stays-away"):
        await side.here.open(name)
    side.move()
    side.tell()
    await side.hand_over.look()
    await other.open(request("comes"), TOKEN)
    side.clock.advance(BACK_WITHIN_S + 1)
    await side.hand_over.follow_up()
    assert side.hand_over.recent_not_back == 1


async def test_one_that_is_opened_by_older_routes_is_given_up_at_once(side: Side) -> None:
    """The standing rule: no list is made when routes change."""
    side.move()
    side.tell()
    working = asyncio.create_task(side.hand_over.run())
    await asyncio.sleep(0)
    side.here.manager.on_open = side.hand_over.opened
    session = await side.here.open()
    async with asyncio.timeout(30):
        while not session.conversation.released:
            side.tell()
            await asyncio.sleep(0)
    working.cancel()


def test_the_other_side_of_the_service_is_the_monolith() -> None:
    clock = FakeClock()
    receivers = Receivers(Share(SERVICE, Followed(routes(1, 0), in_force=1)), clock)
    receivers.told(Room(conversations=5), Peer(module="audio", name="audio-2"))
    assert receivers.room == 0
    receivers.told(Room(conversations=5), Peer(module="monolith", name="monolith"))
    assert receivers.room == 5
