"""Which side understands a conversation, while intelligence moves between a monolith and a service; in Lua.

A hash for each conversation holds its `side`, an `epoch` that rises with each change of it, and the utterances without
insights: `u:ID` → seq, length of the message up to its seq, message. A set names the conversations that have some.
What audio appends is stamped with side and epoch; insights with a lower epoch are refused. See docs/adr/0043.
"""

from typing import Final

import msgspec

from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.messaging.bus.redis_scripts import ALLOW_OOM, ROOM

KEPT_S: Final = 2 * 86_400
"""After its last utterance: insights that come later are accepted, whoever sends them."""
UNSTAMPED: Final = b'"owner":"monolith","owner_epoch":0,'
"""Of a transcript, as it is encoded before it is stamped."""


class AssignmentNames:
    """The keys. A name is `site:conversation`."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self.unanswered = f"{prefix}:understanding"
        self.assignments = f"{self.unanswered}:"

    def assignment(self, name: str) -> str:
        return f"{self.assignments}{name}"


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is refused where the conversation has a higher epoch; else it answers the utterance."""

    name: str
    epoch: int
    utterance_id: str


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    side: str
    epoch: int


ASSIGN: Final = f"""
-- Whether the store has newer routes than those that somebody goes by. Routes may only be read: they are no KEYS.
local function behind(routes, version)
  return (tonumber(redis.call('HMGET', routes, 'version')[1] or 0) or 0) > tonumber(version)
end

local function stamp(side, epoch)
  return ',"owner":"' .. side .. '","owner_epoch":' .. epoch
end

-- Stores the side and the epoch of the conversation; it is forgotten some time after the last change.
local function store_side(assignment, side, epoch)
  redis.call('HSET', assignment, 'side', side, 'epoch', epoch)
  redis.call('EXPIRE', assignment, {KEPT_S})
end

-- Remembers an utterance without insights; returns its stamp. The side changes where nothing is unanswered.
local function assign(unanswered, assignment, name, wanted, utterance, seq, head, tail)
  local known = redis.call('HMGET', assignment, 'side', 'epoch')
  local side, epoch = known[1], tonumber(known[2] or 0)
  if not side or side ~= wanted and redis.call('HLEN', assignment) == 2 then side, epoch = wanted, epoch + 1 end
  store_side(assignment, side, epoch)
  redis.call('HSET', assignment, 'u:' .. utterance, seq .. ' ' .. #head .. ' ' .. head .. tail)
  redis.call('SADD', unanswered, name)
  return stamp(side, epoch)
end
"""
"""To be put before scripts that append transcripts."""

PUBLISH_FENCED: Final = (
    ROOM
    + """
-- KEYS: set of unanswered conversations, then partitions and assignments. ARGV: mark, then for each message: number of
-- its partition, key, payload, number of its assignment (0: none), conversation's name, epoch, utterance.
-- Returns 1, 0 (full) or 2 (another side has the conversation) for each. Nothing of a partition follows a full one.
local mark, free, answer = tonumber(ARGV[1]), {}, {}
for i = 2, #ARGV, 7 do
  local at, place = tonumber(ARGV[i]), tonumber(ARGV[i + 3])
  local epoch = place > 0 and redis.call('HGET', KEYS[place], 'epoch')
  if epoch and tonumber(epoch) > tonumber(ARGV[i + 5]) then
    answer[#answer + 1] = 2
  else
    if free[at] == nil then free[at] = places(KEYS[at], mark) end
    free[at] = free[at] - 1
    if free[at] < 0 then
      answer[#answer + 1] = 0
    else
      redis.call('XADD', KEYS[at], '*', 'k', ARGV[i + 1], 'p', ARGV[i + 2])
      if place > 0 and redis.call('HDEL', KEYS[place], 'u:' .. ARGV[i + 6]) == 1
        and redis.call('HLEN', KEYS[place]) == 2 then
        redis.call('SREM', KEYS[1], ARGV[i + 4])
      end
      answer[#answer + 1] = 1
    end
  end
end
return answer
"""
)

REASSIGN: Final = (
    ASSIGN
    + """
-- KEYS: set of unanswered conversations, assignment, stream. ARGV: routes, version, name, key, wanted side.
-- Gives the conversation to that side at once; what is unanswered is appended again, in its order, beyond any mark.
-- Returns how many utterances that were, or -1 where the store has newer routes.
if behind(ARGV[1], ARGV[2]) then return -1 end
local known = redis.call('HMGET', KEYS[2], 'side', 'epoch')
if not known[1] then
  redis.call('SREM', KEYS[1], ARGV[3])
  return 0
end
if known[1] == ARGV[5] then return 0 end
local epoch, waiting, flat = known[2] + 1, {}, redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do
  if string.sub(flat[i], 1, 2) == 'u:' then
    local seq, length, text = string.match(flat[i + 1], '^(%d+) (%d+) (.*)$')
    waiting[#waiting + 1] = {tonumber(seq), tonumber(length), text}
  end
end
table.sort(waiting, function(one, other) return one[1] < other[1] end)
for _, each in ipairs(waiting) do
  local head, tail = string.sub(each[3], 1, each[2]), string.sub(each[3], each[2] + 1)
  redis.call('XADD', KEYS[3], '*', 'k', ARGV[4], 'p', head .. stamp(ARGV[5], epoch) .. tail)
end
store_side(KEYS[2], ARGV[5], epoch)
return #waiting
"""
)

UNANSWERED: Final = (
    ALLOW_OOM
    + """
-- KEYS: set of unanswered conversations. ARGV: prefixes of assignments and of sessions. Returns name, side, channel, …
local answer = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local side = redis.call('HGET', ARGV[1] .. name, 'side')
  if side then
    answer[#answer + 1] = name
    answer[#answer + 1] = side
    answer[#answer + 1] = redis.call('HGET', ARGV[2] .. name, 'channel') or ''
  else
    redis.call('SREM', KEYS[1], name)
  end
end
return answer
"""
)
