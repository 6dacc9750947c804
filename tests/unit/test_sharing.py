"""A process of audio gives conversations to others: those in which somebody speaks, and each is refused here once."""

from pathlib import Path

import pytest
from tests.support.hearing import TOKEN, Hall, hall, said, silence, speech
from tests.unit.test_conversation import feed

from quickcomm.audio.service.manager import TALKED_S, FullError, Session
from quickcomm.audio.service.sharing import share_out
from quickcomm.kernel.clock import FakeClock


async def talking(here: Hall, name: str) -> Session:
    session = await here.open(name)
    await feed(session, speech(0.5))
    await here.heard(session)
    here.manager.look()
    return session


def comes_back(here: Hall, name: str) -> bool:
    try:
        with here.manager.expecting(("main", name)):
            return True
    except FullError:
        return False


async def test_talkers_are_those_who_spoke_a_moment_ago(tmp_path: Path) -> None:
    clock = FakeClock(pauses=0)
    async with hall(tmp_path / "site.sqlite", clock=clock) as here:
        silent = await here.open("silent")
        await feed(silent, silence(0.5))
        session = await talking(here, "talks")
        assert [each.id for each in here.manager.talking] == ["talks"]
        session.conversation.flush_here()
        await here.heard(session)
        clock.advance(TALKED_S)
        here.manager.look()
        assert [each.id for each in here.manager.talking] == ["talks"]
        clock.advance(0.1)
        assert here.manager.talking == []


async def test_as_many_as_asked_for_are_given_up_and_told_to_come_back_at_once(tmp_path: Path) -> None:
    clock = FakeClock(pauses=0)
    async with hall(tmp_path / "site.sqlite", clock=clock) as here:
        sessions = [await talking(here, f"c-{number}") for number in range(4)]
        await here.open("silent")
        assert await share_out(here.manager, clock, 2) == 2
        left = {each.id for each in here.manager.conversations}
        assert len(left) == 3
        assert "silent" in left
        for session in sessions:
            if session.conversation.id not in left:
                *_, reconnect, close = await said(session)
                assert (reconnect["type"], reconnect["reason"], reconnect["after_ms"]) == ("reconnect", "handover", 0)
                assert close["code"] == 1012


async def test_whoever_was_sent_away_is_refused_once_and_then_taken(tmp_path: Path) -> None:
    """So the edge finds another process; where there is none any more, the conversation goes on here."""
    clock = FakeClock(pauses=0)
    async with hall(tmp_path / "site.sqlite", clock=clock) as here:
        await talking(here, "c-1")
        await share_out(here.manager, clock, 1)
        assert not comes_back(here, "c-1")
        assert comes_back(here, "c-1")
        assert comes_back(here, "another")
        session = await here.open("c-1")
        assert (session.ready.conversation_id, session.ready.resume_token) == ("c-1", TOKEN)


async def test_a_client_that_cannot_resume_stays(tmp_path: Path) -> None:
    clock = FakeClock(pauses=0)
    async with hall(tmp_path / "site.sqlite", clock=clock) as here:
        session = await talking(here, "call")
        session.conversation.resumes = False
        assert await share_out(here.manager, clock, 5) == 0
        assert here.manager.conversations == [session.conversation]


async def test_who_pauses_goes_first(tmp_path: Path) -> None:
    clock = FakeClock(pauses=0)
    async with hall(tmp_path / "site.sqlite", clock=clock) as here:
        await talking(here, "speaks")
        pauses = await talking(here, "pauses")
        pauses.conversation.flush_here()
        await here.heard(pauses)
        await share_out(here.manager, clock, 1)
        assert [each.id for each in here.manager.conversations] == ["speaks"]
        with pytest.raises(FullError), here.manager.expecting(("main", "pauses")):
            pass
