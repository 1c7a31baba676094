"""What must happen to a feed at once, as scripts that Valkey runs.

A feed is one sorted set: members are 32 bytes (post id, author id) scored by the post's milliseconds, and one marker
with the highest score. The marker says what the key is, its score since when:

* no key: a cold feed. Pushes are dropped, the next read rebuilds it.
* a random marker: a rebuild is under way. Pushes are kept beside it, and stay when the rebuild's posts are added.
* `keys.COMPLETE`: a feed. It holds its user's newest posts; fewer than ``length`` only if there are no more.

The score is the tick of `keys.FEED_CLOCK` at which the rebuild began, taken before it read the follow list and the
posts. Whoever reads a list of followers takes a tick first and pushes with it. The rule of all pushes: **a push older
than the rebuild is not taken.** Nothing is lost by that: its post was committed before the rebuild read the posts. And
nothing comes back: a list of followers read before an unfollow is older than any rebuild after it. Unfollowing
therefore is deleting the feed; there is no tombstone that could expire or be evicted. Ticks are microseconds (1.8e15,
exact in a double up to 2^53), posts are scored in milliseconds (1.8e12): the marker always stands on top.
"""

from __future__ import annotations

from fanfold.kit.valkey import Script

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
local top = redis.call('ZRANGE', KEYS[1], 0, 0, 'REV')[1]
if top and top ~= ARGV[1] then return 0 end
if top and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], '9007199254740991', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
""")
"""KEYS: feed, celebrities. ARGV: COMPLETE, marker, lease in ms. 1: the rebuild is the caller's; 0: another has it, or
the feed is there. Until `ARM` the marker's score is 2^53 - 1, so that no push is taken: the rebuild reads them."""

ARM = Script("""
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
""")
"""KEYS: feed. ARGV: marker, tick. 0: the rebuild was called off (the feed was invalidated), or its lease ran out."""

FINISH = Script("""
local tick = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not tick then return false end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], tick, ARGV[2])
for i = 6, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(ARGV[3] + 2))
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[5], 'EX', ARGV[4])
return redis.call('ZRANGE', KEYS[1], 0, -1, 'REV')
""")
"""KEYS: feed, celebrities. ARGV: marker, COMPLETE, length, seconds to live, celebrity ids, then score and member of
each post read. The feed's members, newest first after the marker; nil: called off, as for `ARM`."""

PUSH = Script("""
local tick, floor, taken = tonumber(ARGV[1]), -(ARGV[4] + 2), 0
for i = 1, #KEYS do
  local top = redis.call('ZRANGE', KEYS[i], 0, 0, 'REV', 'WITHSCORES')[2]
  if top and tonumber(top) < tick then
    redis.call('ZADD', KEYS[i], ARGV[2], ARGV[3])
    redis.call('ZREMRANGEBYRANK', KEYS[i], 0, floor)
    taken = taken + 1
  end
end
return taken
""")
"""KEYS: feeds of one bucket. ARGV: tick, score, member, length. How many took the post; repeating changes nothing."""

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
  local top = redis.call('ZRANGE', KEYS[i], 0, 0, 'REV')[1]
  if top == ARGV[1] then
    local gone = redis.call('ZREM', KEYS[i], unpack(ARGV, 3))
    local left = redis.call('ZCARD', KEYS[i]) - 1
    removed = removed + gone
    if gone > 0 and left + gone >= tonumber(ARGV[2]) then redis.call('DEL', KEYS[i]) end
  elseif top then
    redis.call('DEL', KEYS[i])
  end
end
return removed
""")
"""KEYS: feeds of one bucket. ARGV: COMPLETE, length, members. How many members went. A feed that was full is deleted:
posts beyond its end would be missing from it. So is a rebuild under way: it may have read the post before."""
