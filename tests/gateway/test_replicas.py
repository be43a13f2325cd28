"""Engines that serve one expert alike, behind two gateways."""

from __future__ import annotations

from fleet.replicas import ReplicatedBackend
from fleet.wires import echo
from tests.gateway.running import Running, echoes, running

URLS = ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1", "http://127.0.0.1:3/v1")


def replicated(most: int | None = 8) -> ReplicatedBackend:
    """An expert whose engines name themselves in their answers."""
    return ReplicatedBackend("ruby", {url: echo.build(echo.Options(model=url)) for url in URLS}, most)


async def engine_of(gateway: Running, number: int, turns: int) -> str:
    """The engine that answered a turn of a conversation."""
    messages = [{"role": "user", "content": f"red {number}"}]
    for turn in range(1, turns):
        messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": f"and {turn}?"}]
    body = {"model": "ruby", "messages": messages}
    async with gateway.client.post(f"{gateway.gateway.url}/chat/completions", json=body) as answer:
        assert answer.status == 200
        assert float(answer.headers["x-coe-queue-ms"]) >= 0
        url = str((await answer.json())["model"])
    decision = f"{gateway.gateway.url}/decisions/{answer.headers['x-coe-decision-id']}"
    async with gateway.client.get(decision) as receipt:
        assert URLS[(await receipt.json())["record"]["engine"] - 1] == url
    return url


async def test_a_conversation_has_one_engine_on_every_gateway_and_after_a_restart() -> None:
    async with running(echoes(ruby=replicated())) as one, running(echoes(ruby=replicated())) as other:
        first = [await engine_of(one, number, 1) for number in range(12)]
        second = [await engine_of(other, number, 2) for number in range(12)]
    async with running(echoes(ruby=replicated())) as again:
        third = [await engine_of(again, number, 3) for number in range(12)]
    assert first == second == third
    assert len(set(first)) == 3


async def test_without_a_limit_no_header_tells_of_a_queue() -> None:
    async with running(echoes(ruby=replicated(None))) as gateway, gateway.chat(model="ruby") as answer:
        assert answer.status == 200
        assert "x-coe-queue-ms" not in answer.headers
