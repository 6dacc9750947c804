"""Gives the monolith, while audio moves, a conversation for which the service has no room.

The process that has no room asks the controller for a route of this conversation alone. The client is refused only when
the edge has that route: it comes again at once, and is let in by the other side.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from quickcomm.audio.service.hand_over import Receivers
from quickcomm.audio.service.share import Share
from quickcomm.contracts.routes import SERVICE
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError

WITHIN_S: Final = 1.0
LOOK_EVERY_S: Final = 0.02
MOST: Final = 50
"""So many clients are kept waiting for a route; further ones are refused at once."""
Ask = Callable[[str], Awaitable[object]]
"""Have the controller give a conversation to the other side. Asked again, it changes nothing."""

log = structlog.get_logger(__name__)


class Overflow:
    def __init__(self, share: Share, receivers: Receivers, clock: Clock, ask: Ask) -> None:
        self._share = share
        self._receivers = receivers
        self._clock = clock
        self._ask = ask
        self._waiting = 0

    async def leads_back(self, conversation_id: str, channel: str) -> bool:
        """Return True if the edge sends the client of this conversation to the other side from now on.

        False where both sides are full, where another process of this side has room, where the conversation has a side
        of its own already (so that none goes back and forth), and where no route is in force within a second.
        """
        share = self._share
        if share.side != SERVICE or not share.moves:
            return False
        if share.is_apart(conversation_id) or self._receivers.room_beside or not self._receivers.room:
            return share.gives_up(conversation_id, channel)
        if self._waiting >= MOST:
            return False
        self._waiting += 1
        began = self._clock.monotonic()
        try:
            async with self._clock.timeout(WITHIN_S):
                await self._ask(conversation_id)
                while not share.gives_up(conversation_id, channel):
                    await self._clock.sleep(LOOK_EVERY_S)
        except (QuickCommError, TimeoutError) as error:
            log.warning("conversation.not_led_back", conversation_id=conversation_id, error=str(error)[:200])
            return share.gives_up(conversation_id, channel)
        finally:
            self._waiting -= 1
        took_ms = round(1000 * (self._clock.monotonic() - began))
        log.info("conversation.led_back", conversation_id=conversation_id, took_ms=took_ms)
        return True
