"""A key whose prompts make engines fail: it takes neither an expert nor further tries from others."""

from __future__ import annotations

import logging
from itertools import count

import pytest

from coe.fleet.calls.pool import ExpertPool
from coe.fleet.calls.replicas import FAILURES_TO_OPEN, Breaker, BreakerState, Replicas
from coe.gateway.experts.call import RETRY_BURST
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import Running, echoes, faulty, provider, running

KEYS = [f"key-{number}-0123456789abcdef0123456789abcdef" for number in range(FAILURES_TO_OPEN)]
BAD, GOOD = KEYS[:2]
NUMBERS = count()


async def ask(gateway: Running, key: str, model: str = "ruby", *, is_stream: bool = False) -> tuple[int, str]:
    """The status of an answer to a new prompt, and its expert."""
    headers = {"authorization": f"Bearer {key}"}
    async with gateway.chat(f"red {next(NUMBERS)}", model=model, headers=headers, stream=is_stream) as answer:
        await answer.read()
        return answer.status, answer.headers.get("x-coe-expert", "")


class Pool:
    """The expert ruby at a time of the test's choice; requests of a key to it that fail or not."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.all = ExpertPool(echoes(), clock=lambda: self.now_s)

    async def fail(self, caller: str = "", **told: bool) -> None:
        (await self.all.call("ruby", caller=caller)).failed("500 boom", **told)

    async def after(self, seconds: float) -> None:
        self.now_s += seconds
        await self.all.probe_due()

    def takes(self, caller: str) -> bool:
        return bool(self.all.replicas("ruby").left((), caller))

    @property
    def state(self) -> BreakerState:
        return self.all.state("ruby")


@pytest.mark.parametrize(("mode", "status"), [("fault", 500), ("reset", 502), ("cut", 200)])
async def test_a_key_whose_every_prompt_fails_is_sent_elsewhere_and_no_other_is(mode: str, status: int) -> None:
    async with faulty(mode, keys=KEYS) as (gateway, upstream):
        await gateway.parts.pool.stop_probing()  # which ends a rest
        for _ in range(FAILURES_TO_OPEN):
            assert await ask(gateway, BAD, is_stream=mode == "cut") == (status, "ruby")
        sent = len(upstream.requests)
        assert await ask(gateway, BAD) == (503, "ruby")
        assert await ask(gateway, BAD, "auto") == (200, "plain")
        assert len(upstream.requests) == sent
        upstream.mode = "ok"
        assert await ask(gateway, GOOD) == (200, "ruby")
        assert await ask(gateway, GOOD, "auto") == (200, "ruby")


async def test_an_engine_that_is_down_is_left_out_for_all_at_once() -> None:
    async with faulty("unavailable", keys=KEYS) as (gateway, upstream):
        await gateway.parts.pool.stop_probing()
        for _ in range(FAILURES_TO_OPEN):
            assert await ask(gateway, BAD) == (503, "ruby")
        assert gateway.parts.pool.state("ruby") is BreakerState.OPEN
        assert await ask(gateway, GOOD, "auto") == (200, "plain")
        assert len(upstream.requests) == FAILURES_TO_OPEN


async def test_an_engine_at_which_many_keys_fail_is_left_out_for_all_at_once() -> None:
    async with faulty("fault", keys=KEYS) as (gateway, _):
        await gateway.parts.pool.stop_probing()
        for key in KEYS:
            assert gateway.parts.pool.state("ruby") is BreakerState.CLOSED
            assert await ask(gateway, key) == (500, "ruby")
        assert gateway.parts.pool.state("ruby") is BreakerState.OPEN


@pytest.mark.parametrize("is_another_served", [False, True])
async def test_an_engine_that_fails_one_key_again_and_again_is_left_out_for_all_unless_another_is_served(
    is_another_served: bool,
) -> None:
    pool = Pool()
    for rest_s in (0.0, 1.0, 2.0, 4.0):
        await pool.after(rest_s - 0.01)
        assert not pool.takes("bad") or rest_s == 0
        await pool.after(0.01)
        assert pool.state is BreakerState.CLOSED
        while pool.takes("bad"):
            await pool.fail("bad")
        if is_another_served:
            (await pool.all.call("ruby", caller="good")).succeeded()
    assert pool.state is (BreakerState.CLOSED if is_another_served else BreakerState.OPEN)


async def test_a_key_is_taken_again_after_its_success() -> None:
    pool = Pool()
    while pool.takes("bad"):
        await pool.fail("bad")
    await pool.after(1.0)
    (await pool.all.call("ruby", caller="bad")).succeeded()
    for _ in range(FAILURES_TO_OPEN - 1):
        await pool.fail("bad")
    assert pool.takes("bad")


async def test_the_trial_of_an_engine_is_left_to_keys_that_did_not_fail() -> None:
    pool = Pool()
    for _ in range(FAILURES_TO_OPEN):
        await pool.fail("bad", is_down=True)
    await pool.after(1.0)
    await pool.fail("bad")  # a trial like any other
    await pool.after(2.0)
    assert pool.state is BreakerState.HALF_OPEN
    waiting = await pool.all.call("ruby", caller="bad")
    assert pool.takes("good")
    (await pool.all.call("ruby", caller="good")).succeeded()
    assert pool.state is BreakerState.CLOSED
    waiting.abandoned()


async def test_a_key_is_answered_by_the_engine_that_does_not_fail_it() -> None:
    async with fault_upstream("fault") as bad, fault_upstream() as good:
        ruby = Replicas("ruby", {each.url: provider(each.url) for each in (bad, good)})
        async with running(echoes(ruby=ruby), keys=KEYS) as gateway:
            await gateway.parts.pool.stop_probing()
            for _ in range(8 * FAILURES_TO_OPEN):
                assert await ask(gateway, BAD) == (200, "ruby")
            assert len(bad.requests) == FAILURES_TO_OPEN


async def test_further_tries_of_one_key_are_taken_from_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with faulty("fault", keys=KEYS) as (gateway, _):
        monkeypatch.setattr(Breaker, "fail", lambda *_: None)  # breakers would end the tries before
        seen = [await ask(gateway, BAD, "auto") for _ in range(2 * int(RETRY_BURST))]
        assert seen[-1] == (500, "ruby")
        assert await ask(gateway, GOOD, "auto") == (200, "plain")


async def test_the_log_says_that_an_expert_fails_for_one_key_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coe.fleet.calls.pool")
    pool = Pool()
    for _ in range(FAILURES_TO_OPEN):
        await pool.fail("bad")
    said = "expert ruby fails for one key (500 boom) and is skipped for that one"
    assert [line.message for line in caplog.records] == [said]
