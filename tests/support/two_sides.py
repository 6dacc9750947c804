"""Audio's sessions and two sides of intelligence around one Valkey, each step by hand."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from quickcomm.audio.adapters.redis_sessions import RedisSessions
from quickcomm.audio.adapters.redis_sides import Moves
from quickcomm.audio.model.checkpoint import Checkpoint
from quickcomm.audio.ports import OpenRequest, Progress, Stored
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.identity import utterance_id
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.routes import ModuleRoute, Routes, Side
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.intelligence.declaration import fence
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_assignments import AssignmentNames
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import Names
from quickcomm.kernel.routing import RedisRoutes
from quickcomm.kernel.routing.redis import RouteNames

STEP_S: Final = 5.0


class Followed:
    """The routes that a process knows: those of the last `follow`."""

    def __init__(self, store: RedisRoutes) -> None:
        self._store = store
        self._acts: list[Callable[[], Awaitable[None]]] = []
        self.routes = Routes()
        self.in_force = 0

    async def known(self) -> Routes:
        return await self._store.read()

    async def catch_up(self) -> Routes:
        self.routes = await self.known()
        return self.routes

    def on_change(self, act: Callable[[], Awaitable[None]]) -> None:
        self._acts.append(act)

    async def follow(self) -> None:
        found = await self.known()
        if found.version > self.routes.version:
            self.routes = found
        for act in self._acts:
            await act()


class TwoSides:
    def __init__(self, url: str, prefix: str, high_water: int = 10_000) -> None:
        self.clock = FakeClock()
        self.link = Link(url)
        self.store = RedisRoutes(self.link, prefix=prefix)
        self.followed = Followed(self.store)
        moves = Moves(routes=self.followed, step_s=STEP_S)
        self.sessions = RedisSessions(url, self.clock, prefix=prefix, high_water=high_water, moves=moves)
        self.bus = RedisBus(url, self.clock, prefix=prefix, high_water=high_water)
        self._names = Names(prefix)
        self._assignments = AssignmentNames(prefix)
        self._routes_key = RouteNames(prefix).routes
        self._conversations: dict[str, Stored] = {}
        self._said: dict[str, int] = {}
        self._version = 0

    async def aclose(self) -> None:
        await self.sessions.aclose()
        await self.bus.aclose()
        await self.link.aclose()

    # -- routes -----------------------------------------------------------------------------------------------------

    async def route(self, side: Side, *conversations: str, follow: bool = True) -> None:
        """Give all conversations, or these, to a side; audio hears of it with `follow`."""
        before = self.followed.routes if follow else await self.followed.known()
        route = ModuleRoute(weight=10_000 if side == "service" else 0)
        if conversations:
            old = before.of("intelligence")
            route = msgspec.structs.replace(old, overrides={**old.overrides, **dict.fromkeys(conversations, side)})
        self._version += 1
        await self.store.publish(Routes(version=self._version, modules={"intelligence": route}), 1)
        if follow:
            await self.followed.follow()

    async def publish_route(self, route: ModuleRoute) -> None:
        """Publish this very route, and have audio hear of it."""
        self._version += 1
        await self.store.publish(Routes(version=self._version, modules={"intelligence": route}), 1)
        await self.followed.follow()

    async def empty_routes(self) -> None:
        await self.link.call("DEL", self._routes_key)

    async def sweep(self) -> int:
        return await self.sessions.sides.reassign(self.followed.routes)

    # -- audio ------------------------------------------------------------------------------------------------------

    async def say(self, conversation: str = "c", text: str = "towels") -> str:
        stored = self._conversations.get(conversation)
        if stored is None:
            form = AudioFormat(encoding="linear16", sample_rate=16_000, speakers=1)
            request = OpenRequest(site="main", conversation_id=conversation, channel="desk", format=form, token=None)
            stored = self._conversations[conversation] = await self.sessions.open(request, "a" * 32)
        start = self._said[conversation] = self._said.get(conversation, -1_000) + 1_000
        message = UtteranceTranscribed(
            site="main",
            conversation_id=conversation,
            utterance_id=utterance_id(conversation, 0, start),
            channel="desk",
            speaker=0,
            seq=0,
            start_offset=start,
            end_offset=start + 800,
            sample_rate=16_000,
            text=text,
            words=(),
            confidence=0.9,
            stt_model="m",
            spoken_at_ns=1,
            speech_ended_ns=2,
            published_ns=3,
            latency=Latency(),
        )
        progress = Progress(
            site="main",
            conversation_id=conversation,
            epoch=stored.epoch,
            checkpoints=(Checkpoint(offset=start),),
            ledgers=(Ledger(received=start, silence=start),),
        )
        await self.sessions.publish(progress, message)
        return message.utterance_id

    # -- intelligence -----------------------------------------------------------------------------------------------

    async def transcripts(self, conversation: str = "c") -> list[UtteranceTranscribed]:
        """Return all that was appended, in order."""
        return [
            msgspec.json.decode(each, type=UtteranceTranscribed) for each in await self._all(TRANSCRIPTS, conversation)
        ]

    async def stamps(self, conversation: str = "c") -> list[tuple[str, str, int]]:
        return [(each.utterance_id, each.owner, each.owner_epoch) for each in await self.transcripts(conversation)]

    async def answer(self, *messages: UtteranceTranscribed, revision: int = 1) -> list[bool]:
        """Publish insights as the outbox of the side that had these transcripts does."""
        found = [
            InsightsFound(
                site=each.site,
                conversation_id=each.conversation_id,
                utterance_id=each.utterance_id,
                revision=revision,
                insights=(),
                speech_ended_ns=2,
                published_ns=3,
                latency=Latency(),
                owner=each.owner,
                owner_epoch=each.owner_epoch,
            )
            for each in messages
        ]
        payloads = [msgspec.json.encode(each) for each in found]
        rows = [(one.conversation_id, each, fence(each)) for one, each in zip(found, payloads, strict=True)]
        return await self.bus.publish_fenced(INSIGHTS, rows)

    async def insights(self, conversation: str = "c") -> list[tuple[str, str, int]]:
        """Return utterance, side and epoch of all that was accepted, in order."""
        found = [msgspec.json.decode(each, type=InsightsFound) for each in await self._all(INSIGHTS, conversation)]
        return [(each.utterance_id, each.owner, each.owner_epoch) for each in found]

    async def unanswered(self) -> set[str]:
        return {name.decode() for name in await self.link.call("SMEMBERS", self._assignments.unanswered)}

    async def _all(self, stream: str, conversation: str) -> Sequence[bytes]:
        found = await self.link.call("XRANGE", self._names.of_key(stream, conversation), "-", "+")
        return [fields[b"p"] for _, fields in found if fields[b"k"] == conversation.encode()]
