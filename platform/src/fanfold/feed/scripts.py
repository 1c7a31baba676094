"""What must happen to a feed at once, as scripts that Valkey runs. How a feed looks: `fanfold.feed.stored`.

* no key: a cold feed. Pushes are dropped, the next read rebuilds it.
* a random marker: a rebuild is under way. Pushes are kept, and stay when the rebuild's posts are put before them.
* `stored.WHOLE`: a feed. It holds its user's newest posts down to its floor.

The rule of all pushes: **a push older than the rebuild is not taken.** The age of a rebuild is the tick of
`keys.FEED_CLOCK` before it read the follow list and the posts, that of a push the tick before its list of followers was
read. Nothing is lost by the rule: the push's post was committed before the rebuild read the posts. And nothing comes
back: a list of followers read before an unfollow is older than any rebuild after it. Unfollowing therefore is deleting
the feed; there is no tombstone that could expire or be evicted.

Most pushes are younger than every rebuild of their bucket, which `keys.rebuilt` tells: then no feed is asked, and a
push is one command, which does nothing where there is no feed.

Strings are never compared for order here: Lua does that by the server's locale.
"""

from __future__ import annotations

from fanfold.kit.valkey import Script

_MILLIS = """
local function millis(id)
  local a, b, c, d, e, f = string.byte(id, 1, 6)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end
"""
"""As `contracts.ids.id_millis`; 0 for `stored.EVERYTHING`."""

TICK = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
if now <= last then now = last + 1 end
local tick = string.format('%.0f', now)
redis.call('SET', KEYS[1], tick)
return tick
""")
"""KEYS: clock. The next tick: the server's microseconds, but never a value twice nor one below the last."""

BEGIN = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")
"""KEYS: feed. ARGV: header, lease in ms. 1: the rebuild is the caller's; 0: another has it, or the feed is there. The
header's tick is `stored.UNARMED`; pushes taken until `ARM` are dropped by it, for the rebuild reads them."""

ARM = Script("""
local head = redis.call('LINDEX', KEYS[1], 0)
if not head or string.sub(head, 1, 16) ~= string.sub(ARGV[1], 1, 16) then return 0 end
redis.call('LTRIM', KEYS[1], 0, 0)
redis.call('LSET', KEYS[1], 0, ARGV[1])
local tick, newest = string.sub(ARGV[1], 17, 32), redis.call('GET', KEYS[2])
if not newest or tonumber(newest) < tonumber(tick) then redis.call('SET', KEYS[2], tick) end
return 1
""")
"""KEYS: feed, newest rebuild of its bucket. ARGV: header. 0: the rebuild was called off (the feed was
invalidated), or its lease ran out."""

FINISH = Script(
    _MILLIS
    + """
local pushed = redis.call('LRANGE', KEYS[1], 0, -1)
local head = pushed[1]
if not head or string.sub(head, 1, 16) ~= ARGV[1] then return false end
local floor, cut = ARGV[3], string.sub(head, 33, 48)
if millis(cut) > 0 and millis(cut) >= millis(floor) then floor = cut end
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[1], ARGV[2] .. string.sub(head, 17, 32) .. floor .. ARGV[4], unpack(ARGV, 6))
if #pushed > 1 then redis.call('RPUSH', KEYS[1], unpack(pushed, 2)) end
redis.call('EXPIRE', KEYS[1], ARGV[5])
return redis.call('LRANGE', KEYS[1], 0, -1)
"""
)
"""KEYS: feed. ARGV: marker, `stored.WHOLE`, floor, celebrity ids, seconds to live, then the posts read, oldest first.
The feed's elements; nil: called off, as for `ARM`."""

PUSH = Script(
    _MILLIS
    + """
local call, byte, sub = redis.call, string.byte, string.sub
local tick, member, most, least = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function cut(feed, size)
  local highest, id = -1
  for _, one in ipairs(call('LRANGE', feed, 1, size - least - 1)) do
    local age = millis(one)
    if age > highest then highest, id = age, one end
  end
  local head = call('LINDEX', feed, 0)
  if highest >= millis(sub(head, 33, 38)) then
    head = sub(head, 1, 32) .. sub(id, 1, 6) .. string.rep('\\255', 10) .. sub(head, 49)
  end
  call('LTRIM', feed, -least - 1, -1)
  call('LSET', feed, 0, head)
end

local newest = call('GET', KEYS[1])
local ask = not newest or tonumber(newest) >= tick
local taken = 0
for i = 2, #KEYS do
  local feed, head = KEYS[i], nil
  if ask then head = call('LINDEX', feed, 0) end
  if not ask or head and tonumber(sub(head, 17, 32)) < tick then
    local size = call('RPUSHX', feed, member)
    if size > 0 then taken = taken + 1 end
    if size > most then cut(feed, size) end
  end
end
return taken
"""
)
"""KEYS: newest rebuild of a bucket, feeds of the bucket. ARGV: tick, member, most elements, posts that are kept once
there are more. How many took the post; repeating changes nothing that readers see.

The posts cut off are those pushed first, mostly the oldest. The floor rises above all of them, and where that leaves
too few posts, because some came late, the next read rebuilds the feed."""

ARRIVED = Script("""
local new = 0
for i = 2, #ARGV, 2 do new = new + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
local of = redis.call('HGET', KEYS[1], 'of')
if new > 0 and of and redis.call('HLEN', KEYS[1]) == of + 1 then return 1 end
return 0
""")
"""KEYS: progress of a post. ARGV: seconds to live, then pairs: the number of a chunk that arrived and 1, or ``of`` and
how many there are. 1: now all have arrived; told once, however often a chunk is delivered."""

REMOVE = Script("""
local removed = 0
for i = 1, #KEYS do
  local head = redis.call('LINDEX', KEYS[i], 0)
  if head and string.sub(head, 1, 16) == ARGV[1] then
    for j = 2, #ARGV do
      if redis.call('LREM', KEYS[i], 0, ARGV[j]) > 0 then removed = removed + 1 end
    end
  elseif head then
    redis.call('DEL', KEYS[i])
  end
end
return removed
""")
"""KEYS: feeds of one bucket. ARGV: `stored.WHOLE`, members. How many members went. A feed that has too few left
above its floor is rebuilt by its next read. One that is being rebuilt is deleted: it may have read the post before."""
