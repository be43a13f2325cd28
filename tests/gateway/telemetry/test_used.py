"""Tokens, cost and time of answers in /metrics are those of the decision log."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.running import running


async def test_metrics_add_up_what_the_log_has() -> None:
    priced = {"price_in_per_m_usd": 2.0, "price_out_per_m_usd": 8.0}
    async with running(entries={"ruby": priced}) as gateway:
        for number in range(3):
            async with gateway.chat("red and red" * (number + 1), stream=number == 1) as answer:
                await answer.read()
            await gateway.record(number)
        async with gateway.chat("green", model="nobody"):
            pass
        async with gateway.client.get(f"{gateway.root}/metrics") as answer:
            families = list(text_string_to_metric_families(await answer.text()))
    found = {
        (sample.name, sample.labels.get("type")): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("expert") == "ruby"
    }
    records = gateway.log.records[:3]
    assert {record.served_expert for record in records} == {"ruby"}
    assert found["coe_tokens_total", "input"] == sum(record.usage.prompt_tokens for record in records) > 0
    assert found["coe_tokens_total", "output"] == sum(record.usage.completion_tokens for record in records) > 0
    assert found["coe_cost_usd_total", None] == pytest.approx(sum(record.cost_usd for record in records))
    assert found["coe_answer_seconds_total", None] == pytest.approx(sum(record.latency_ms for record in records) / 1e3)
