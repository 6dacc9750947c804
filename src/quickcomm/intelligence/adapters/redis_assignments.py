"""The side of each conversation, as audio's scripts keep it in the site's Valkey."""

from quickcomm.kernel.messaging.bus.redis_assignments import Assignment, AssignmentNames
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX


class RedisAssignments:
    """Implements `Assignments`."""

    def __init__(self, url: str, *, prefix: str = PREFIX) -> None:
        self._link = Link(url)
        self._names = AssignmentNames(prefix)

    async def of(self, site: str, conversation_id: str) -> Assignment | None:
        key = self._names.assignment(f"{site}:{conversation_id}")
        side, epoch = await self._link.call("HMGET", key, "side", "epoch")
        return None if side is None else Assignment(side=side.decode(), epoch=int(epoch))

    async def aclose(self) -> None:
        await self._link.aclose()
