"""Caps of keys and teams that hold for all gateways together, by reservation in Redis.

The most that a request can cost is added to the counter of every cap before an expert is asked, in one script that
adds all or nothing. What it did cost takes its place at the end. A counter is therefore never above its cap, whatever
happens in between, and needs no clean-up: it ends with its window.

A lease remembers what was added, so that the reservations of a gateway that died are taken back once its requests
must have ended. All keys of a team are in one slot of a cluster.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from coe.decision_log.redis_client import REDIS_ERRORS, connect
from coe.fleet.processes.tasks import stop_task
from coe.gateway.http_errors import ApiError, not_now
from coe.gateway.keys.counters import NOTHING, Cost, Counter, amount_of, counters_of, headers_of, over_cap
from coe.gateway.keys.grants import Caller

TIMEOUT_S = 5.0
CONNECTIONS = 16
PAUSE_S = 1.0
"""For so long after a failure nobody waits for Redis: requests that need it are refused at once."""

UNAVAILABLE = "limits of this key cannot be checked now; try again later"
LOGGED, LOGGED_WITHIN_S = 60, 60.0
"""Refusals of a key that the log of decisions gets in such a time from each process (ours): a client over its cap may
ask a thousand times a second, and fill a disk."""

LAST_SETTLING_S = 5.0
SETTLED_AT_ONCE = CONNECTIONS
NEVER_MS = 10**15

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


logger = logging.getLogger(__name__)


@dataclass
class Reservation:
    """A reservation. Settle it once, however the request ends; without caps nothing happens.

    `headers` tell the client what is left, in OpenAI's names.
    """

    limits: Limits
    counters: Sequence[Counter] = ()
    lease: str = ""
    ends_ms: int = 0
    reserved: Cost = NOTHING
    headers: Mapping[str, str] = field(default_factory=dict)

    def settle(self, cost: Cost | None) -> None:
        """Replaces what was reserved by what was spent; None where nobody knows, which is all of it."""
        if self.counters:
            self.limits.settle_soon(self, self.reserved if cost is None else cost)


class Limits:
    """Reserves and settles. One for each process.

    Requests of keys without caps never meet Redis. While it is away, those of keys with caps are refused (503): a cap
    that nobody counts would be no cap.

    Args:
        redis_url: None: there is none, so that keys with caps are refused.
        lease_s: longer than any request takes, until `allow` says more.
    """

    def __init__(self, redis_url: str | None = None, *, lease_s: float = 3600.0) -> None:
        self._client = None if redis_url is None else connect(redis_url, timeout_s=TIMEOUT_S)
        self._scripts = {} if self._client is None else {s: self._client.register_script(s) for s in (RESERVE, SETTLE)}
        self._lease_ms = math.ceil(lease_s * 1000)
        self._paused_until_s = 0.0
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._unsettled: deque[tuple[Reservation, Cost]] = deque()
        self._has_more = asyncio.Event()
        self._refused_in, self._refused = 0.0, Counts[str | None]()
        self._task: asyncio.Task[None] | None = None

    def allow(self, lease_s: float) -> None:
        """From now on requests may take so long."""
        self._lease_ms = max(self._lease_ms, math.ceil(lease_s * 1000))

    async def reserve(self, caller: Caller, cost: Cost) -> Reservation:
        """Holds the most that a request can cost.

        Raises:
            ApiError: 429, it does not fit into a cap; 503, Redis cannot be asked.
        """
        if not caller.caps:
            return Reservation(self)
        if self._client is None or time.monotonic() < self._paused_until_s:
            raise not_now(UNAVAILABLE, "limits_unavailable")
        counters = counters_of(caller.caps, cost, time.time())
        lease = " ".join([secrets.token_hex(8), *(f"{each.key} {each.need}" for each in counters)])
        arguments: list[Any] = [lease, self._lease_ms]
        for each in counters:
            kept_ms = max(0, each.ends_at - time.time()) * 1000 + self._lease_ms
            arguments += [each.need, each.scoped.cap.units, math.ceil(kept_ms)]
        hold = Reservation(self, counters, lease, reserved=cost)
        asking = asyncio.ensure_future(self._ask(RESERVE, hold, arguments))
        try:
            refused, hold.ends_ms, *used = await asyncio.shield(asking)
        except asyncio.CancelledError:  # the client left, and Redis may be at it
            asking.add_done_callback(lambda done: self._take_back(hold, done))
            raise
        except ApiError:  # it may have been at it before the connection broke
            self.settle_soon(hold, NOTHING)
            raise
        hold.headers = headers_of(counters, used, is_held=not refused)
        if refused:
            error = over_cap(counters[refused - 1], used[refused - 1], hold.headers, is_held=hold.ends_ms > 0)
            error.is_logged = self._is_news(caller.key_id)
            raise error
        return hold

    def _is_news(self, key_id: str | None) -> bool:
        """Counts a refusal; True for the first ones of a key in a minute."""
        minute = time.monotonic() // LOGGED_WITHIN_S
        if minute != self._refused_in:
            self._refused_in, self._refused = minute, Counts()
        self._refused[key_id] += 1
        return self._refused[key_id] <= LOGGED

    def _take_back(self, hold: Reservation, asking: asyncio.Future[list[int]]) -> None:
        asking.exception()  # looked at, so that the loop does not report it
        self.settle_soon(hold, NOTHING)

    def settle_soon(self, hold: Reservation, cost: Cost) -> None:
        """Queues a settlement; the client waits for none."""
        self._unsettled.append((hold, cost))
        self._has_more.set()
        if self._task is None:
            self._task = asyncio.create_task(self._settle_always(), name="limits")

    async def aclose(self) -> None:
        """Settles what is left, for a few seconds at most."""
        await stop_task(self._task)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SETTLING_S):
                await self._settle_all()
        if self._client is not None:
            await self._client.aclose()

    async def _settle_always(self) -> None:
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            await self._settle_all()

    async def _settle_all(self) -> None:
        """Settles what is queued, some at once, and again what Redis did not take."""
        while self._unsettled:
            some = list(islice(self._unsettled, SETTLED_AT_ONCE))
            done = await asyncio.gather(*(self._settle(hold, cost) for hold, cost in some))
            for _ in some:  # a settlement that is sent twice counts once
                self._unsettled.popleft()
            self._unsettled.extend(each for each, is_done in zip(some, done, strict=True) if not is_done)
            if not all(done):
                await asyncio.sleep(PAUSE_S)

    async def _settle(self, hold: Reservation, cost: Cost) -> bool:
        """Returns True once Redis has taken it."""
        arguments: list[Any] = [hold.lease, hold.ends_ms or NEVER_MS]
        for each in hold.counters:
            arguments += [each.need, amount_of(each.scoped, cost)]
        try:
            await self._ask(SETTLE, hold, arguments)
        except ApiError:
            return False
        return True

    async def _ask(self, script: str, hold: Reservation, arguments: list[Any]) -> list[int]:
        """Runs a script. Raises ApiError 503."""
        keys = [f"{hold.counters[0].slot}:leases", *(each.key for each in hold.counters)]
        try:
            async with self._places:
                return await self._scripts[script](keys, arguments)  # type: ignore[no-any-return]
        except REDIS_ERRORS as error:
            self._paused_until_s = time.monotonic() + PAUSE_S
            logger.warning("keys with limits are refused: Redis cannot be asked (%s)", type(error).__name__)
            raise not_now(UNAVAILABLE, "limits_unavailable") from error
