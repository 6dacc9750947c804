"""Answers an erasure: what audio has of conversations and utterances, with their sound."""

from collections.abc import Callable

from quickcomm.audio.ports import Recordings, SessionStore
from quickcomm.contracts.erasing import EraseAudio, Erased, Scope
from quickcomm.kernel.erasing.traces import remove_traces
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.storage import Database

TABLES_WITH_WORDS = ("audio_events", "audio_conversations", "bus_messages", "bus_dead_letters")
IN_STORE = "the store (Valkey)"


def erasing_answer(
    store: SessionStore,
    recordings: Recordings | None,
    database: Database | None,
    on_erased: Callable[[Scope], None] = lambda _scope: None,
) -> Answer:
    """`database`: where the store keeps conversations, None for a Valkey. `on_erased`: lets go of what is live."""

    async def erase(request: EraseAudio) -> list[Erased]:
        counts = await store.erase(request)
        on_erased(request.scope)
        gone = ""
        if database is not None and request.traces:
            gone = await remove_traces(database, TABLES_WITH_WORDS)
        where = IN_STORE if database is None else database.name
        found = [Erased(store=f"audio, {where}", what=what, count=count, gone=gone) for what, count in counts.items()]
        if recordings is not None:
            count = await recordings.erase(request.scope)
            found.append(Erased(store="audio, recordings", what="files", count=count))
        return found

    return EraseAudio, erase
