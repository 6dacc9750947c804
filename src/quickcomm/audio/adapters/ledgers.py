"""Answers operators what became of the sound of each conversation."""

from typing import Any

import msgspec

from quickcomm.audio.ports import SessionStore
from quickcomm.contracts.commands import GetLedgers
from quickcomm.contracts.conversations import ConversationChanged, Ledger
from quickcomm.kernel.errors import NotFoundError
from quickcomm.kernel.messaging.rpc import Answer

Row = dict[str, Any]


def ledger_answer(store: SessionStore) -> Answer:
    async def ledgers(request: GetLedgers) -> list[Row]:
        found = await store.ledgers(request.conversation_id)
        if not found and request.conversation_id:
            raise NotFoundError(f"There is no conversation {request.conversation_id}.")
        return [_row(change) for change in found]

    return GetLedgers, ledgers


def _row(change: ConversationChanged) -> Row:
    total = sum(change.ledgers, Ledger())
    return {
        "site": change.site,
        "conversation_id": change.conversation_id,
        "channel": change.channel,
        "state": change.state,
        "sample_rate": change.sample_rate,
        **msgspec.to_builtins(total),
        "balanced": all(ledger.balanced for ledger in change.ledgers),
        "speakers": msgspec.to_builtins(change.ledgers),
    }
