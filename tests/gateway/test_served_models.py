"""A provider that answers with another model than before: told once, logged, counted, billed."""

from __future__ import annotations

import logging

import pytest

from coe.fleet.calls.backend import BackendRequest, BackendResponse, Unconnected
from coe.fleet.providers import echo
from coe.gateway.chat.log import ServedModels, priced
from coe.gateway.metrics import Metrics
from coe.router.config.expert import ExpertConfig
from coe.router.prices.price_list import entry_prices, price_entry
from tests.gateway.running import Running, echoes, running

OLD, NEW = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18"
ENTRY = {"engine": "litellm", "model": "openai/gpt-4o", "price": {"input": 2.5, "output": 10.0}}


class Redirecting(Unconnected):
    """A provider whose answers name a model that a test sets."""

    def __init__(self) -> None:
        self.model: str = OLD

    async def send(self, request: BackendRequest) -> BackendResponse:
        return await echo.build(echo.Options(model=self.model)).send(request)


async def ask(gateway: Running, number: int, *, is_stream: bool = False) -> tuple[str | None, float]:
    """The model that an answer named, and what it cost, as logged."""
    async with gateway.chat("red", stream=is_stream) as answer:
        assert answer.status == 200
        await answer.read()
    record = await gateway.record(number)
    return record.served_model, record.cost_usd


async def test_a_redirect_is_told_once_and_billed_at_the_price_of_what_serves(caplog) -> None:
    caplog.set_level(logging.WARNING, "coe.gateway.chat.log")
    backend = Redirecting()
    async with running(echoes(ruby=backend), entries={"ruby": ENTRY}) as gateway:
        first = [await ask(gateway, 0), await ask(gateway, 1, is_stream=True)]
        assert [model for model, _ in first] == [OLD, OLD]
        backend.model = NEW
        model, cost = await ask(gateway, 2)
        assert (model, cost) == (NEW, pytest.approx(first[0][1] * 0.06))  # 0.15 for 2.5, and 0.6 for 10
        assert (await ask(gateway, 3, is_stream=True))[0] == NEW
        metrics = gateway.parts.metrics.text().decode()
    assert 'coe_served_model_changes_total{expert="ruby"} 1.0' in metrics
    assert [record.getMessage() for record in caplog.records] == [
        f"expert ruby: its answers name model '{NEW}' where they named '{OLD}'; "
        "what was learned before no longer counts"
    ]


async def test_an_answer_that_names_no_model_says_nothing() -> None:
    served = ServedModels({"ruby": ExpertConfig.model_validate(ENTRY)}, Metrics())
    served.named("ruby", OLD)
    served.named("ruby", "gpt-4o")  # a piece of a stream, which names the alias
    assert served.now == {"ruby": OLD}
    assert served.entries["ruby"].price["input"] == 2.5


@pytest.mark.parametrize(
    ("asked", "served", "price"),
    [
        ("openai/gpt-4o", "gpt-4o-2024-11-20", 2.5),  # a snapshot of what was asked
        ("openai/gpt-4o", "gpt-4o-mini", 0.15),
        ("openai/gpt-4o", "something-nobody-lists", 2.5),
        ("azure/my-deployment", "gpt-4o-mini", 2.5),  # nobody knows what that price is of
    ],
)
def test_the_price_of_another_listed_model_is_that_of_the_table(asked: str, served: str, price: float) -> None:
    assert entry_prices(price_entry("openai/gpt-4o-mini"))["price"]["input"] == 0.15, "the table comes with litellm"
    entry = ExpertConfig.model_validate(ENTRY | {"model": asked})
    assert priced(entry, served).price["input"] == price


def test_a_model_that_costs_nothing_here_is_not_billed() -> None:
    free = ExpertConfig.model_validate({"engine": "echo", "model": "openai/gpt-4o"})
    assert priced(free, "gpt-4o-mini") == free
