"""The two steps of a cap, each one script that Redis runs without anything in between."""

from __future__ import annotations

import hashlib

# KEYS: the leases of a team, then a counter per cap. ARGV: the lease's name, its length in ms, then per counter what is
# needed, the cap, and how long the counter is kept in ms. Answers 0, the end of the lease in ms, and what the counters
# were before; or the number of the first cap in the way, how many leases there are, and the counters.
RESERVE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 50)) do
  redis.call('ZREM', KEYS[1], lease)
  for counter, amount in string.gmatch(lease, '([^ ]+) (%d+)') do
    if redis.call('EXISTS', counter) == 1 then redis.call('DECRBY', counter, amount) end
  end
end
local ends = now + ARGV[2]
local answer = {0, ends}
for i = 2, #KEYS do
  local used = tonumber(redis.call('GET', KEYS[i]) or '0')
  answer[i + 1] = used
  if answer[1] == 0 and used + ARGV[3 * i - 3] > tonumber(ARGV[3 * i - 2]) then answer[1] = i - 1 end
end
if answer[1] > 0 then
  answer[2] = redis.call('ZCARD', KEYS[1])
  return answer
end
local longest = 0
for i = 2, #KEYS do
  redis.call('INCRBY', KEYS[i], ARGV[3 * i - 3])
  redis.call('PEXPIRE', KEYS[i], ARGV[3 * i - 1])
  longest = math.max(longest, tonumber(ARGV[3 * i - 1]))
end
redis.call('ZADD', KEYS[1], ends, ARGV[1])
if redis.call('PTTL', KEYS[1]) < longest then redis.call('PEXPIRE', KEYS[1], longest) end
return answer
"""

# KEYS as above. ARGV: the lease's name, its end in ms, then per counter what was reserved and what was spent. A lease
# that is gone before its end was settled already: this is the second try of a settlement whose answer was lost. One
# that is gone after its end was taken back, so what was spent is added.
SETTLE = """
local clock = redis.call('TIME')
local is_held = redis.call('ZREM', KEYS[1], ARGV[1]) == 1
if not is_held and clock[1] * 1000 < tonumber(ARGV[2]) then return 0 end
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('INCRBY', KEYS[i], ARGV[2 * i] - (is_held and ARGV[2 * i - 1] or 0))
  end
end
return 1
"""


def sha_of(script: str) -> str:
    """The name by which Redis knows a script that it has run before."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
