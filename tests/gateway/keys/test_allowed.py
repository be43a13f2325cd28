"""Keys that may use some experts and policies: what they see, and whom the router chooses among for them."""

from __future__ import annotations

import pytest

from coe.decision_log.replayed import decide_again
from coe.gateway.keys.grants import Caller
from coe.router.capabilities import NOT_ALLOWED, Capabilities
from coe.router.reading.features import from_bytes
from tests.gateway.keys.test_chat_limits import Known
from tests.gateway.running import faulty, running
from tests.gateway.small_router import small_router


def caller(*experts: str, policies: tuple[str, ...] | None = None) -> Caller:
    allowed = frozenset(experts) if experts else None
    return Caller("acme/1", False, allowed, None if policies is None else frozenset(policies))


async def test_models_are_those_that_a_key_may_use() -> None:
    async with running(auth=Known(caller("ruby", policies=("wild",)))) as gateway:
        async with gateway.client.get(f"{gateway.gateway.url}/models") as answer:
            assert [card["id"] for card in (await answer.json())["data"]] == ["auto:wild", "ruby"]
        for name, status in (("ruby", 200), ("auto:wild", 200), ("auto", 404), ("auto:default", 404), ("plain", 404)):
            async with gateway.client.get(f"{gateway.gateway.url}/models/{name}") as answer:
                assert answer.status == status, name
                body = await answer.text()
            assert "emerald" not in body
            async with gateway.chat("green", model=name) as answer:
                assert answer.status == status, name
                if status == 404:
                    error = (await answer.json())["error"]
                    assert (error["code"], error["param"]) == ("model_not_found", "model")
                    assert error["message"].endswith("allowed: auto:wild, ruby")


async def test_the_router_chooses_among_allowed_experts_with_their_probabilities() -> None:
    """Green asks go to emerald, which this key may not use, so the next best serves; red ones may explore."""
    seen = set()
    async with running(auth=Known(caller("ruby", "plain")), sections={"log": {"embeddings": True}}) as gateway:
        for number in range(30):
            ask = "red" if number % 2 else "green"
            async with gateway.chat(ask, model="auto:wild" if number else "auto") as answer:
                seen.add((ask, answer.headers["x-coe-expert"]))
            record = await gateway.record(number)
            decision, inputs = record.decision, record.inputs
            assert decision
            assert inputs
            assert record.embedding
            assert decision.eligible == ("ruby", "plain")
            assert sum(decision.eligible_probs) == pytest.approx(1)
            assert decision.propensity == decision.eligible_probs[decision.eligible.index(decision.expert)]
            assert decision.excluded == {"emerald": NOT_ALLOWED}
            assert inputs.facts.allowed == ("plain", "ruby")
            assert "emerald" not in decision.ranking
            again = decide_again(small_router(), record, from_bytes(record.embedding)[None])
            assert decision == again, "replay makes it again for that key"
        async with gateway.client.post(f"{gateway.gateway.url}/route", json={"text": "green"}) as answer:
            assert (await answer.json())["decision"]["expert"] == "plain"
    assert seen - {("red", "plain")} == {("green", "plain"), ("red", "ruby")}


async def test_a_failover_stays_among_allowed_experts() -> None:
    async with (
        faulty("unavailable", auth=Known(caller("ruby", "emerald")), retries=2) as (gateway, _),
        gateway.chat("red") as answer,
    ):
        assert answer.status == 200
        assert answer.headers["x-coe-expert"] == "emerald"


async def test_a_request_that_no_allowed_expert_can_serve_says_so() -> None:
    sees = {
        name: Capabilities(context_tokens=4096, supports=frozenset({"images"} if name == "emerald" else ()))
        for name in ("ruby", "plain", "emerald")
    }
    image = [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    entries = {"emerald": {"supports": ["images", "json"]}}
    async with (
        running(
            router=small_router(capabilities=sees), entries=entries, auth=Known(caller("ruby", "plain"))
        ) as gateway,
        gateway.chat(messages=[{"role": "user", "content": image}]) as answer,
    ):
        error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (400, "unsupported_by_experts")
    assert f"emerald {NOT_ALLOWED}" in error["message"] or f"emerald: {NOT_ALLOWED}" in error["message"]
