"""What the session store does in one step inside Valkey, in Lua. See `redis_sessions.py` for the keys.

Every script that writes counts the conversation's `version` up, so that what was read before can be written back only
if nothing happened in between. What may be refused (a full or damaged stream, no memory) comes before the first write.

Scripts of an owner carry its `step`. They go over several connections, and those that nobody waits for any more may
still be done when the server is back: what is older than what is stored must not replace it, or the checkpoint would
lie before what the client was told to forget.
"""

from typing import Final

from quickcomm.kernel.bus.redis_scripts import ROOM

LOAD: Final = """
-- KEYS: conversation, said. Returns both, flat.
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
"""

_WRITE: Final = """
local function announce(stream, key, payload)
  if payload ~= '' then redis.call('XADD', stream, '*', 'k', key, 'p', payload) end
end

local function index(open, closed, name, state, updated)
  if state == 'live' or state == 'interrupted' then
    redis.call('ZADD', open, updated, name)
    redis.call('ZREM', closed, name)
  else
    redis.call('ZADD', closed, updated, name)
    redis.call('ZREM', open, name)
  end
end
"""

_NEWEST: Final = """
local function newest(key, step)
  return tonumber(step) >= tonumber(redis.call('HGET', key, 'step') or 0)
end
"""

CREATE: Final = (
    _WRITE
    + """
-- KEYS: conversation, open, closed, stream. ARGV: name, key, change, updated, then fields and values.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
announce(KEYS[4], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[1], 'updated_ns', ARGV[4], 'version', 1, unpack(ARGV, 5))
index(KEYS[2], KEYS[3], ARGV[1], 'live', ARGV[4])
return 1
"""
)

REPLACE: Final = (
    _WRITE
    + """
-- KEYS: conversation, open, closed, stream, said, log.
-- ARGV: name, key, change, version, state, how long an ended one can be replayed (s), then fields and values.
-- Writes if nothing happened since the version was read. Returns the conversation as it is then, or nothing.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[4] then return {} end
announce(KEYS[4], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[1], 'state', ARGV[5], unpack(ARGV, 7))
redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[5] == 'expired' then
  redis.call('EXPIRE', KEYS[5], ARGV[6])
  redis.call('EXPIRE', KEYS[6], ARGV[6])
end
index(KEYS[2], KEYS[3], ARGV[1], ARGV[5], redis.call('HGET', KEYS[1], 'updated_ns'))
return redis.call('HGETALL', KEYS[1])
"""
)

PUBLISH: Final = (
    ROOM
    + _NEWEST
    + """
-- KEYS: conversation, said, log, open, stream. ARGV: name, key, epoch, utterance, checkpoints, ledgers, updated, mark,
-- event before and after its seq, message before and after it, step.
-- Returns {seq}, {'fenced'}, {'full'} or {'known', seq}. The checkpoint is stored with an utterance that is known, too.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[3] then return {'fenced'} end
local function store()
  redis.call('HSET', KEYS[1], 'checkpoints', ARGV[5], 'ledgers', ARGV[6], 'updated_ns', ARGV[7], 'step', ARGV[13])
  redis.call('HINCRBY', KEYS[1], 'version', 1)
  redis.call('ZADD', KEYS[4], 'XX', ARGV[7], ARGV[1])
end
local known = redis.call('HGET', KEYS[2], 'u:' .. ARGV[4])
if known then
  if newest(KEYS[1], ARGV[13]) then store() end
  return {'known', tonumber(known)}
end
if not room(KEYS[5], tonumber(ARGV[8])) then return {'full'} end
local seq = redis.call('HGET', KEYS[1], 'seq') + 1
redis.call('XADD', KEYS[5], '*', 'k', ARGV[2], 'p', ARGV[11] .. seq .. ARGV[12])
redis.call('RPUSH', KEYS[3], ARGV[4] .. '\\n' .. ARGV[9] .. seq .. ARGV[10])
redis.call('HSET', KEYS[2], 'u:' .. ARGV[4], seq)
redis.call('HSET', KEYS[1], 'seq', seq)
store()
return {seq}
"""
)

SAVE: Final = (
    _NEWEST
    + """
-- KEYS: open, then conversations. ARGV: for each conversation name, epoch, checkpoints, ledgers, updated, step.
-- Returns the places of those that are fenced.
local fenced = {}
for i = 2, #KEYS do
  local at = (i - 2) * 6
  if redis.call('HGET', KEYS[i], 'epoch') ~= ARGV[at + 2] then
    fenced[#fenced + 1] = i - 2
  elseif newest(KEYS[i], ARGV[at + 6]) then
    local updated = ARGV[at + 5]
    redis.call('HSET', KEYS[i], 'checkpoints', ARGV[at + 3], 'ledgers', ARGV[at + 4], 'updated_ns', updated)
    redis.call('HSET', KEYS[i], 'step', ARGV[at + 6])
    redis.call('HINCRBY', KEYS[i], 'version', 1)
    redis.call('ZADD', KEYS[1], 'XX', updated, ARGV[at + 1])
  end
end
return fenced
"""
)

CHANGE: Final = (
    _WRITE
    + _NEWEST
    + """
-- KEYS: conversation, said, log, open, closed, stream.
-- ARGV: name, key, epoch, checkpoints, ledgers, updated, state, change, how long an ended one can be replayed (s),
-- step. Returns 0 where it is fenced.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[3] then return 0 end
if not newest(KEYS[1], ARGV[10]) then return 1 end
announce(KEYS[6], ARGV[2], ARGV[8])
redis.call('HSET', KEYS[1], 'checkpoints', ARGV[4], 'ledgers', ARGV[5], 'updated_ns', ARGV[6], 'state', ARGV[7])
redis.call('HSET', KEYS[1], 'step', ARGV[10])
redis.call('HINCRBY', KEYS[1], 'version', 1)
index(KEYS[4], KEYS[5], ARGV[1], ARGV[7], ARGV[6])
if ARGV[7] == 'ended' or ARGV[7] == 'expired' then
  redis.call('EXPIRE', KEYS[2], ARGV[9])
  redis.call('EXPIRE', KEYS[3], ARGV[9])
end
return 1
"""
)

FENCED: Final = """
-- KEYS: conversations. ARGV: the epoch of each. Returns the places of those that are fenced.
local fenced = {}
for i = 1, #KEYS do
  if redis.call('HGET', KEYS[i], 'epoch') ~= ARGV[i] then fenced[#fenced + 1] = i - 1 end
end
return fenced
"""

INSIGHTS: Final = """
-- KEYS: conversation, said, log.
-- ARGV: utterance, revision, event before and after its seq, who calls, conversation's name, mail's prefix, its time.
-- Returns {seq}, {'known', seq} for this very revision, or {}: a newer one is there, nobody knows the conversation, or
-- its log is gone. Where another process owns the conversation, the event goes into its mail as well.
local seq = redis.call('HGET', KEYS[1], 'seq')
if not seq or redis.call('LLEN', KEYS[3]) ~= tonumber(seq) then return {} end
local known = redis.call('HGET', KEYS[2], 'i:' .. ARGV[1])
if known then
  local revision, place = string.match(known, '^(%d+) (%d+)$')
  if tonumber(revision) > tonumber(ARGV[2]) then return {} end
  if revision == ARGV[2] then return {'known', tonumber(place)} end
end
seq = seq + 1
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner ~= ARGV[5] then
  local mail = ARGV[7] .. owner
  local event = ARGV[3] .. seq .. ARGV[4]
  redis.call('XADD', mail, 'MAXLEN', '~', 1000, '*', 'n', ARGV[6], 'u', ARGV[1], 's', seq, 'e', event)
  redis.call('EXPIRE', mail, ARGV[8])
end
redis.call('RPUSH', KEYS[3], ARGV[1] .. '\\n' .. ARGV[3] .. seq .. ARGV[4])
redis.call('HSET', KEYS[2], 'i:' .. ARGV[1], ARGV[2] .. ' ' .. seq)
redis.call('HSET', KEYS[1], 'seq', seq)
redis.call('HINCRBY', KEYS[1], 'version', 1)
return {seq}
"""

DELETE: Final = """
-- KEYS: conversation, said, log, closed. ARGV: name, version.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 1
"""
