"""Answers operators about what is in the store: API keys, and messages that could not be handled."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from quickcomm.contracts.checking import ListBacklog, Waiting
from quickcomm.contracts.commands import (
    CreateKey,
    DropDeadLetter,
    ListDeadLetters,
    ListKeys,
    ReplayDeadLetter,
    RevokeKey,
)
from quickcomm.kernel.messaging.rpc.port import Answer

if TYPE_CHECKING:
    from quickcomm.kernel.bus import DeadLetter
    from quickcomm.kernel.keys import KeyStore
    from quickcomm.kernel.keys.port import CreatedKey, Key

Row = dict[str, Any]


class Letters(Protocol):
    """A bus, as far as its dead letters go."""

    async def dead_letters(self) -> list["DeadLetter"]: ...

    async def replay(self, dead_letter_id: int) -> None: ...

    async def drop(self, dead_letter_id: int) -> None: ...

    async def waiting(self) -> list[Waiting]: ...


def key_answers(keys: "KeyStore") -> Sequence[Answer]:
    async def create(request: CreateKey) -> "CreatedKey":
        return await keys.create(request.role, request.holder, request.site)

    async def listed(_request: ListKeys) -> "list[Key]":
        return await keys.list()

    async def revoke(request: RevokeKey) -> Row:
        await keys.revoke(request.id)
        return {"id": request.id, "revoked": True}

    return [(CreateKey, create), (ListKeys, listed), (RevokeKey, revoke)]


def letter_answers(bus: Letters) -> Sequence[Answer]:
    async def listed(_request: ListDeadLetters) -> list[Row]:
        return [
            {
                "id": letter.id,
                "stream": letter.stream,
                "group": letter.group,
                "conversation_id": letter.key,
                "reason": letter.reason,
                "attempts": letter.attempts,
                "bytes": len(letter.payload),
                "at_ns": letter.at_ns,
            }
            for letter in await bus.dead_letters()
        ]

    async def replay(request: ReplayDeadLetter) -> Row:
        await bus.replay(request.id)
        return {"id": request.id, "replayed": True}

    async def drop(request: DropDeadLetter) -> Row:
        await bus.drop(request.id)
        return {"id": request.id, "dropped": True}

    async def waiting(_request: ListBacklog) -> list[Waiting]:
        return await bus.waiting()

    return [(ListDeadLetters, listed), (ReplayDeadLetter, replay), (DropDeadLetter, drop), (ListBacklog, waiting)]
