"""Gives conversations to other processes of audio: of two that share the talkers, one may have got far more of them.

A process knows no other one. It sends clients away and refuses each once, and the edge finds another process for them.
"""

from typing import Final

import structlog

from quickcomm.audio.service.conversation import Conversation
from quickcomm.audio.service.manager import Manager
from quickcomm.kernel.clock import Clock

EVERY_S: Final = 0.1
"""One conversation goes at a time: what is not acknowledged is written down again elsewhere."""

log = structlog.get_logger(__name__)


async def share_out(manager: Manager, clock: Clock, count: int) -> int:
    """Give up so many conversations in which somebody speaks, those in a pause first; return how many were given up.

    A client that cannot resume stays.
    """
    manager.sent_away.clear()
    given_up = 0
    for _ in range(count):
        able = [each for each in manager.talking if _can_go(each)]
        if not able:
            break
        going = min(able, key=lambda each: each.in_hand)
        manager.sent_away.add(going.key)
        given_up += await manager.give_up(going) is not None
        await clock.sleep(EVERY_S)
    log.info("conversations.shared_out", count=given_up, asked_for=count)
    return given_up


def _can_go(conversation: Conversation) -> bool:
    over = conversation.ending or conversation.finished or conversation.released
    return conversation.connected and conversation.resumes and not over
