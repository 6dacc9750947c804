"""The receipt of the last words comes before the end, where somebody sends receipts; nobody waits for it for long."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.support.hearing import Hall, hall, said, silence, speech

from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.service.due import MOST, ReceiptsDue
from quickcomm.audio.service.manager import Session
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.clock import SystemClock

PHRASE = np.concatenate([silence(0.5), speech(0.8), silence(0.7)])
PATIENT = AudioSettings(answer_wait_s=60.0)


async def spoken(here: Hall) -> tuple[Session, UtteranceTranscribed]:
    """One utterance, its insights in the log, and the client has said everything."""
    session = await here.open()
    await session.conversation.feed(PHRASE[:16_000].tobytes())
    await session.conversation.feed(PHRASE[16_000:].tobytes())
    session.conversation.end()
    async with asyncio.timeout(30):
        while not here.captions.shown:  # noqa: ASYNC110 - a fake tells nobody
            await asyncio.sleep(0)
    [message] = here.captions.shown
    found = InsightsFound(
        site=message.site,
        conversation_id=message.conversation_id,
        utterance_id=message.utterance_id,
        revision=1,
        insights=(),
        speech_ended_ns=message.speech_ended_ns,
        published_ns=message.published_ns,
        latency=Latency(),
    )
    await here.manager.answered(found)
    return session, message


async def test_the_end_waits_for_the_receipt_of_the_last_words(tmp_path: Path) -> None:
    async with hall(tmp_path / "site.sqlite", settings=PATIENT) as here:
        here.captions.gives_receipts = True
        session, message = await spoken(here)
        assert message.seq == 1
        assert not session.conversation.finished
        here.manager.receipt(message.site, message.conversation_id, message.utterance_id, Latency(total=812.5))
        async with asyncio.timeout(30):
            kinds = [event["type"] for event in await said(session)]
    assert kinds.index("receipt") < kinds.index("ended")


@pytest.mark.parametrize("gives_receipts", [True, False])
async def test_who_sends_none_is_not_waited_for(tmp_path: Path, *, gives_receipts: bool) -> None:
    """Not at all where nobody says that he sends some; else for a moment."""
    clock = SystemClock(limits=0.05 if gives_receipts else 1_800.0)
    async with hall(tmp_path / "site.sqlite", settings=PATIENT, clock=clock) as here:
        here.captions.gives_receipts = gives_receipts
        session, _ = await spoken(here)
        async with asyncio.timeout(30):
            kinds = [event["type"] for event in await said(session)]
    assert kinds[-2:] == ["ended", "close"]
    assert "receipt" not in kinds


async def test_who_has_gone_is_not_waited_for(tmp_path: Path) -> None:
    async with hall(tmp_path / "site.sqlite", settings=PATIENT, clock=SystemClock(limits=1_800.0)) as here:
        here.captions.gives_receipts = True
        session, _ = await spoken(here)
        session.conversation.disconnect(session.outlet)
        async with asyncio.timeout(30):
            while not session.conversation.finished:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)


async def test_what_has_no_insights_has_no_receipt_and_what_is_remembered_is_bounded() -> None:
    receipts = ReceiptsDue(SystemClock())
    for number in range(2 * MOST):
        receipts.add(str(number))
    unanswered = {str(number) for number in range(MOST, 2 * MOST)}
    async with asyncio.timeout(30):
        assert await receipts.wait(unanswered, lambda: True) == 0
