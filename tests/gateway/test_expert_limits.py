"""Experts at the limits of their providers: of rate, of quota and of tokens."""

from __future__ import annotations

import logging

import orjson
import pytest

from coe.fleet.calls.replicas import FAILURES_TO_OPEN, Replicas
from coe.gateway.commands import check as check_command
from coe.gateway.experts.errors import upstream_error
from coe.gateway.http_errors import OUT_OF_QUOTA
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import echoes, faulty, provider, running


@pytest.mark.parametrize("mode", ["busy", "overloaded"])
async def test_an_expert_that_asks_for_a_rest_gets_it_and_the_receipt_says_so(mode: str) -> None:
    async with faulty(mode) as (gateway, upstream):
        pool, now = gateway.parts.pool, 0.0
        pool._prober.cancel()
        pool.clock = lambda: now
        for _ in range(3):
            async with gateway.chat("red") as answer:
                assert (answer.status, answer.headers["x-coe-expert"]) == (200, "plain")
        assert len(upstream.requests) == 1
        url = f"{gateway.gateway.url}/decisions/{answer.headers['x-coe-decision-id']}"
        async with gateway.client.get(url) as receipt:
            assert "cannot serve this request (ruby is at its provider's limit)" in (await receipt.json())["why"]
        async with gateway.client.get(f"{gateway.root}/metrics") as metrics:
            assert 'coe_expert_state{expert="ruby",state="limited"} 1.0' in await metrics.text()
        async with gateway.client.get(f"{gateway.gateway.url}/experts") as listed:
            states = {each["name"]: each["state"] for each in (await listed.json())["data"]}
            assert (states["ruby"], states["plain"]) == ("at its limit", "up")
        async with gateway.chat("red", model="ruby") as answer:
            assert (answer.status, answer.headers["retry-after"]) == (429, "7")
        now, upstream.mode = 7.0, "ok"
        await pool.probe_due()
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-expert"] == "ruby"


@pytest.mark.parametrize("has_places", [False, True])
async def test_an_expert_without_quota_rests_for_long_and_everyone_is_told(
    has_places: bool, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "coe.fleet.calls.pool")
    async with fault_upstream("spent") as upstream:
        backend = provider(upstream.url)
        backend = Replicas("ruby", {upstream.url: backend}, 4) if has_places else backend
        async with running(echoes(ruby=backend)) as gateway:
            pool, now = gateway.parts.pool, 0.0
            pool._prober.cancel()
            pool.clock = lambda: now
            sent_before = await pool.call("ruby")
            async with gateway.chat("red") as answer:
                assert (answer.status, answer.headers["x-coe-expert"]) == (200, "plain")
            now = 100.0
            await pool.probe_due()
            told = "expert ruby is without quota or credit at its provider and is skipped for"
            assert [line.message for line in caplog.records] == [f"{told} 600 s"]
            async with gateway.client.get(f"{gateway.root}/readyz") as ready:
                assert (ready.status, (await ready.json())["warnings"]) == (200, [f"{told} 500 s"])
            async with gateway.client.get(f"{gateway.gateway.url}/experts") as listed:
                ruby = (await listed.json())["data"][0]
                assert (ruby["state"], ruby["problem"]) == ("at its limit", f"{told} 500 s")
            assert await check_command.troubles(gateway.gateway.url) == [f"{told} 500 s"]
            async with gateway.chat("red", model="ruby") as answer:
                error = (await answer.json())["error"]
                assert (answer.status, answer.headers["retry-after"], error["code"]) == (429, "500", OUT_OF_QUOTA)
                assert error["message"].endswith("(ruby is without quota or credit at its provider)")
            sent_before.cool_down(1.0)
            assert pool.problems() == {"ruby": f"{told} 500 s"}
            assert (await gateway.record()).failures == {"ruby": "expert_out_of_quota"}
            assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("status", "error", "is_spent"),
    [
        (402, {"message": "Insufficient Balance"}, True),
        (402, {"message": "This request requires more credits, or fewer max_tokens. ..."}, False),
        (400, {"type": "invalid_request_error", "message": "Your credit balance is too low to use the API."}, True),
        (429, {"type": "requests", "code": "rate_limit_exceeded", "message": "insufficient_quota"}, False),
        (400, {"message": 'no such tool "code": "insufficient_quota"'}, False),
        (400, {"message": "bad tool", "input": {"code": "insufficient_quota"}}, False),
    ],
)
def test_an_account_without_quota_is_known_by_what_no_client_can_write(
    status: int, error: dict[str, object], is_spent: bool
) -> None:
    failure = upstream_error("ruby", status, orjson.dumps({"error": error}), {})
    assert (failure.code == "expert_out_of_quota") == (is_spent or status == 402)
    assert (failure.retry_after_s == 600.0) == is_spent


@pytest.mark.parametrize("has_limit", [False, True])
async def test_a_request_that_is_too_large_for_an_expert_alone_makes_it_rest_for_nobody(has_limit: bool) -> None:
    async with fault_upstream("oversized") as upstream:
        backend = provider(upstream.url)
        backend = Replicas("ruby", {upstream.url: backend}, 4) if has_limit else backend
        async with running(echoes(ruby=backend)) as gateway:
            async with gateway.chat("red") as answer:
                assert (answer.status, answer.headers["x-coe-expert"]) == (200, "plain")
            async with gateway.chat("red", model="ruby") as answer:
                assert (answer.status, answer.headers.get("retry-after")) == (429, None)
                assert "Limit 30000" in (await answer.json())["error"]["message"]
            assert gateway.parts.pool.limited == frozenset()
            assert len(upstream.requests) == 2


@pytest.mark.parametrize("status", [413, 429])
def test_too_many_tokens_for_one_expert_may_be_few_for_the_next_and_too_many_bytes_are_not(status: int) -> None:
    tokens = upstream_error("ruby", status, b'{"error":{"message":"Request too large for model `m` on TPM"}}', {})
    size = upstream_error("ruby", status, b"<html>413 Request Entity Too Large</html>", {})
    assert (tokens.is_retryable, tokens.retry_after_s) == (True, None)
    assert (size.is_retryable, size.retry_after_s) == ((False, None) if status == 413 else (True, 1.0))


async def test_where_all_are_at_their_limit_the_shortest_wait_is_told() -> None:
    async with fault_upstream("busy") as long, fault_upstream("busy") as short:
        long.retry_after, short.retry_after = "50", "20"
        backends = {"ruby": provider(short.url), "emerald": provider(long.url), "plain": provider(long.url)}
        async with running(backends, retries=2) as gateway:
            gateway.stop_clock()
            for _ in range(2):  # by the experts' answers, and then without asking them
                async with gateway.chat("red") as answer:
                    assert (answer.status, answer.headers["retry-after"]) == (429, "20")
            async with gateway.client.get(f"{gateway.root}/readyz") as ready:
                assert ready.status == 200, "another gateway would not have more room"
            assert (await gateway.record(1)).error_code == "expert_rate_limited"
    assert (len(short.requests), len(long.requests)) == (1, 2)


async def test_the_wait_for_an_expert_at_its_limit_is_not_that_for_one_which_is_down() -> None:
    async with fault_upstream("busy") as busy, fault_upstream("unavailable") as gone:
        backends = {"ruby": provider(busy.url), "plain": provider(gone.url), "emerald": provider(busy.url)}
        async with running(backends, retries=2) as gateway:
            gateway.stop_clock()
            gateway.parts.pool.breaker("plain").failures = FAILURES_TO_OPEN - 1
            async with gateway.chat("red") as answer:
                assert (answer.status, answer.headers["retry-after"]) == (429, "7")


async def test_an_answer_during_a_probe_counts_more_than_the_probe() -> None:
    async with faulty("busy") as (gateway, _):
        pool, now = gateway.parts.pool, 0.0
        pool.clock = lambda: now
        (await pool.call("ruby")).cool_down(7.0)
        now = 7.0

        async def is_alive() -> bool:
            (await pool.call("ruby")).cool_down(7.0)
            return True

        vars(pool.backend("ruby"))["is_alive"] = is_alive
        await pool.probe_due()
        assert pool.cooldowns_s() == {"ruby": 7.0}
