"""Answers operators and the dashboard what became of the sound of each conversation."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from quickcomm.audio.ports import SessionStore
from quickcomm.contracts.commands import GetLedgers
from quickcomm.contracts.conversations import ConversationChanged, GetLiveLedgers, Ledger, Ledgers
from quickcomm.kernel.errors import NotFoundError
from quickcomm.kernel.messaging.rpc import Answer

Row = dict[str, Any]
ONE_BY_ONE: Final = 5
"""More conversations are looked up together with all others."""


def ledger_answer(store: SessionStore) -> Answer:
    async def ledgers(request: GetLedgers) -> list[Row]:
        found = await store.ledgers(request.conversation_id)
        if not found and request.conversation_id:
            raise NotFoundError(f"There is no conversation {request.conversation_id}.")
        return [_row(change) for change in found]

    return GetLedgers, ledgers


def live_ledgers_answer(store: SessionStore) -> Answer:
    async def ledgers(request: GetLiveLedgers) -> Ledgers:
        wanted = set(request.conversation_ids)
        names: Iterable[str | None] = [None] if len(wanted) > ONE_BY_ONE else wanted
        found = [each for name in names for each in await store.ledgers(name)]
        return Ledgers(
            ledgers={
                each.conversation_id: each.ledgers
                for each in found
                if each.site == request.site and each.conversation_id in wanted
            }
        )

    return GetLiveLedgers, ledgers


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
