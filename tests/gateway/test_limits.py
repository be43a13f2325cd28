"""Breaker, retry budget, admission and settings by themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coe.base.errors import ConfigError
from coe.fleet.calls.replicas import (
    FAILURES_TO_OPEN,
    FIRST_BACKOFF_S,
    MAX_BACKOFF_S,
    MAX_COOLDOWN_S,
    Breaker,
    BreakerState,
)
from coe.gateway.experts.call import RetryBudget
from coe.gateway.http.admission import ConcurrencyLimit
from coe.gateway.http_errors import ApiError
from coe.gateway.settings import read_secrets, read_settings
from coe.router.config.composition import parse_config


def test_breaker_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            breaker.fail(0.0)
        breaker.succeed()
    assert breaker.admits
    for _ in range(FAILURES_TO_OPEN):
        breaker.fail(10.0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admits
    assert not breaker.wants_probe(10.0 + FIRST_BACKOFF_S - 0.01)
    assert breaker.wants_probe(10.0 + FIRST_BACKOFF_S)


def test_failures_that_one_prompt_may_cause_count_once_until_a_success() -> None:
    breaker = Breaker()
    for _ in range(3):
        for name in [*"abcd"] * FAILURES_TO_OPEN:
            breaker.fail(0.0, name)
        assert breaker.admits
        breaker.succeed()
    for name in "abcde":
        breaker.fail(0.0, name)
    assert breaker.state is BreakerState.OPEN
    breaker.probed(True, 1.0)
    breaker.start()
    breaker.fail(1.0, "a")  # no verdict
    assert breaker.admits
    breaker.start()
    breaker.fail(1.0, "f")
    assert breaker.state is BreakerState.OPEN


def test_half_open_breaker_admits_one_trial() -> None:
    breaker = Breaker()
    breaker.open(0.0)
    breaker.probed(True, 1.0)
    assert breaker.admits
    breaker.start()
    assert not breaker.admits
    breaker.abandon()
    assert breaker.admits
    breaker.start()
    breaker.fail(5.0)
    assert breaker.state is BreakerState.OPEN
    assert breaker.probe_at_s == 5.0 + 2 * FIRST_BACKOFF_S
    breaker.probed(True, 9.0)
    breaker.start()
    breaker.succeed()
    assert breaker == Breaker(probe_at_s=breaker.probe_at_s)


def test_a_trial_that_streams_holds_nobody_up_and_its_failure_opens_at_once() -> None:
    breaker = Breaker()
    breaker.open(0.0)
    breaker.probed(True, 1.0)
    breaker.start()
    breaker.begin()
    assert breaker.admits
    breaker.start()
    assert breaker.admits
    breaker.fail(5.0)
    assert breaker.state is BreakerState.OPEN
    breaker.probed(True, 9.0)
    breaker.start()
    breaker.begin()
    breaker.succeed()
    assert breaker == Breaker(probe_at_s=breaker.probe_at_s)


def test_a_stream_that_begins_does_not_forgive_earlier_failures() -> None:
    """Streams that all begin and are all cut still open the breaker."""
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.begin()
        breaker.fail(0.0)
    assert breaker.state is BreakerState.OPEN


def test_an_expert_at_its_limit_rests_for_as_long_as_it_asks_and_needs_no_trial_afterwards() -> None:
    breaker = Breaker()
    breaker.fail(0.0)
    breaker.limit(0.0, 7.0)
    breaker.limit(1.0, 2.0)  # the longer rest counts
    breaker.succeed()  # a request that was sent before
    assert (breaker.state, breaker.cooldown_s(3.0), breaker.failures) == (BreakerState.LIMITED, 4.0, 0)
    assert not breaker.admits
    assert not breaker.wants_probe(6.9)
    assert breaker.wants_probe(7.0)
    breaker.probed(True, 7.0)
    assert (breaker.state, breaker.cooldown_s(7.0)) == (BreakerState.CLOSED, 0.0)
    breaker.limit(10.0, 3600.0)
    assert breaker.cooldown_s(10.0) == MAX_COOLDOWN_S
    breaker.probed(False, 70.0)  # it went down meanwhile
    assert breaker.state is BreakerState.OPEN


def test_back_off_doubles_up_to_a_bound() -> None:
    breaker = Breaker()
    breaker.open(0.0)
    for _ in range(20):
        began_s = breaker.probe_at_s
        breaker.probed(False, began_s)
    assert breaker.probe_at_s - began_s == MAX_BACKOFF_S


def test_a_probe_that_ends_after_a_request_told_more_says_nothing() -> None:
    breaker = Breaker()
    breaker.open(0.0)
    breaker.limit(1.0, 7.0)  # a request that was sent before
    breaker.probed(True, 2.0)
    assert breaker.cooldown_s(2.0) == 6.0
    breaker = Breaker()
    breaker.probed(False, 2.0)
    assert breaker.state is BreakerState.CLOSED


def test_retry_budget_is_a_share_of_requests() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    tries = 0
    for _ in range(1000):
        budget.earn()
        tries += budget.spend()
    assert 98 <= tries <= 100


async def test_admission_serves_in_order_and_forgets_those_who_leave() -> None:
    admission, order = ConcurrencyLimit(12), []

    async def work(name: str) -> None:
        async with admission:
            order.append(name)

    for _ in range(12):
        await admission.__aenter__()
    tasks = [asyncio.create_task(work(name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    with pytest.raises(ApiError, match="limit of 12"):
        await admission.__aenter__()
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    assert len(admission._waiting) == 2
    await admission.__aexit__()
    await asyncio.gather(tasks[0], tasks[2])
    assert order == ["a", "c"]
    assert (admission.running, len(admission._waiting)) == (11, 0)


async def test_admission_gives_back_a_place_handed_to_one_who_leaves() -> None:
    admission = ConcurrencyLimit(1)
    await admission.__aenter__()
    waiting = asyncio.create_task(admission.__aenter__())
    await asyncio.sleep(0)
    await admission.__aexit__()  # hands the place over
    waiting.cancel()  # in the same turn of the loop
    await asyncio.gather(waiting, return_exceptions=True)
    assert admission.running == 0


def test_settings_defaults_and_values() -> None:
    settings = read_settings({"COE_CONFIG": "", "COE_DATA_DIR": "d"})
    assert (settings.config_path, settings.host, settings.port) == (Path("experts.yaml"), "127.0.0.1", 8000)
    assert settings.database_url.get_secret_value() == "sqlite:///d/coe.db"
    assert settings.redis_url is None
    settings = read_settings({"REDIS_URL": "redis://:pass@h/0", "COE_API_KEYS": " a , b ,", "COE_PORT": "0"})
    assert settings.plain_keys == ("a", "b")
    assert "pass" not in repr(settings)


@pytest.mark.parametrize("port", ["-1", "70000", "http", "8 0"])
def test_bad_port(port: str) -> None:
    with pytest.raises(ConfigError, match=r"COE_PORT.*allowed: 0 to 65535"):
        read_settings({"COE_PORT": port})


def test_bad_log_level() -> None:
    with pytest.raises(ConfigError, match=r"COE_LOG_LEVEL='loud'.*allowed: critical"):
        read_settings({"COE_LOG_LEVEL": "loud"})


def test_only_named_secrets_are_read() -> None:
    config = parse_config(
        {
            "categories": {"red": "red", "general": "rest"},
            "experts": {"a": {"engine": "litellm", "model": "x/y", "api_key_env": "A_KEY"}},
            "router": {
                "encoder": {"kind": "concat", "parts": [{"kind": "openai", "options": {"api_key_env": "C_KEY"}}]},
                "classifier": {"kind": "logistic"},
            },
        }
    )
    assert read_secrets(config, {"A_KEY": "1", "B_KEY": "2", "C_KEY": "3"}) == {"A_KEY": "1", "C_KEY": "3"}
    assert read_secrets(config, {"A_KEY": ""}) == {}
