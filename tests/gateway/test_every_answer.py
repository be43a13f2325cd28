"""Every answered request has its row in the log, and the price in it is that of its own tokens."""

from __future__ import annotations

import asyncio

import pytest

from coe.gateway.chat.log import cost_usd
from coe.router.config.expert import ExpertConfig
from coe.router.prices.usage import Usage
from tests.gateway.running import running
from tests.memory_log import MemoryLog
from tests.waiting import until

ASKS, CLIENTS = 3000, 24


@pytest.mark.parametrize("waits", [False, True])
async def test_of_some_thousand_answers_each_is_logged_once(waits: bool) -> None:
    """So many that one lost in a thousand is seen, whether answers wait for their row or not."""
    log = MemoryLog()
    log.is_durable = waits
    async with running(log=log) as gateway:
        ids: list[str] = []

        async def client(number: int) -> None:
            for _ in range(number, ASKS, CLIENTS):
                async with gateway.chat("red") as answer:
                    assert answer.status == 200
                    ids.append(answer.headers["x-coe-decision-id"])

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        await until(lambda: len(gateway.log.records) >= ASKS)
        assert sorted(record.decision_id for record in gateway.log.records) == sorted(ids)
        assert sorted(record.seq for record in gateway.log.records) == list(range(ASKS))


@pytest.mark.parametrize(("prompt", "completion", "usd"), [(1000, 10, 0.0065), (10, 1000, 0.35003), (0, 0, 0.0)])
def test_a_prompt_costs_the_price_of_input_and_an_answer_that_of_output(
    prompt: int, completion: int, usd: float
) -> None:
    prices = {"price": {"input": 3.0, "output": 350.0}}
    expert = ExpertConfig.model_validate({"engine": "litellm", "model": "x"} | prices)
    assert cost_usd(Usage(prompt_tokens=prompt, completion_tokens=completion), expert) == pytest.approx(usd)
    assert cost_usd(Usage(prompt_tokens=prompt, completion_tokens=completion), None) == 0.0


def test_a_line_of_a_batch_costs_what_batches_cost() -> None:
    prices = {
        "price": {"input": 3, "cache_read": 1.0},
        "price_above": {100: {"input": 6.0}},
        "price_batch": {"input": 1.5},
    }
    expert = ExpertConfig.model_validate({"engine": "litellm", "model": "x", **prices})
    usage = Usage(prompt_tokens=100, kinds={"cache_read": 40})
    assert cost_usd(usage, expert) == pytest.approx((40 * 1 + 60 * 3) / 1e6)
    assert cost_usd(usage, expert, is_batch=True) == pytest.approx((40 * 1 + 60 * 1.5) / 1e6)
    assert cost_usd(Usage(prompt_tokens=101), expert) == pytest.approx(101 * 6 / 1e6)
