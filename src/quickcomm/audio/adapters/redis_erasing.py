"""Erases conversations and utterances in the session store in Valkey; their places in the log stay."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final

from quickcomm.audio.adapters import redis_scripts as lua
from quickcomm.audio.adapters.event_log import blanked
from quickcomm.audio.adapters.redis_calls import Calls
from quickcomm.audio.adapters.redis_rows import Row, SessionNames, pairs
from quickcomm.contracts.erasing import EraseAudio, conversation_of
from quickcomm.kernel.messaging.bus.redis_assignments import AssignmentNames
from quickcomm.kernel.messaging.bus.redis_link import Argument, Script

_EVENTS: Final = Script(lua.EVENTS)
_ERASE: Final = Script(lua.ERASE)
_ROWS: Final = Script(lua.ROWS)
PAGE: Final = 200


class RedisErasing:
    def __init__(
        self, calls: Calls, names: SessionNames, assignments: AssignmentNames, end: Callable[[str], Awaitable[bool]]
    ) -> None:
        """`end`: ends a conversation that is going on, by its name; returns True if it was one."""
        self._calls = calls
        self._names = names
        self._assignments = assignments
        self._end = end

    async def run(self, request: EraseAudio) -> dict[str, int]:
        """Return how much was erased, by what it is."""
        scope = request.scope
        found = {"logged events": 0, "unanswered utterances": 0, "live conversations": 0}
        single: dict[str, list[str]] = defaultdict(list)
        for utterance in scope.utterances:
            single[conversation_of(utterance)].append(utterance)
        for conversation in scope.conversations:
            name = f"{scope.site}:{conversation}"
            found["live conversations"] += await self._end(name)
            await self._erase(name, None, found)
        for conversation, utterances in single.items():
            await self._erase(f"{scope.site}:{conversation}", utterances, found)
        return found

    async def _erase(self, name: str, utterances: list[str] | None, found: dict[str, int]) -> None:
        """`utterances`: None for all of them."""
        blank: list[Argument] = [] if utterances is None else await self._blank(name, set(utterances))
        keys = [self._names.conversation(name), self._names.said(name), self._names.log(name)]
        keys += [self._assignments.unanswered, self._assignments.assignment(name)]
        wanted = utterances or []
        head: list[Argument] = [name, int(utterances is None), len(wanted), *wanted]
        (events, unanswered), _ = await self._calls.run(_ERASE, keys, *head, *blank)
        found["logged events"] += events
        found["unanswered utterances"] += unanswered
        await self._empty_mail(name, utterances)

    async def _blank(self, name: str, utterances: set[str]) -> list[Argument]:
        """Return number and blank event of each event of these utterances that has words."""
        keys, after, blank = (self._names.conversation(name), self._names.log(name)), 0, list[Argument]()
        while True:
            (base, page), _ = await self._calls.run(_EVENTS, keys, after, PAGE)
            for seq, entry in enumerate(page, start=base + 1):
                utterance, _, payload = entry.partition(b"\n")
                if utterance.decode() in utterances and (empty := blanked(payload)) != payload:
                    blank += [seq, utterance + b"\n" + empty]
            if len(page) < PAGE:
                return blank
            after = base + len(page)

    async def _empty_mail(self, name: str, utterances: list[str] | None) -> None:
        """Delete events that wait for the owner of the conversation."""
        rows, _ = await self._calls.run(_ROWS, [self._names.conversation(name)])
        if not rows or not rows[0]:
            return
        mail = self._names.mail(Row.of(pairs(rows[0])).owner)
        for entry, fields in await self._calls.call("XRANGE", mail, "-", "+"):
            if fields[b"n"].decode() == name and (utterances is None or fields[b"u"].decode() in utterances):
                await self._calls.call("XDEL", mail, entry)
