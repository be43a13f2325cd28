"""Tokens, cost and time of answers in /metrics are those of the decision log."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.fault_upstream import ANSWER
from tests.gateway.running import Running, faulty, running


async def metrics_of_ruby(gateway: Running) -> dict[tuple[str, str | None], float]:
    """Values by name and type."""
    async with gateway.client.get(f"{gateway.root}/metrics") as answer:
        families = list(text_string_to_metric_families(await answer.text()))
    samples = (sample for family in families for sample in family.samples if sample.labels.get("expert") == "ruby")
    return {(sample.name, sample.labels.get("type")): sample.value for sample in samples}


async def test_metrics_add_up_what_the_log_has() -> None:
    priced = {"price": {"input": 2.0, "output": 8.0}}
    async with running(entries={"ruby": priced}) as gateway:
        for number in range(3):
            async with gateway.chat("red and red" * (number + 1), stream=number == 1) as answer:
                await answer.read()
            await gateway.record(number)
        async with gateway.chat("green", model="nobody"):
            pass
        found = await metrics_of_ruby(gateway)
    records = gateway.log.records[:3]
    assert {record.served_expert for record in records} == {"ruby"}
    assert found["coe_tokens_total", "input"] == sum(record.usage.prompt_tokens for record in records) > 0
    assert found["coe_tokens_total", "output"] == sum(record.usage.completion_tokens for record in records) > 0
    assert found["coe_cost_usd_total", None] == pytest.approx(sum(record.cost_usd for record in records))
    assert found["coe_answer_seconds_total", None] == pytest.approx(sum(record.latency_ms for record in records) / 1e3)


async def test_cached_prompt_tokens_are_of_a_type_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    details = {"cached_tokens": 60, "cache_write_tokens": 30}
    usage = {"prompt_tokens": 100, "completion_tokens": 9, "prompt_tokens_details": details}
    monkeypatch.setitem(ANSWER, "usage", usage)
    async with faulty() as (gateway, _):
        for number in range(2):
            async with gateway.chat("red", model="ruby") as answer:
                assert answer.status == 200
            await gateway.record(number)
        found = await metrics_of_ruby(gateway)
    tokens = {kind: value for (name, kind), value in found.items() if name == "coe_tokens_total"}
    assert tokens == {"input": 20, "cache_read": 120, "cache_write": 60, "output": 18}
