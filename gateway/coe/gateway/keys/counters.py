"""Counters of caps: their names in Redis, what a request takes of them, and what an answer says of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coe.base.redis_names import LIMITS
from coe.decision_log.privacy import tenant_of
from coe.decision_log.redis_client import connect
from coe.gateway.http_errors import ApiError
from coe.gateway.keys.grants import NANO, NANO_PER_MICRO, Cap, Measure, ScopedCap

HELD_WAIT_S = 5
"""Retry-After where requests that run now may give something back (ours)."""

LONGEST_WAIT_S = 60


@dataclass(frozen=True)
class Cost:
    """Counted quantities of one request."""

    tokens: int
    nano_usd: int

    def plus(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.nano_usd + other.nano_usd)

    def times(self, count: int) -> Cost:
        return Cost(count * self.tokens, count * self.nano_usd)


NOTHING = Cost(0, 0)


def nano_usd(micro_usd: float) -> int:
    """A price in billionths of a dollar, rounded up."""
    return math.ceil(round(micro_usd * NANO_PER_MICRO, 3))  # what is behind the third digit is of floating point


@dataclass(frozen=True)
class Counter:
    """The counter of a cap in the window around now."""

    slot: str
    name: str
    scoped: ScopedCap
    need: int
    ends_at: int

    @property
    def key(self) -> str:
        return f"{self.slot}:{self.name}"


def counters_of(caps: Iterable[ScopedCap], cost: Cost, now: float) -> list[Counter]:
    """The counters of caps in the windows around now."""
    counters = []
    for scoped in caps:
        start, end = scoped.cap.window.bounds(now)
        slot = f"{LIMITS}:{{{tenant_of(scoped.scope)}}}"
        name = f"{scoped.scope}:{scoped.cap.name}:{start}"
        counters.append(Counter(slot, name, scoped, amount_of(scoped, cost), end))
    return counters


async def read_used(redis_url: str, scope: str, caps: Sequence[Cap], now: float) -> list[int]:
    """Amounts spent or reserved of caps of a key or a team, in the windows around now. Raises RedisError."""
    counters, client = counters_of([ScopedCap(scope, cap) for cap in caps], NOTHING, now), connect(redis_url)
    try:
        return [int(await client.get(each.key) or 0) for each in counters]
    finally:
        await client.aclose()


def amount_of(scoped: ScopedCap, cost: Cost) -> int:
    """Amount that a request takes of a cap. A request that was let in counts as one, whatever became of it."""
    return {Measure.REQUESTS: 1, Measure.TOKENS: cost.tokens, Measure.USD: cost.nano_usd}[scoped.cap.measure]


def headers_of(counters: Sequence[Counter], used: Sequence[int], *, is_held: bool) -> dict[str, str]:
    """`x-ratelimit-*` of the cap of each measure that has least left; resets are in seconds."""
    headers: dict[str, str] = {}
    least: dict[Measure, float] = {}
    for counter, before in zip(counters, used, strict=True):
        cap = counter.scoped.cap
        left = max(0, cap.units - int(before) - (counter.need if is_held else 0))
        if left / max(cap.units, 1) >= least.get(cap.measure, math.inf):
            continue
        least[cap.measure] = left / max(cap.units, 1)
        name = cap.measure.value
        headers[f"x-ratelimit-limit-{name}"] = f"{cap.amount:.12g}"
        headers[f"x-ratelimit-remaining-{name}"] = shown(cap.measure, left)
        headers[f"x-ratelimit-reset-{name}"] = f"{wait_s(counter)}s"
    return headers


def wait_s(counter: Counter) -> int:
    """Seconds until a window ends, at least 1."""
    return max(1, math.ceil(counter.ends_at - time.time()))


def shown(measure: Measure, units: int) -> str:
    """An amount of a counter in the unit of its cap."""
    return f"{units / NANO:.9f}".rstrip("0").rstrip(".") if measure is Measure.USD else str(units)


def over_cap(counter: Counter, used: int, headers: Mapping[str, str], *, is_held: bool) -> ApiError:
    """The refusal of a request that may cost more than is left: OpenAI's `insufficient_quota` for money, else
    `rate_limit_exceeded`.

    Args:
        is_held: requests of the team are running, which may give something back.
    """
    cap, scope = counter.scoped.cap, counter.scoped.scope
    whose = "key" if "/" in scope else "team"
    left = shown(cap.measure, max(0, cap.units - used))
    message = f"the limit of this {whose}, {cap}, has {left} left"
    if cap.measure is not Measure.REQUESTS:
        message += f", and this request may need {shown(cap.measure, counter.need)}; "
        message += "shorter texts or a smaller max_tokens need less"
    wait = None if counter.need > cap.units else wait_s(counter)  # what is larger than the cap never fits
    if wait is not None and is_held and cap.measure is not Measure.REQUESTS:
        wait = min(wait, HELD_WAIT_S)
    is_money = cap.measure is Measure.USD
    error = ApiError(
        message,
        status=429,
        code="insufficient_quota" if is_money else "rate_limit_exceeded",
        error_type="insufficient_quota" if is_money else None,
        retry_after_s=wait,
    )
    error.more_headers.update(headers)
    if wait is None or wait > LONGEST_WAIT_S:
        error.more_headers["x-should-retry"] = "false"  # clients of OpenAI and Anthropic would try twice more
    return error
