"""Before a router is trained, an expert that is named answers: that is how experts are measured."""

from __future__ import annotations

from tests.gateway.running import running


async def test_a_named_expert_answers_and_routing_does_not() -> None:
    async with running(has_router=False) as gateway:
        async with gateway.chat("red", model="ruby") as answer:
            assert answer.status == 200
            assert answer.headers["x-coe-expert"] == "ruby"
        record = await gateway.record()
        assert (record.decision.reason.value, record.decision.router_version) == ("explicit", "none")
        async with gateway.chat("red") as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await answer.json())["error"]["code"] == "not_ready"


async def test_a_named_expert_that_cannot_see_says_so_without_a_router() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    async with running(has_router=False) as gateway:
        body = {"model": "ruby", "messages": [{"role": "user", "content": picture}]}
        async with gateway.client.post(f"{gateway.gateway.url}/chat/completions", json=body) as answer:
            assert answer.status == 400
            assert "ruby" in (await answer.json())["error"]["message"]
