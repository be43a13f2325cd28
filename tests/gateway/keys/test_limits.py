"""Caps hold in every order of events: clients, gateways that die, settlements that come twice or late, Redis away."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from redis import Redis

from coe.base.redis_names import LIMITS
from coe.gateway.http_errors import ApiError
from coe.gateway.keys.counters import NOTHING, Cost
from coe.gateway.keys.grants import Caller, Cap, Grant, Measure, Window, caller_of
from coe.gateway.keys.limits import PAUSE_S, Limits, Reservation
from coe_offline.redis_server import RedisServer
from tests.waiting import until

GATEWAYS = 3
CLIENTS = 50
LEASE_S = 10_000.0

# A month does not end in the middle of a test, but for one test of a night per month, which then sees two counters.
KEY_CAPS = tuple(
    Cap(measure=measure, amount=amount, window=Window.MONTH)
    for measure, amount in ((Measure.USD, 3e-8), (Measure.TOKENS, 100), (Measure.REQUESTS, 12))
)
TEAM_CAP = Cap(measure=Measure.USD, amount=5e-8, window=Window.MONTH)
TEAM = Grant(caps=(TEAM_CAP,))
LEASES = f"{LIMITS}:{{acme}}:leases"
PASSER_BY = caller_of(
    "acme/passer", Grant(caps=(Cap(measure=Measure.REQUESTS, amount=1e6, window=Window.MONTH),)), Grant()
)
CALLERS = [caller_of(f"acme/{number}", Grant(caps=KEY_CAPS), TEAM) for number in range(3)]


def counters(client: Redis) -> dict[str, int]:
    """Every counter by scope and cap."""
    names = [name.decode() for name in client.keys(f"{LIMITS}:*")]
    return {
        name.split("}:")[1].rpartition(":")[0]: int(client.get(name) or 0)
        for name in names
        if name != LEASES and PASSER_BY.key_id not in name
    }


class Budgets(RuleBasedStateMachine):
    """Three gateways over one Valkey. `held` and `spent` are what the caps must have counted, by scope and cap."""

    url = ""
    holds = Bundle("holds")
    settled = Bundle("settled")

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._redis = Redis.from_url(self.url)
        self._redis.flushall()
        self._gateways = [Limits(self.url, lease_s=LEASE_S) for _ in range(GATEWAYS)]
        self._open: dict[str, tuple[Reservation, bool]] = {}  # by lease, with whether its gateway is dead
        self._spent: dict[str, int] = {}

    def teardown(self) -> None:
        for each in self._gateways:
            self._loop.run_until_complete(each.aclose())
        self._redis.close()
        self._loop.close()

    @rule(
        target=holds,
        gateway=st.integers(0, GATEWAYS - 1),
        caller=st.sampled_from(CALLERS),
        tokens=st.integers(0, 60),
        nano=st.integers(0, 20),
    )
    def reserve(self, gateway: int, caller: Caller, tokens: int, nano: int) -> Reservation | None:
        cost = Cost(tokens, nano)
        before = counters(self._redis)
        try:
            hold = self._loop.run_until_complete(self._gateways[gateway].reserve(caller, cost))
        except ApiError:
            assert counters(self._redis) == before, "a refusal takes nothing"
            assert any(before.get(name, 0) + need > most for name, need, most in wanted(caller, cost))
            return None
        self._open[hold.lease] = hold, False
        return hold

    @rule(target=settled, hold=consumes(holds), share=st.floats(0, 1), is_known=st.booleans())
    def settle(self, hold: Reservation | None, share: float, is_known: bool) -> Reservation | None:
        if hold is None or self._open.get(hold.lease, (hold, True))[1]:
            return None
        reserved = hold.reserved
        cost = Cost(int(reserved.tokens * share), int(reserved.nano_usd * share)) if is_known else reserved
        self._count(hold, cost)
        self._send(hold, cost)
        return hold

    @rule(hold=settled, is_known=st.booleans())
    def settle_again(self, hold: Reservation | None, is_known: bool) -> None:
        """A settlement whose answer was lost is sent again."""
        if hold is not None:
            self._send(hold, hold.reserved if is_known else NOTHING)

    @rule(hold=holds)
    def kill_its_gateway(self, hold: Reservation | None) -> None:
        """Nobody will settle it."""
        if hold is not None and hold.lease in self._open:
            self._open[hold.lease] = hold, True

    @rule()
    def leases_of_the_dead_end(self) -> None:
        for lease, (_, is_dead) in list(self._open.items()):
            if is_dead:
                self._redis.zadd(LEASES, {lease: 1}, xx=True)
                del self._open[lease]
        # The next request of the team takes them back.
        self._send(self._loop.run_until_complete(self._gateways[0].reserve(PASSER_BY, NOTHING)), NOTHING)

    def _count(self, hold: Reservation, cost: Cost) -> None:
        del self._open[hold.lease]
        for each, (name, spent, _) in zip(hold.counters, wanted_of(hold, cost), strict=True):
            assert each.name.startswith(name)
            self._spent[name] = self._spent.get(name, 0) + spent

    def _send(self, hold: Reservation, cost: Cost) -> None:
        self._loop.run_until_complete(hold.limits._settle(hold, cost))

    @invariant()
    def counters_are_what_is_held_and_spent_and_within_caps(self) -> None:
        expected = dict(self._spent)
        for hold, _ in self._open.values():
            for name, need, _ in wanted_of(hold, hold.reserved):
                expected[name] = expected.get(name, 0) + need
        found = counters(self._redis)
        assert {name: count for name, count in found.items() if count} == {
            name: count for name, count in expected.items() if count
        }
        for caller in CALLERS:
            for name, _, most in wanted(caller, NOTHING):
                assert found.get(name, 0) <= most


def wanted(caller: Caller, cost: Cost) -> list[tuple[str, int, int]]:
    """Name of each counter, what a cost takes of it, and its cap."""
    amounts = {Measure.REQUESTS: 1, Measure.TOKENS: cost.tokens, Measure.USD: cost.nano_usd}
    return [(f"{each.scope}:{each.cap.name}", amounts[each.cap.measure], each.cap.units) for each in caller.caps]


def wanted_of(hold: Reservation, cost: Cost) -> list[tuple[str, int, int]]:
    return wanted(Caller("acme/0", caps=tuple(each.scoped for each in hold.counters)), cost)


def test_no_order_of_events_exceeds_a_cap(redis_url: str) -> None:
    Budgets.url = redis_url
    run_state_machine_as_test(
        Budgets,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


@pytest.fixture
def gateways(redis_url: str) -> list[Limits]:
    return [Limits(redis_url, lease_s=LEASE_S) for _ in range(GATEWAYS)]


async def close(gateways: list[Limits]) -> None:
    await asyncio.gather(*(each.aclose() for each in gateways))


@pytest.mark.parametrize("seed", range(2))
async def test_fifty_clients_at_once_spend_no_more_than_the_budget(
    gateways: list[Limits], redis_url: str, seed: int
) -> None:
    """Each asks until it is refused for good; what their requests cost in truth is counted here, not by the caps."""
    rng = random.Random(seed)
    budget = Cap(measure=Measure.USD, amount=0.45, window=Window.MONTH)
    caller = caller_of("acme/1", Grant(caps=(budget,)), Grant())
    spent: list[int] = []
    codes: set[str | None] = set()

    async def client(limits: Limits) -> None:
        for _ in range(20):
            reserved = rng.randrange(1, 30_000_000)
            try:
                hold = await limits.reserve(caller, Cost(0, reserved))
            except ApiError as error:
                codes.add(error.code)
                continue
            cost = rng.randrange(reserved + 1)
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            spent.append(cost)
            hold.settle(Cost(0, cost))

    await asyncio.gather(*(client(gateways[number % GATEWAYS]) for number in range(CLIENTS)))
    await close(gateways)
    assert sum(spent) <= budget.units
    assert codes == {"insufficient_quota"}
    assert sum(spent) > 0.9 * budget.units, "what is left over is less than one request may cost"
    with Redis.from_url(redis_url) as client_of_redis:
        assert counters(client_of_redis) == {"acme/1:usd/month": sum(spent)}
        assert client_of_redis.zcard(LEASES) == 0


async def test_a_client_that_leaves_while_redis_is_asked_holds_nothing(gateways: list[Limits], redis_url: str) -> None:
    limits = gateways[0]
    for steps in range(12):
        # All twelve together are within the caps: what was held is given back soon, not at once.
        asking = asyncio.create_task(limits.reserve(CALLERS[0], Cost(1, 1)))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            (await asking).settle(NOTHING)
    with Redis.from_url(redis_url) as client:
        await until(lambda: not limits._unsettled and client.zcard(LEASES) == 0)
        left = counters(client)
    await close(gateways)
    assert {name: count for name, count in left.items() if "requests" not in name and count} == {}


async def test_while_redis_is_away_keys_with_caps_are_refused_and_others_are_not(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = RedisServer(tmp_path_factory.mktemp("own"))
    limits = Limits(await server.start(), lease_s=LEASE_S)
    hold = await limits.reserve(CALLERS[0], Cost(50, 20))
    await server.stop()
    before_s = time.monotonic()
    for _ in range(3):  # the first waits for the connection, the others for nothing
        with pytest.raises(ApiError) as refused:
            await limits.reserve(CALLERS[0], Cost(1, 1))
        assert (refused.value.status, refused.value.code) == (503, "limits_unavailable")
        assert refused.value.headers["retry-after"] == "1"
    assert limits._paused_until_s >= before_s + PAUSE_S
    (await limits.reserve(Caller("acme/9"), Cost(1, 1))).settle(NOTHING)
    hold.settle(Cost(7, 3))
    url = await server.start()
    with Redis.from_url(url) as client:
        await until(lambda: counters(client).get("acme/0:tokens/month") == 7)
        await until(lambda: not limits._unsettled)
        found = counters(client)
    assert found["acme:usd/month"] == 3
    assert found["acme/0:requests/month"] == 1, "what was refused is not counted"
    await limits.aclose()
    await server.stop()


async def test_a_lease_that_ended_before_its_settlement_is_charged(gateways: list[Limits], redis_url: str) -> None:
    hold = await gateways[0].reserve(CALLERS[0], Cost(50, 20))
    with Redis.from_url(redis_url) as client:
        client.zadd(LEASES, {hold.lease: 1})
        (await gateways[1].reserve(CALLERS[0], Cost(1, 1))).settle(Cost(1, 1))
        await until(lambda: counters(client)["acme/0:tokens/month"] == 1)
        hold.ends_ms = 1
        hold.settle(Cost(40, 10))
        await until(lambda: counters(client)["acme/0:tokens/month"] == 41)
    await close(gateways)


async def test_refusals_say_what_is_left_and_when_to_come_back(gateways: list[Limits]) -> None:
    limits = gateways[0]
    first = await limits.reserve(CALLERS[0], Cost(60, 10))
    assert first.headers["x-ratelimit-limit-tokens"] == "100"
    assert first.headers["x-ratelimit-remaining-tokens"] == "40"
    assert first.headers["x-ratelimit-remaining-requests"] == "11"
    assert first.headers["x-ratelimit-remaining-usd"] == "0.00000002"
    assert first.headers["x-ratelimit-reset-usd"].endswith("s")
    with pytest.raises(ApiError) as refused:
        await limits.reserve(CALLERS[0], Cost(41, 1))
    error = refused.value
    assert (error.status, error.code, error.error_type) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert str(error).startswith(
        "the limit of this key, 100 tokens per month, has 40 left, and this request may need 41"
    )
    assert error.headers["retry-after"] == "5", "what is running may give something back"
    assert "x-should-retry" not in error.headers
    assert error.headers["x-ratelimit-remaining-tokens"] == "40"
    first.settle(Cost(60, 10))
    await until(lambda: not limits._unsettled)
    with pytest.raises(ApiError) as refused:
        await limits.reserve(CALLERS[0], Cost(0, 21))
    error = refused.value
    assert (error.code, error.error_type) == ("insufficient_quota", "insufficient_quota")
    assert "has 0.00000002 left, and this request may need 0.000000021" in str(error)
    assert int(error.headers["retry-after"]) > 5
    assert error.headers["x-should-retry"] == "false", "a month is too long for a client to wait"
    with pytest.raises(ApiError) as refused:
        await limits.reserve(CALLERS[0], Cost(0, 31))
    assert "retry-after" not in refused.value.headers, "it never fits"
    with pytest.raises(ApiError, match="the limit of this team, 5e-08 usd per month"):
        await limits.reserve(replace(CALLERS[1], caps=CALLERS[1].caps[-1:]), Cost(0, 41))
    await close(gateways)


async def test_a_new_window_begins_at_nothing(gateways: list[Limits], monkeypatch: pytest.MonkeyPatch) -> None:
    cap = Cap(measure=Measure.REQUESTS, amount=2, window=Window.MINUTE)
    caller = caller_of("acme/1", Grant(caps=(cap,)), Grant())
    now = 1e9
    monkeypatch.setattr("coe.gateway.keys.counters.time.time", lambda: now)
    allowed, waits = 0, set()
    for _ in range(5):
        try:
            await gateways[0].reserve(caller, NOTHING)
            allowed += 1
        except ApiError as error:
            waits.add(error.headers["retry-after"])
    assert (allowed, waits) == (2, {str(int(now // 60 * 60 + 60 - now))})
    now += 60
    await gateways[1].reserve(caller, NOTHING)
    await close(gateways)
