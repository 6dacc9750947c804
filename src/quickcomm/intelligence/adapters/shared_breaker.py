"""What all processes of intelligence agree on about the model, in Valkey: gone soon after the last of them."""

import os
import socket
import uuid
from typing import Final

from quickcomm.intelligence.declaration import BREAKER_KEY
from quickcomm.intelligence.ports import Stand
from quickcomm.kernel.messaging.bus.redis_link import Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PREFIX

KEPT_MS: Final = 10_000
PROBES_MS: Final = 1_500
"""So long after its last word the process that probes counts as dead."""
_EXCHANGE: Final = Script("""
-- KEYS: the stand. ARGV: who, closed, why, since, number, changed, ms that it is kept, ms that who probes is believed.
-- Returns {number, closed, why, since, whether the caller probes}.
local number = tonumber(redis.call('HGET', KEYS[1], 'number') or 0)
local known = tonumber(ARGV[5])
if number == 0 or (ARGV[6] == '1' and known >= number) then
  number = math.max(number, known) + 1
  redis.call('HSET', KEYS[1], 'number', number, 'closed', ARGV[2], 'why', ARGV[3], 'since', ARGV[4])
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local prober = redis.call('HGET', KEYS[1], 'prober')
local ends = tonumber(redis.call('HGET', KEYS[1], 'until') or 0)
if not prober or prober == ARGV[1] or ends <= now or ends > now + tonumber(ARGV[8]) then
  prober = ARGV[1]
  redis.call('HSET', KEYS[1], 'prober', prober, 'until', now + tonumber(ARGV[8]))
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
local stand = redis.call('HMGET', KEYS[1], 'closed', 'why', 'since')
return {number, stand[1], stand[2], stand[3], prober == ARGV[1] and 1 or 0}
""")


class RedisStand:
    """Implements `SharedStand`."""

    def __init__(self, url: str, *, prefix: str = PREFIX) -> None:
        """Raises `ConfigurationError` for an address that is none."""
        self._link = Link(url)
        self._key = f"{prefix}:{BREAKER_KEY}"
        self._me = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    async def exchange(self, mine: Stand, *, changed: bool) -> tuple[Stand, bool]:
        said = (self._me, int(mine.closed), mine.why, mine.since_ns, mine.number, int(changed))
        answer = await self._link.run(_EXCHANGE, (self._key,), *said, KEPT_MS, PROBES_MS)
        number, closed, why, since, probes = answer
        stand = Stand(closed=closed == b"1", why=why.decode(), since_ns=int(since), number=int(number))
        return stand, bool(probes)

    async def aclose(self) -> None:
        """May be called again."""
        await self._link.aclose()
