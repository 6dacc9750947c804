"""Answers operators about what is in the store: API keys, and messages that could not be handled."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from quickcomm.contracts.checking import GetStanding, ListBacklog, PublishAgain, Standing, Waiting
from quickcomm.contracts.commands import (
    CreateKey,
    DropDeadLetter,
    ListDeadLetters,
    ListKeys,
    ReplayDeadLetter,
    RevokeKey,
)
from quickcomm.contracts.erasing import Erased, EraseMessages, FindMessages, Scope, Wanted
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.kernel.errors import MALFORMED, InvalidInputError
from quickcomm.kernel.messaging.rpc.port import Answer

if TYPE_CHECKING:
    from quickcomm.kernel.keys import KeyStore
    from quickcomm.kernel.keys.port import CreatedKey, Key
    from quickcomm.kernel.messaging.bus import DeadLetter

Row = dict[str, Any]


class Letters(Protocol):
    """A bus, as far as operators ask for its messages."""

    async def dead_letters(self) -> list["DeadLetter"]: ...

    async def replay(self, dead_letter_id: int) -> None: ...

    async def drop(self, dead_letter_id: int) -> None: ...

    async def waiting(self) -> list[Waiting]: ...

    async def standing(self, key: str, utterance_id: str) -> list[Standing]: ...

    async def publish(self, stream: str, key: str, payload: bytes) -> None: ...

    async def find(self, wanted: Wanted) -> set[str]: ...

    async def erase(self, scope: Scope, *, traces: bool = True) -> list[Erased]: ...


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
        from quickcomm.kernel.messaging.bus.handling import carried  # noqa: PLC0415 - commands of a server do without

        return [
            {
                "id": letter.id,
                "stream": letter.stream,
                "group": letter.group,
                "conversation_id": letter.key,
                "utterance_id": carried(letter.payload).utterance_id,
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

    async def standing(request: GetStanding) -> list[Standing]:
        return await bus.standing(request.conversation_id, request.utterance_id)

    async def publish(request: PublishAgain) -> Row:
        try:
            message = msgspec.json.decode(request.message, type=UtteranceTranscribed)
        except MALFORMED as error:
            raise InvalidInputError(f"This is no transcript: {error}") from error
        await bus.publish(TRANSCRIPTS, message.conversation_id, request.message.encode())
        return {"utterance_id": message.utterance_id, "published": True}

    async def find(request: FindMessages) -> Scope:
        return Scope(site=request.wanted.site, utterances=tuple(sorted(await bus.find(request.wanted))))

    async def erase(request: EraseMessages) -> list[Erased]:
        return await bus.erase(request.scope, traces=request.traces)

    letters: Sequence[Answer] = [(ListDeadLetters, listed), (ReplayDeadLetter, replay), (DropDeadLetter, drop)]
    asked: Sequence[Answer] = [(ListBacklog, waiting), (GetStanding, standing), (PublishAgain, publish)]
    return [*letters, *asked, (FindMessages, find), (EraseMessages, erase)]
