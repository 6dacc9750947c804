"""What the session store does in one step inside Valkey, in Lua. See `redis_sessions.py` for the keys.

Every script that writes counts the conversation's `version` up, so that what was read before can be written back only
if nothing happened in between. What may be refused (a full or damaged stream, no memory) comes before the first write.

A conversation has one writer, its owner, whose scripts carry its `step`. They go over several connections, and a call
that was given up may still arrive when the server is back: a checkpoint of an older step never replaces a newer one,
or it would lie before what the client was told to forget.
"""

from typing import Final

from quickcomm.kernel.messaging.bus.redis_assignments import ASSIGN
from quickcomm.kernel.messaging.bus.redis_scripts import ALLOW_OOM, ROOM

LOAD: Final = """
-- KEYS: conversation, said. Returns both, flat.
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
"""

_WRITE: Final = """
-- Replaces the state of the conversation that is still in the stream, read or not: only the newest one counts. It says
-- when the conversation began, was last live and was last interrupted, which whoever missed the others needs.
local function announce(conversation, stream, key, payload)
  if payload == '' then return end
  local state, at = string.match(payload, '"state":"(%a+)"'), string.match(payload, '"at_ns":(%d+)')
  local known = redis.call('HMGET', conversation, 'told', 'told_began', 'told_live', 'told_interrupted')
  if known[1] then redis.call('XDEL', stream, known[1]) end
  local began, live, interrupted = known[2] or at, known[3] or '0', known[4] or '0'
  if state == 'live' then live = at elseif state == 'interrupted' then interrupted = at end
  local times = string.format(',"began_ns":%s,"live_ns":%s,"interrupted_ns":%s}', began, live, interrupted)
  local told = redis.call('XADD', stream, '*', 'k', key, 'p', string.sub(payload, 1, -2) .. times)
  redis.call('HSET', conversation, 'told', told, 'told_began', began)
  redis.call('HSET', conversation, 'told_live', live, 'told_interrupted', interrupted)
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

-- An ended conversation is kept for long, its log for `replay_s`. Written anew, its hash is as small as it can be.
local function close(conversation, said, log, replay_s)
  redis.call('EXPIRE', said, replay_s)
  redis.call('EXPIRE', log, replay_s)
  redis.call('HDEL', conversation, 'mark', 'marked_ns', 'told', 'told_began', 'told_live', 'told_interrupted')
  local left = redis.call('HGETALL', conversation)
  redis.call('DEL', conversation)
  redis.call('HSET', conversation, unpack(left))
end
"""

_NEWEST: Final = """
local function newest(key, step)
  return tonumber(step) >= tonumber(redis.call('HGET', key, 'step') or 0)
end
"""

_FORGET: Final = """
-- Where each speaker's stored checkpoint is, in samples.
local function offsets(conversation)
  local found = {}
  for offset in string.gmatch(redis.call('HGET', conversation, 'offsets') or '', '%d+') do
    found[#found + 1] = tonumber(offset)
  end
  return found
end

-- Whether a stored checkpoint is so far behind the utterance's start that no restart brings it again.
local function settled(utterance, at, margin)
  local speaker, start = string.match(utterance, ':(%d+):(%d+)$')
  return speaker ~= nil and tonumber(start) + margin < (at[speaker + 1] or 0)
end

-- Forgets the beginning of an open conversation. Kept is what was logged in the last one to two `every` (ns), at most
-- about `most` events and those of the last sixth, and always what may be published again. Processes of the release
-- before this one know no shortened logs: after an update, the sixth gives them time to be replaced.
local function forget(conversation, said, log, seq, now, every, most, margin)
  local kept = redis.call('HMGET', conversation, 'base', 'mark', 'marked_ns')
  local base, cut, since = tonumber(kept[1] or 0), tonumber(kept[2] or 0), tonumber(kept[3] or 0)
  if since == 0 then
    redis.call('HSET', conversation, 'marked_ns', now)
    return
  end
  local passed = tonumber(now) - since
  if seq - base > most + most / 4 and passed >= every / 6 then
    cut = seq - most
  elseif passed < tonumber(every) then
    return
  end
  local at, all = offsets(conversation), redis.call('HGETALL', said)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'u:' and tonumber(all[i + 1]) <= cut and not settled(all[i], at, margin) then
      cut = tonumber(all[i + 1]) - 1
    end
  end
  for i = 1, #all, 2 do
    if tonumber(string.match(all[i + 1], '%d+$')) <= cut then redis.call('HDEL', said, all[i]) end
  end
  if cut > base then
    redis.call('LTRIM', log, cut - base, -1)
    redis.call('HSET', conversation, 'base', cut)
  end
  redis.call('HSET', conversation, 'mark', seq, 'marked_ns', now)
end
"""

CREATE: Final = (
    ROOM
    + _WRITE
    + """
-- KEYS: conversation, open, closed, stream.
-- ARGV: name, key, change, updated, mark, whether this change must stay, then fields and values.
-- Returns 1, 0 where it exists, or -1 where the stream is full: a new conversation is a message more for good.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if not room(KEYS[4], tonumber(ARGV[5])) then return -1 end
announce(KEYS[1], KEYS[4], ARGV[2], ARGV[3])
if ARGV[6] == '1' then redis.call('HDEL', KEYS[1], 'told') end
redis.call('HSET', KEYS[1], 'updated_ns', ARGV[4], 'version', 1, unpack(ARGV, 7))
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
announce(KEYS[1], KEYS[4], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[1], 'state', ARGV[5], unpack(ARGV, 7))
redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[5] == 'expired' then close(KEYS[1], KEYS[5], KEYS[6], ARGV[6]) end
index(KEYS[2], KEYS[3], ARGV[1], ARGV[5], redis.call('HGET', KEYS[1], 'updated_ns'))
return redis.call('HGETALL', KEYS[1])
"""
)

PUBLISH: Final = (
    ROOM
    + ASSIGN
    + _NEWEST
    + _FORGET
    + """
-- KEYS: conversation, said, log, open, stream; where intelligence moves, set of unanswered conversations, assignment.
-- ARGV: name, key, epoch, utterance, checkpoints, ledgers, offsets, updated, mark, event before and after its seq,
-- message before and after it, step, how long (ns) and how many events are kept, margin; wanted side (''), routes'
-- version, routes.
-- Returns {seq}, {'fenced'}, {'full', group that is furthest behind}, {'known', seq}, {'behind'}: the store has newer
-- routes, or {'late'}: an older step, of what is settled since.
-- The checkpoint is stored with an utterance that is known, too; never where the stored one is of a newer step.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[3] then return {'fenced'} end
local is_newest = newest(KEYS[1], ARGV[14])
local function store()
  if is_newest then
    redis.call('HSET', KEYS[1], 'checkpoints', ARGV[5], 'ledgers', ARGV[6], 'offsets', ARGV[7], 'step', ARGV[14])
    redis.call('HSET', KEYS[1], 'updated_ns', ARGV[8])
    redis.call('ZADD', KEYS[4], 'XX', ARGV[8], ARGV[1])
  end
  redis.call('HINCRBY', KEYS[1], 'version', 1)
end
local known = redis.call('HGET', KEYS[2], 'u:' .. ARGV[4]) or redis.call('HGET', KEYS[2], 'x:' .. ARGV[4])
if known then
  store()
  return {'known', tonumber(known)}
end
if not is_newest and settled(ARGV[4], offsets(KEYS[1]), 0) then return {'late'} end
if KEYS[7] and behind(ARGV[20], ARGV[19]) then return {'behind'} end
if not room(KEYS[5], tonumber(ARGV[9])) then return {'full', slowest(KEYS[5])} end
local seq = redis.call('HGET', KEYS[1], 'seq') + 1
local head, stamped = ARGV[12] .. seq, ''
if KEYS[7] then stamped = assign(KEYS[6], KEYS[7], ARGV[1], ARGV[18], ARGV[4], seq, head, ARGV[13]) end
redis.call('XADD', KEYS[5], '*', 'k', ARGV[2], 'p', head .. stamped .. ARGV[13])
redis.call('RPUSH', KEYS[3], ARGV[4] .. '\\n' .. ARGV[10] .. seq .. ARGV[11])
redis.call('HSET', KEYS[2], 'u:' .. ARGV[4], seq)
redis.call('HSET', KEYS[1], 'seq', seq)
store()
forget(KEYS[1], KEYS[2], KEYS[3], seq, ARGV[8], ARGV[15], tonumber(ARGV[16]), tonumber(ARGV[17]))
return {seq}
"""
)

SAVE: Final = (
    _NEWEST
    + """
-- KEYS: open, then conversations.
-- ARGV: for each conversation name, epoch, checkpoints, ledgers, offsets, updated, step.
-- Returns the places of those that are fenced.
local fenced = {}
for i = 2, #KEYS do
  local at = (i - 2) * 7
  if redis.call('HGET', KEYS[i], 'epoch') ~= ARGV[at + 2] then
    fenced[#fenced + 1] = i - 2
  elseif newest(KEYS[i], ARGV[at + 7]) then
    local updated = ARGV[at + 6]
    redis.call('HSET', KEYS[i], 'checkpoints', ARGV[at + 3], 'ledgers', ARGV[at + 4], 'offsets', ARGV[at + 5])
    redis.call('HSET', KEYS[i], 'updated_ns', updated, 'step', ARGV[at + 7])
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
-- ARGV: name, key, epoch, checkpoints, ledgers, offsets, updated, state, change, how long an ended one can be replayed
-- (s), step, whether to fence the owner. Returns 0 where it is fenced.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[3] then return 0 end
if not newest(KEYS[1], ARGV[11]) then return 1 end
announce(KEYS[1], KEYS[6], ARGV[2], ARGV[9])
redis.call('HSET', KEYS[1], 'checkpoints', ARGV[4], 'ledgers', ARGV[5], 'offsets', ARGV[6], 'updated_ns', ARGV[7])
redis.call('HSET', KEYS[1], 'state', ARGV[8], 'step', ARGV[11])
redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[12] == '1' then redis.call('HINCRBY', KEYS[1], 'epoch', 1) end
index(KEYS[4], KEYS[5], ARGV[1], ARGV[8], ARGV[7])
if ARGV[8] == 'ended' or ARGV[8] == 'expired' then close(KEYS[1], KEYS[2], KEYS[3], ARGV[10]) end
return 1
"""
)

PRESENT: Final = (
    ALLOW_OOM
    + """
-- KEYS: owner. ARGV: its life, for how long (s).
return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
"""
)

ROWS: Final = """
-- KEYS: conversations. Returns each as it is, flat; nothing where there is none.
local found = {}
for i = 1, #KEYS do found[i] = redis.call('HGETALL', KEYS[i]) end
return found
"""

EVENTS: Final = """
-- KEYS: conversation, log. ARGV: after seq, how many. Returns the seq before the first event, and events.
local base = tonumber(redis.call('HGET', KEYS[1], 'base') or 0)
local after = math.max(tonumber(ARGV[1]), base)
return {after, redis.call('LRANGE', KEYS[2], after - base, after - base + ARGV[2] - 1)}
"""

SWEEP: Final = """
-- KEYS: open. ARGV: quiet since (ns), idle since (ns), this life, prefixes of conversations and of owners, whether to
-- look for missing owners. Returns this owner's conversations to look at, lives that are missing, and what those have:
-- life, name, life, name, …
local mine, missing, theirs, present = {}, {}, {}, {}
local owner = string.match(ARGV[3], '^[^#]*')
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])) do
  local row = redis.call('HMGET', ARGV[4] .. name, 'owner', 'state', 'updated_ns')
  local life = row[1]
  if life then
    local whose = string.match(life, '^[^#]*')
    if whose == owner then
      local idle = ARGV[2] == '+inf' or tonumber(row[3]) <= tonumber(ARGV[2]) -- as exact as a float is
      if life ~= ARGV[3] and (idle or row[2] == 'live') or idle and (row[2] == 'interrupted' or ARGV[6] == '1') then
        mine[#mine + 1] = name
      end
    elseif ARGV[6] == '1' then
      if present[life] == nil then
        present[life] = redis.call('GET', ARGV[5] .. whose) == life
        if not present[life] then missing[#missing + 1] = life end
      end
      if not present[life] then
        theirs[#theirs + 1] = life
        theirs[#theirs + 1] = name
      end
    end
  end
end
return {mine, missing, theirs}
"""

FENCED: Final = """
-- KEYS: conversations. ARGV: the epoch of each. Returns the places of those that are fenced.
local fenced = {}
for i = 1, #KEYS do
  if redis.call('HGET', KEYS[i], 'epoch') ~= ARGV[i] then fenced[#fenced + 1] = i - 1 end
end
return fenced
"""

INSIGHTS: Final = (
    ALLOW_OOM
    + _FORGET
    + """
-- KEYS: conversation, said, log, open.
-- ARGV: utterance, revision, event before and after its seq, who calls, conversation's name, mail's prefix, its time,
-- now (ns), how long (ns) and how many events are kept, margin.
-- Returns {seq}, {'known', seq} for this very revision, or {}: a newer one is there, nobody knows the conversation, or
-- its log is gone. Where another process owns the conversation, the event goes into its mail as well.
local seq = redis.call('HGET', KEYS[1], 'seq')
local base = tonumber(redis.call('HGET', KEYS[1], 'base') or 0)
if not seq or redis.call('LLEN', KEYS[3]) ~= seq - base then return {} end
local erased = redis.call('HEXISTS', KEYS[2], 'x:' .. ARGV[1]) + redis.call('HEXISTS', KEYS[1], 'erased')
if erased > 0 then return {} end
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
if redis.call('ZSCORE', KEYS[4], ARGV[6]) then
  forget(KEYS[1], KEYS[2], KEYS[3], seq, ARGV[9], ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12]))
end
return {seq}
"""
)

DELETE: Final = """
-- KEYS: conversation, said, log, closed. ARGV: name, version.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 1
"""

ERASE: Final = (
    ALLOW_OOM
    + """
-- KEYS: conversation, said, log, set of unanswered conversations, assignment.
-- ARGV: name, whether all is erased, how many utterances, these, then seq and blank event for each event of theirs.
-- Returns how many events and unanswered utterances were erased. Numbers of events stay as they are.
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0} end
local count, unanswered, first = 0, 0, 4 + tonumber(ARGV[3])
if ARGV[2] == '1' then
  count = redis.call('LLEN', KEYS[3])
  unanswered = math.max(0, redis.call('HLEN', KEYS[5]) - 2)
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('DEL', KEYS[5]) -- by itself: another rule allows it
  redis.call('SREM', KEYS[4], ARGV[1])
  redis.call('HSET', KEYS[1], 'erased', 1)
end
local seq, base = redis.call('HGET', KEYS[1], 'seq'), tonumber(redis.call('HGET', KEYS[1], 'base') or 0)
for i = 4, first - 1 do
  if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('HSET', KEYS[2], 'x:' .. ARGV[i], seq)
    redis.call('HDEL', KEYS[2], 'u:' .. ARGV[i], 'i:' .. ARGV[i])
  end
  unanswered = unanswered + redis.call('HDEL', KEYS[5], 'u:' .. ARGV[i])
end
if redis.call('HLEN', KEYS[5]) == 2 then redis.call('SREM', KEYS[4], ARGV[1]) end
for i = first, #ARGV, 2 do
  local place = tonumber(ARGV[i]) - base - 1
  if place >= 0 and place < redis.call('LLEN', KEYS[3]) then
    redis.call('LSET', KEYS[3], place, ARGV[i + 1])
    count = count + 1
  end
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
return {count, unanswered}
"""
)
