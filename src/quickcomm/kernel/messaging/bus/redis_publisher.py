"""Publishing: what is published at the same time goes to the server together, in the order of the calls."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.port import BusFullError, BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_assignments import PUBLISH_FENCED, AssignmentNames, Fence
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import Names
from quickcomm.kernel.messaging.bus.redis_scripts import PUBLISH

TOGETHER: Final = 256
_PUBLISH: Final = Script(PUBLISH)
_PUBLISH_FENCED: Final = Script(PUBLISH_FENCED)
FULL: Final = "Too much waits to be handled on this stream; nothing was published. Try again in a moment."


class PartitionFullError(BusFullError):
    """A partition is at its high-water mark; the others may take more."""


class _Message:
    __slots__ = ("error", "key", "payload", "stream", "turn")

    def __init__(self, stream: str, key: str, payload: bytes) -> None:
        self.stream = stream
        self.key = key
        self.payload = payload
        self.error: QuickCommError | None = None
        self.turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """True: its publisher is to send what waits. False: another one has sent it."""


class Publisher:
    """`high_water`: messages that a partition holds at most, not counting what all groups have acknowledged."""

    def __init__(self, link: Link, names: Names, high_water: int) -> None:
        self._link = link
        self._names = names
        self._high_water = high_water
        self._waiting: deque[_Message] = deque()
        self._sending = False

    async def publish(self, stream: str, key: str, payload: bytes) -> None:
        """One caller sends for all that wait, and then leaves that to the next one."""
        message = _Message(stream, key, payload)
        self._waiting.append(message)
        if self._sending:
            try:
                mine = await message.turn
            except asyncio.CancelledError:
                if message.turn.done() and not message.turn.cancelled() and message.turn.result():
                    self._pass_on()
                raise
        else:
            mine = self._sending = True
            message.turn.set_result(True)
        if mine:
            try:
                await self._send(self._next())
            finally:
                self._pass_on()
        if message.error is not None:
            raise message.error

    async def publish_many(self, stream: str, messages: Sequence[tuple[str, bytes]]) -> list[bool]:
        """Publish (key, payload) pairs in order; return for each whether it is durable, or its partition is full.

        Nothing behind a refused message of the same partition is published. Raises `BusUnavailableError`.
        """
        batch = [_Message(stream, key, payload) for key, payload in messages]
        await self._send(batch)
        for message in batch:
            if message.error is not None and not isinstance(message.error, PartitionFullError):
                raise message.error
        return [message.error is None for message in batch]

    async def publish_fenced(self, stream: str, messages: Sequence[tuple[str, bytes, Fence | None]]) -> list[bool]:
        """Publish (key, payload, fence) as `publish_many` does; return False for each whose partition is full.

        A message is left out where its conversation has a higher epoch: True, there is nothing to be tried again.
        Raises `BusUnavailableError`.
        """
        names = AssignmentNames(self._names.prefix)
        places = {names.unanswered: 1}
        arguments: list[Argument] = [self._high_water]
        for key, payload, fence in messages:
            name = self._names.of_key(stream, key)
            arguments += [places.setdefault(name, len(places) + 1), key, payload]
            if fence is None:
                arguments += [0, "", 0, ""]
                continue
            place = places.setdefault(names.assignment(fence.name), len(places) + 1)
            arguments += [place, fence.name, fence.epoch, fence.utterance_id]
        answer = await self._link.run(_PUBLISH_FENCED, list(places), *arguments)
        return [taken > 0 for taken in answer]

    def _next(self) -> list[_Message]:
        """What is sent together: the sender's own first, and none that nobody waits for any more."""
        batch = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
        return [message for message in batch if message is batch[0] or not message.turn.done()]

    def _pass_on(self) -> None:
        while self._waiting and self._waiting[0].turn.done():
            self._waiting.popleft()
        self._sending = bool(self._waiting)
        if self._sending:
            self._waiting[0].turn.set_result(True)

    async def _send(self, batch: list[_Message]) -> None:
        """Whatever happens, each of them is settled; where the answer is lost, it may be published or not."""
        streams: dict[str, int] = {}
        arguments: list[Argument] = [self._high_water]
        for message in batch:
            name = self._names.of_key(message.stream, message.key)
            arguments += [streams.setdefault(name, len(streams) + 1), message.key, message.payload]
        lost: QuickCommError | None = BusUnavailableError("Publishing was cancelled; it may have happened or not.")
        answer: list[int] = []
        try:
            answer = await self._link.run(_PUBLISH, list(streams), *arguments)
            lost = None
        except QuickCommError as reason:
            lost = reason
        finally:
            for number, message in enumerate(batch):
                message.error = lost if lost or answer[number] else PartitionFullError(FULL)
                if not message.turn.done():
                    message.turn.set_result(False)
