"""The log of decisions in Valkey: stream `decisions.v1`, appended to under the lease of one side and by version.

Keys, behind `quickcomm:decisions:`: `lease` (side, epoch, and the version of the routes by which it moved) and, for a
week, `version:SITE:SUBJECT` with the newest version of what was decided about and the id of that decision.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from quickcomm.contracts.decisions import DECISIONS, Decision
from quickcomm.dashboard.ports import NotDecidingError, StaleDecisionError
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.bus.port import BusFullError, BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PREFIX, Names

HIGH_WATER: Final = 10_000
"""Decisions in a partition, with those that all have folded and nobody has trimmed yet: that is done each minute."""
KEPT_S: Final = 7 * 24 * 3600
"""For so long a version is known here. After that every database has folded the decision, and knows it itself."""
RETRY_S: Final = (0.05, 0.1, 0.2, 0.4)

LEASE: Final = Script("""
-- KEYS: lease. ARGV: side, the highest epoch its database knows, version of the routes by which this side decides.
-- Returns the side that decides, and its epoch. A lease moves only to whoever goes by newer routes than its holder did.
local side, routes = redis.call('HGET', KEYS[1], 'side'), tonumber(redis.call('HGET', KEYS[1], 'routes') or 0)
if not side or (side ~= ARGV[1] and tonumber(ARGV[3]) > routes) then
  local epoch = math.max(tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0), tonumber(ARGV[2])) + 1
  redis.call('HSET', KEYS[1], 'side', ARGV[1], 'epoch', epoch, 'routes', ARGV[3])
end
return {redis.call('HGET', KEYS[1], 'side'), redis.call('HGET', KEYS[1], 'epoch')}
""")

APPEND: Final = Script("""
-- KEYS: lease, partitions. ARGV: side, epoch, mark, prefix of the version keys, seconds that these are kept, then for
-- each decision: number of its partition, subject, version, id, payload.
-- Returns 'taken', or why nothing was: 'fenced', 'stale', 'full'.
if redis.call('HGET', KEYS[1], 'side') ~= ARGV[1] or redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[2] then
  return 'fenced'
end
local known, fresh = 0, 0
for i = 6, #ARGV, 5 do
  local version, id = string.match(redis.call('GET', ARGV[4] .. ARGV[i + 1]) or '', '^(%d+) (.*)$')
  if version and id == ARGV[i + 3] then
    known = known + 1
  elseif version and tonumber(version) >= tonumber(ARGV[i + 2]) then
    return 'stale'
  else
    fresh = fresh + 1
  end
end
if fresh == 0 then return 'taken' end -- before, and the answer was lost
if known > 0 then return 'stale' end
for i = 2, #KEYS do
  if redis.call('XLEN', KEYS[i]) + fresh > tonumber(ARGV[3]) then return 'full' end
end
for i = 6, #ARGV, 5 do
  redis.call('XADD', KEYS[1 + tonumber(ARGV[i])], '*', 'k', ARGV[i + 1], 'p', ARGV[i + 4])
  redis.call('SET', ARGV[4] .. ARGV[i + 1], ARGV[i + 2] .. ' ' .. ARGV[i + 3], 'EX', ARGV[5])
end
return 'taken'
""")


class RedisDecisions:
    """A `DecisionLog` of one side; its processes share a database."""

    def __init__(self, url: str, side: str, clock: Clock, *, prefix: str = PREFIX) -> None:
        """`side`: that of the process, such as `service`."""
        self._link = Link(url)
        self._side = side
        self._clock = clock
        self._names = Names(prefix)
        self._lease = f"{prefix}:decisions:lease"
        self._versions = f"{prefix}:decisions:version:"
        self._epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    async def hold(self, known_epoch: int, routes: int = 0) -> None:
        side, epoch = await self._link.run(LEASE, (self._lease,), self._side, known_epoch, routes)
        if side.decode() != self._side:
            self._epoch = 0
            raise NotDecidingError(f"{side.decode()} decides for this site now, and this process does not.")
        self._epoch = int(epoch)

    async def aclose(self) -> None:
        """Close the connection. May be called again."""
        await self._link.aclose()

    async def append(self, decisions: Sequence[Decision]) -> None:
        if not decisions:
            return
        streams: dict[str, int] = {}
        arguments: list[Argument] = [self._side, self._epoch, HIGH_WATER, self._versions, KEPT_S]
        for one in decisions:
            subject = f"{one.site}:{one.subject}"
            number = streams.setdefault(self._names.of_key(DECISIONS, subject), len(streams) + 1)
            arguments += [number, subject, one.version, one.decision_id, msgspec.json.encode(one)]
        answer = await self._run((self._lease, *streams), arguments)
        if answer == b"stale":
            raise StaleDecisionError("Something newer was decided about this.")
        if answer == b"full":
            raise BusFullError("Too many decisions wait to be taken in; try again in a moment.")
        if answer == b"fenced":
            raise NotDecidingError("Another side decides for this site now; try again in a moment.")

    async def _run(self, keys: Sequence[str], arguments: Sequence[Argument]) -> bytes:
        for wait in RETRY_S:
            try:
                answer: bytes = await self._link.run(APPEND, keys, *arguments)
            except BusUnavailableError:
                await self._clock.sleep(wait)
            else:
                return answer
        last: bytes = await self._link.run(APPEND, keys, *arguments)
        return last
