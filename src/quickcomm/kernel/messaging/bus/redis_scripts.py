"""What must happen in one step inside Valkey, in Lua. Each script is atomic; none is rolled back.

Hence in each: whatever can be refused (a wrong type, no memory) comes before the first write. Keys are made from names,
and a script touches keys of several streams: one Valkey instance holds them all, a cluster is not supported.
"""

from typing import Final

ALLOW_OOM: Final = "#!lua flags=allow-oom\n"
"""First line of scripts that go on where the server has no memory left: what frees memory, or needs next to none."""

ROOM: Final = """
local function fields(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- The groups of services that do not serve yet, as the routes say (contracts/routes.py). Who may not read those
-- knows of none.
local function unawaited(stream)
  local known = redis.pcall('HMGET', string.match(stream, '^(.*):[^:]+:%d+$') .. ':routes', 'unawaited')
  local found = {}
  for name in string.gmatch(known[1] or '', '%S+') do found[name] = true end
  return found
end

-- The first id of a partition that a group may not have acknowledged, as its two numbers.
local function position(stream, group)
  if group['pending'] > 0 then return parse(redis.call('XPENDING', stream, group['name'])[2]) end
  local ms, seq = parse(group['last-delivered-id'])
  return ms, seq + 1
end

-- How many messages of a partition a group has not acknowledged, and the id of the first of them.
local function unhandled(stream, group)
  local after = '(' .. group['last-delivered-id']
  local lag = group['lag'] or #redis.call('XRANGE', stream, after, '+')
  if group['pending'] > 0 then return group['pending'] + lag, redis.call('XPENDING', stream, group['name'])[2] end
  if lag == 0 then return 0 end
  return lag, (redis.call('XRANGE', stream, after, '+', 'COUNT', 1)[1] or {})[1]
end

-- The group that keeps a partition from being trimmed.
local function slowest(stream)
  local free, name, ms, seq = unawaited(stream), '', nil, nil
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = fields(flat)
    local m, s = position(stream, group)
    if not free[group['name']] and (ms == nil or m < ms or (m == ms and s < seq)) then
      name, ms, seq = group['name'], m, s
    end
  end
  return name
end

-- Deletes what every group has acknowledged, some thousands at a time, so that nobody waits long; 0: all is done.
-- A stream without groups keeps everything. For groups that are not waited for, messages are kept for `patience` ms.
local function trim(stream, patience)
  if redis.call('XLEN', stream) == 0 then return 0 end
  local t, free = redis.call('TIME'), unawaited(stream)
  local since = t[1] * 1000 + math.floor(t[2] / 1000) + 1 - patience
  local ms, seq
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = fields(flat)
    local m, s = position(stream, group)
    if free[group['name']] and m < since then m, s = since, 0 end
    if ms == nil or m < ms or (m == ms and s < seq) then ms, seq = m, s end
  end
  if ms == nil then return 0 end
  local keep = string.format('%.0f-%.0f', ms, seq)
  local deleted = redis.call('XTRIM', stream, 'MINID', '~', keep, 'LIMIT', 5000)
  if deleted == 0 then deleted = redis.call('XTRIM', stream, 'MINID', '=', keep) end
  return deleted
end

-- How many more messages a stream takes up to its high-water mark, not counting what all have acknowledged.
local function places(stream, mark)
  local left = mark - redis.call('XLEN', stream)
  if left > 0 then return left end
  trim(stream, 0)
  return mark - redis.call('XLEN', stream)
end

local function room(stream, mark)
  return places(stream, mark) > 0
end
"""
"""To be put before scripts that append or trim."""

PUBLISH: Final = (
    ROOM
    + """
-- KEYS: partitions. ARGV: mark, then for each message: number of its partition, key, payload.
-- Returns 1 or 0 (full) for each. Behind one that is refused, nothing of its partition is taken: the order holds.
local mark, free, answer = tonumber(ARGV[1]), {}, {}
for i = 2, #ARGV, 3 do
  local at = tonumber(ARGV[i])
  if free[at] == nil then free[at] = places(KEYS[at], mark) end
  free[at] = free[at] - 1
  if free[at] >= 0 then
    redis.call('XADD', KEYS[at], '*', 'k', ARGV[i + 1], 'p', ARGV[i + 2])
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = 0
  end
end
return answer
"""
)

REGISTER: Final = (
    ALLOW_OOM
    + """
-- KEYS: streams' names, partitions. ARGV: stream, group.
for i = 2, #KEYS do
  local answer = redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[2], '0', 'MKSTREAM')
  if answer['err'] and not string.find(answer['err'], 'BUSYGROUP', 1, true) then return answer end
end
redis.call('SADD', KEYS[1], ARGV[1])
return 1
"""
)

PATIENCE_MS: Final = 30_000
"""A service that does not serve yet may be so far behind, and lacks nothing; where a stream is full, not even that."""
TRIM: Final = ROOM + f"return trim(KEYS[1], {PATIENCE_MS})"

FULL: Final = (
    ROOM
    + """
for _, stream in ipairs(KEYS) do
  if not room(stream, tonumber(ARGV[1])) then return 1 end
end
return 0
"""
)

BACKLOG: Final = (
    ROOM
    + """
-- KEYS: partitions of a stream. Returns group, messages not acknowledged, group, …
local waiting, names = {}, {}
for _, stream in ipairs(KEYS) do
  if redis.call('EXISTS', stream) == 1 then
    for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local group = fields(flat)
      local name, lag = group['name'], group['lag']
      if not lag then lag = #redis.call('XRANGE', stream, '(' .. group['last-delivered-id'], '+') end
      if waiting[name] == nil then
        waiting[name] = 0
        names[#names + 1] = name
      end
      waiting[name] = waiting[name] + group['pending'] + lag
    end
  end
end
local answer = {}
for _, name in ipairs(names) do
  answer[#answer + 1] = name
  answer[#answer + 1] = waiting[name]
end
return answer
"""
)

OLDEST: Final = (
    ROOM
    + """
-- KEYS: partitions of a stream. Returns group, messages that wait, ms of the first of them, group, … where any wait.
local count, oldest, names = {}, {}, {}
for _, stream in ipairs(KEYS) do
  if redis.call('EXISTS', stream) == 1 then
    for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local group = fields(flat)
      local name, waiting, first = group['name'], unhandled(stream, group)
      if first then
        local ms = parse(first)
        if count[name] == nil then
          count[name], oldest[name] = 0, ms
          names[#names + 1] = name
        end
        count[name] = count[name] + waiting
        oldest[name] = math.min(oldest[name], ms)
      end
    end
  end
end
local answer = {}
for _, name in ipairs(names) do
  answer[#answer + 1] = name
  answer[#answer + 1] = count[name]
  answer[#answer + 1] = string.format('%.0f', oldest[name])
end
return answer
"""
)

STANDING: Final = (
    ROOM
    + """
-- KEYS: partition. Returns now in ms, group, messages that wait for it, id of the first of them (''), group, …
-- Groups that are not waited for are left out.
local t = redis.call('TIME')
local answer = {string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))}
if redis.call('EXISTS', KEYS[1]) == 0 then return answer end
local free = unawaited(KEYS[1])
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(flat)
  if not free[group['name']] then
    local count, first = unhandled(KEYS[1], group)
    answer[#answer + 1] = group['name']
    answer[#answer + 1] = count
    answer[#answer + 1] = first or ''
  end
end
return answer
"""
)

HEARTBEAT: Final = (
    ALLOW_OOM
    + """
-- KEYS: leases, members. ARGV: consumer, lease ms, partitions, then for each one held: partition, token.
-- Renews what is held and takes what is free, up to a fair share. Returns share, partition, token, partition, token, …
-- A lease that ran out and that nobody took is still its last owner's. Leases that end later than any could were given
-- before the clock went back: they are void.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease, parts = tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZADD', KEYS[2], now + lease, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. (now + lease), '+inf')
local share = math.ceil(parts / redis.call('ZCARD', KEYS[2]))
local held, count, answer = {}, 0, {share}
local function hold(part, token)
  redis.call('HSET', KEYS[1], part, token, part .. ':until', now + lease)
  answer[#answer + 1] = part
  answer[#answer + 1] = token
  count = count + 1
  held[part] = true
end
for i = 4, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then hold(ARGV[i], ARGV[i + 1]) end
end
for number = 0, parts - 1 do
  if count >= share then break end
  local part = tostring(number)
  local ends = tonumber(redis.call('HGET', KEYS[1], part .. ':until') or 0)
  if not held[part] and (ends <= now or ends > now + lease) then
    hold(part, ARGV[1] .. '/' .. redis.call('HINCRBY', KEYS[1], 'given', 1))
  end
end
return answer
"""
)

RELEASE: Final = (
    ALLOW_OOM
    + """
-- KEYS: leases, members. ARGV: consumer ('' stays a member), then for each one held: partition, token.
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HSET', KEYS[1], ARGV[i] .. ':until', 0) end
end
if ARGV[1] ~= '' then redis.call('ZREM', KEYS[2], ARGV[1]) end
return 1
"""
)

FETCH: Final = """
-- KEYS: stream, leases. ARGV: group, consumer, partition, token, count, after, suspect.
-- `after`: '>' for what is new, or the last id taken over from those who had the lease before; they come first.
-- Returns {kind, where to go on, entries, deliveries}: kind is fenced, left, none-left, new or empty.
local group, consumer, after = ARGV[1], ARGV[2], ARGV[6]
if redis.call('HGET', KEYS[2], ARGV[3]) ~= ARGV[4] then return {'fenced'} end
if after ~= '>' then
  local waiting = redis.call('XPENDING', KEYS[1], group, '(' .. after, '+', ARGV[5])
  if #waiting > 0 then
    -- What was in hand at several deaths may be their cause: it is taken alone.
    local suspect, n = tonumber(ARGV[7]), 1
    if waiting[1][4] < suspect then
      while n < #waiting and waiting[n + 1][4] < suspect do n = n + 1 end
    end
    local claimed = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, 0, '(' .. after, 'COUNT', n)
    return {'left', waiting[n][1], claimed[2], waiting[1][4] + 1}
  end
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    if flat[2] ~= consumer and flat[4] == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, flat[2]) end
  end
  return {'none-left'}
end
local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', ARGV[5], 'STREAMS', KEYS[1], '>')
if read and read[1] then
  local entries = read[1][2]
  return {'new', entries[#entries][1], entries, 1}
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return {'empty', last[1] and last[1][1] or '0-0'}
"""

ACK: Final = (
    ALLOW_OOM
    + """
-- KEYS: stream, leases, dead letters, their counter.
-- ARGV: group, partition, token, count, how many dead letters are kept, ids, dead letters.
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] then return 0 end
local last = 5 + tonumber(ARGV[4])
if #ARGV > last and #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[6], ARGV[6], 1) == 0 then
  return 1 -- done before, and the answer was lost: the dead letters are there
end
for i = last + 1, #ARGV do
  local number = redis.call('INCR', KEYS[4])
  redis.call('HSET', KEYS[3], number, ARGV[i])
  redis.call('HDEL', KEYS[3], number - ARGV[5])
end
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 6, last))
return 1
"""
)

REPLAY: Final = """
-- KEYS: dead letters, stream. ARGV: id, key, payload.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 'k', ARGV[2], 'p', ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
"""
