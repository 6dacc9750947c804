"""Answers the checker what audio has: utterances in the logs, ledgers, recordings."""

import msgspec

from quickcomm.audio.ports import Recordings, SessionStore
from quickcomm.contracts.checking import TRANSCRIBED, CompareAudio, Contents, Conversations, Fault, RecentAudio
from quickcomm.kernel.messaging.rpc import Answer


def digest_answers(store: SessionStore, recordings: Recordings | None) -> list[Answer]:
    """`recordings`: None where no sound is kept."""

    async def contents(request: CompareAudio) -> Contents:
        if recordings is None or request.content:
            return await store.contents(request)
        found = await store.contents(msgspec.structs.replace(request, items=True))
        said = {(item.site, item.id): item.at_ns for item in found.items.get(TRANSCRIBED, ())}
        lacking = [
            Fault(code="recording.missing", site=site, id=name, at_ns=said[site, name])
            for site, name in await recordings.lacking(list(said))
        ]
        items = found.items if request.items else {}
        return msgspec.structs.replace(found, items=items, faults=[*found.faults, *lacking])

    async def recent(request: RecentAudio) -> Conversations:
        return Conversations(keys=await store.recent(request.since_ns, request.limit))

    return [(CompareAudio, contents), (RecentAudio, recent)]
