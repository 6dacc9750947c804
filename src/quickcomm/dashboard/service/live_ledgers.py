"""Conversations as REST shows them: the ledgers of live ones are asked of audio, which alone knows how far they are."""

from collections.abc import Sequence

import msgspec

from quickcomm.contracts.conversations import GetLiveLedgers, Ledger
from quickcomm.dashboard.model.views import Conversation
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.rpc import Rpc


class LiveLedgers:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def of(self, site: str, conversations: Sequence[Conversation]) -> list[Conversation]:
        """Return them with the newest ledgers; with those of their last change while audio does not answer."""
        live = [each.conversation_id for each in conversations if each.ended_at is None]
        if not live:
            return list(conversations)
        try:
            newest = (await self._rpc.call(GetLiveLedgers(site=site, conversation_ids=live))).ledgers
        except QuickCommError:
            return list(conversations)
        return [_renewed(each, newest.get(each.conversation_id, each.ledgers)) for each in conversations]


def _renewed(conversation: Conversation, ledgers: tuple[Ledger, ...]) -> Conversation:
    return msgspec.structs.replace(conversation, ledgers=ledgers, ledger=sum(ledgers, Ledger()))
