"""The gateway's own endpoints, and the clients people use."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import openai
import pytest

from coe.base.errors import ArtifactError
from coe.fleet.calls.connect import DisabledBackend
from coe.fleet.providers import echo
from coe.router.pipeline import Router
from coe.router.reading.features import features_hash, to_bytes
from coe.router.types import Query
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import Running, faulty, provider, running
from tests.gateway.small_router import small_router
from tests.waiting import DEADLINE_S, until


async def get(gateway: Running, path: str) -> tuple[int, dict]:
    async with gateway.client.get(gateway.root + path) as answer:
        return answer.status, await answer.json()


async def post(gateway: Running, path: str, body: object) -> tuple[int, dict]:
    async with gateway.client.post(gateway.root + path, json=body) as answer:
        return answer.status, await answer.json()


async def test_metrics_come_while_a_database_hangs(gateway: Running) -> None:
    """All threads that wait for it are taken."""
    is_back = threading.Event()
    waiting = [asyncio.create_task(asyncio.to_thread(is_back.wait)) for _ in range(64)]
    try:
        async with asyncio.timeout(DEADLINE_S), gateway.client.get(f"{gateway.root}/metrics") as answer:
            assert answer.status == 200
    finally:
        is_back.set()
        await asyncio.gather(*waiting)


async def test_models_lists_routing_policies_and_experts(gateway: Running) -> None:
    _, listed = await get(gateway, "/v1/models")
    found = {card["id"]: card["owned_by"] for card in listed["data"]}
    assert found == {
        "auto": "coe",
        "auto:default": "coe-policy",
        "auto:wild": "coe-policy",
        "ruby": "echo",
        "emerald": "echo",
        "plain": "echo",
    }
    assert (await get(gateway, "/v1/models/auto:wild"))[1]["id"] == "auto:wild"
    status, unknown = await get(gateway, "/v1/models/nobody")
    assert (status, unknown["error"]["message"].split("; allowed: ")[1]) == (404, ", ".join(sorted(found)))
    assert await get(gateway, "/v1/models/") == await get(gateway, "/v1/models")


async def test_policies_and_names_in_model(gateway: Running) -> None:
    async with gateway.chat("red", model="emerald") as answer:
        assert answer.headers["x-coe-expert"] == "emerald"
    assert (await gateway.record()).decision.reason.value == "explicit"
    experts = set()
    for _ in range(30):
        async with gateway.chat("red", model="auto:wild") as answer:
            experts.add(answer.headers["x-coe-expert"])
    assert experts == {"ruby", "emerald", "plain"}
    assert 0.2 < (await gateway.record(5)).decision.propensity < 0.5


async def test_uncertain_queries_fall_back_to_general(gateway: Running) -> None:
    async with gateway.chat("neither colour") as answer:
        assert answer.headers["x-coe-category"] == "general"
        assert answer.headers["x-coe-expert"] == "plain"
        assert answer.headers["x-coe-fallback"] == "uncertain"
    async with gateway.chat("green", headers={"x-coe-debug": "1"}) as answer:
        assert "x-coe-fallback" not in answer.headers
        assert answer.headers["x-coe-eligible"] == "ruby, emerald, plain"
        assert "emerald=0.9000" in answer.headers["x-coe-predicted-quality"]
        assert answer.headers["x-coe-schema"] == "1"
        assert float(answer.headers["x-coe-overhead-ms"]) > 0


async def test_slow_encoders_run_off_the_event_loop() -> None:
    async with running(router=small_router(is_inline=False)) as gateway, gateway.chat("green") as answer:
        assert answer.headers["x-coe-expert"] == "emerald"


async def test_route_is_a_dry_run(gateway: Running) -> None:
    status, answer = await post(gateway, "/v1/route", {"text": "green"})
    assert (status, answer["decision"]["expert"]) == (200, "emerald")
    assert "green" in answer["why"]
    assert answer["read_from"]["text"] == "green"
    assert list(answer["read_from"]["words"]) == ["green"]
    _, answer = await post(gateway, "/v1/route", {"text": "green", "model": "ruby"})
    assert answer["read_from"] is None
    messages = [{"role": "user", "content": "red"}]
    _, answer = await post(gateway, "/v1/route", {"messages": messages, "model": "auto:default"})
    assert answer["decision"]["expert"] == "ruby"
    assert (await post(gateway, "/v1/route", {"text": "red", "messages": messages}))[0] == 400
    assert (await post(gateway, "/v1/route", {"text": "red", "model": "nobody"}))[0] == 404
    assert gateway.log.records == []


async def test_receipt_and_feedback(gateway: Running) -> None:
    async with gateway.chat("green") as answer:
        decision_id = answer.headers["x-coe-decision-id"]
    await gateway.record()
    status, receipt = await get(gateway, f"/v1/decisions/{decision_id}")
    assert (status, receipt["record"]["decision"]["expert"]) == (200, "emerald")
    assert list(receipt["read_from"]["words"]) == ["green"]
    said = {"decision_id": decision_id, "kind": "thumb", "value": 1.0}
    accepted = {"decision_id": decision_id, "value": 1.0, "status": "accepted"}
    assert await post(gateway, "/v1/feedback", said) == (202, accepted)
    assert await post(gateway, "/v1/feedback", said) == (200, accepted | {"status": "repeated"})
    status, again = await post(gateway, "/v1/feedback", {**said, "value": 0.0})
    assert (status, again["status"]) == (200, "replaced")
    assert [kept.value for kept in gateway.store.feedback.values()] == [0.0]


def numbers_in(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from numbers_in(part)


async def test_a_receipt_says_everything_once_and_with_few_digits() -> None:
    """Facts that experts and categories hold are not in the record again; the log keeps every digit."""
    async with running() as gateway:
        async with gateway.chat("red", model="auto:wild") as answer:
            decision_id = answer.headers["x-coe-decision-id"]
        record = await gateway.record()
        _, receipt = await get(gateway, f"/v1/decisions/{decision_id}")
    decision = receipt["record"]["decision"]
    assert {each["expert"] for each in receipt["experts"]} == {"ruby", "emerald", "plain"}
    assert not {"eligible", "eligible_probs", "predicted_quality", "category_probs", "ranking"} & set(decision)
    assert [each["category"] for each in receipt["signals"]["categories"]] == ["red", "green"]
    probs = {each["expert"]: each["prob"] for each in receipt["experts"]}
    exact = dict(zip(record.decision.eligible, record.decision.eligible_probs, strict=True))
    assert probs == pytest.approx(exact, rel=1e-5)
    for number in numbers_in(receipt):
        assert number in (float(f"{number:.6g}"), round(number, 3)), number
    assert receipt["record"]["at"] == pytest.approx(record.at, abs=0.001)
    assert len(json.dumps(receipt)) < 2640


async def test_the_receipt_of_a_named_expert_keeps_its_decision() -> None:
    async with running() as gateway:
        async with gateway.chat("red", model="ruby") as answer:
            decision_id = answer.headers["x-coe-decision-id"]
        await gateway.record()
        _, receipt = await get(gateway, f"/v1/decisions/{decision_id}")
    assert (receipt["experts"], receipt["record"]["decision"]["eligible"]) == ([], ["ruby"])
    assert receipt["read_from"] is None


@pytest.mark.parametrize(("value", "is_probe"), [("1", True), ("0", False), (None, False)])
async def test_what_coe_asks_itself_is_marked_in_the_log(gateway: Running, value: str | None, is_probe: bool) -> None:
    async with gateway.chat("red", headers={} if value is None else {"x-coe-probe": value}) as answer:
        assert answer.status == 200
    assert (await gateway.record()).is_probe is is_probe


async def test_receipt_from_the_database_after_a_restart() -> None:
    async with running() as first:
        async with first.chat("green") as answer:
            decision_id = answer.headers["x-coe-decision-id"]
        record = await first.record()
    async with running() as second:
        second.store.decisions[decision_id] = record
        assert (await get(second, f"/v1/decisions/{decision_id}"))[1]["record"]["decision_id"] == decision_id


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"decision_id": "dec-unknown"}, 404, "decision_id"),
        ({"kind": "shout"}, 400, "kind"),
        ({"value": 2}, 400, "value"),
        ({"extra": 1}, 400, "extra"),
    ],
)
async def test_bad_feedback(gateway: Running, change: dict, status: int, param: str) -> None:
    async with gateway.chat("green") as answer:
        said = {"decision_id": answer.headers["x-coe-decision-id"], "kind": "thumb", "value": 1.0}
    await gateway.record()
    found, body = await post(gateway, "/v1/feedback", {**said, **change})
    assert (found, body["error"]["param"]) == (status, param)
    assert gateway.store.feedback == {}


async def test_readiness_says_what_is_missing(tmp_path: Path) -> None:
    backends = {name: provider("http://127.0.0.1:1/v1") for name in ("ruby", "emerald", "plain")}
    async with running(backends, has_router=False, routers=tmp_path) as gateway:
        assert (await get(gateway, "/healthz"))[0] == 200
        status, health = await get(gateway, "/readyz")
        assert status == 503
        assert any("no router" in reason for reason in health["missing"])
        assert any("no expert answers" in reason for reason in health["missing"])
    disabled = DisabledBackend("experts.ruby.api_key_env: environment variable RUBY_KEY is not set")
    async with running({"ruby": disabled, "emerald": echo.build(echo.Options()), "plain": disabled}) as gateway:
        status, health = await get(gateway, "/readyz")
        assert (status, health["experts_alive"], health["warnings"]) == (200, ["emerald"], [disabled.problem] * 2)
        async with gateway.chat("red", model="ruby") as answer:
            assert "reachable now (ruby has a fault that /v1/experts names)" in await answer.text()
    async with running() as gateway:
        status, health = await get(gateway, "/readyz")
        assert (status, health["router_version"]) == (200, "0123456789abcdef")
        assert (health["experts_alive"], health["warnings"]) == (["emerald", "plain", "ruby"], [])
        gateway.log.detour = "decisions wait in the spool"
        status, health = await get(gateway, "/readyz")
        assert (status, health["warnings"]) == (200, ["the decision log is degraded: decisions wait in the spool"])
        gateway.parts.is_stopping = True
        assert (await get(gateway, "/readyz"))[0] == 503


async def test_readiness_does_not_outlive_the_experts() -> None:
    """Without a single request every breaker stays closed, so readiness looks for itself."""
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        one = await first.enter_async_context(fault_upstream())
        other = await second.enter_async_context(fault_upstream())
        backends = {"ruby": provider(one.url), "emerald": provider(other.url), "plain": provider(other.url)}
        async with running(backends) as gateway:
            assert (await get(gateway, "/readyz"))[0] == 200
            await first.aclose()
            assert (await get(gateway, "/readyz"))[0] == 200
            await second.aclose()
            await until(lambda: is_unready(gateway))
            found = (await get(gateway, "/readyz"))[1]
            assert found["missing"] == ["no expert answers: ruby, emerald, plain"]
            assert found["experts_alive"] == []
            assert gateway.parts.pool.alive == set(backends), "the breakers heard nothing of it"


async def is_unready(gateway: Running) -> bool:
    return (await get(gateway, "/readyz"))[0] == 503


async def test_metrics_count_what_happened() -> None:
    async with faulty("answer_and_error") as (gateway, _):
        for text in ("green", "green", "red"):
            async with gateway.chat(text) as answer:
                await answer.read()
        await gateway.record(2)
        async with gateway.client.get(f"{gateway.root}/metrics") as answer:
            lines = (await answer.text()).splitlines()
    assert 'coe_requests_total{state="answered",status="200"} 2.0' in lines
    assert 'coe_requests_total{state="upstream_error",status="200"} 1.0' in lines
    assert 'coe_decisions_total{category="green",expert="emerald",reason="map"} 2.0' in lines
    assert "coe_overhead_seconds_count 3.0" in lines
    assert 'coe_ttft_seconds_count{expert="emerald"} 2.0' in lines
    assert "coe_log_appended_total 3.0" in lines
    assert 'coe_expert_state{expert="ruby",state="closed"} 1.0' in lines


async def test_a_promoted_router_is_swapped_in_and_a_bad_one_refused(tmp_path: Path) -> None:
    def load(folder: Path) -> Router:
        if folder.name.startswith("bad"):
            raise ArtifactError(f"{folder.name} is corrupt")
        return small_router(version=folder.name)

    def promote(version: str) -> None:
        (tmp_path / "next").write_text(json.dumps({"version": version, "promoted_at": "", "history": []}))
        (tmp_path / "next").rename(tmp_path / "live.json")  # a gateway that looked between two writes would try twice

    async with running(has_router=False, routers=tmp_path, load=load) as gateway:
        assert (await get(gateway, "/readyz"))[0] == 503
        promote("one")
        await until(lambda: gateway.parts.live.current is not None)
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-router-version"] == "one"
        promote("bad")
        await until(lambda: gateway.parts.live.refusals == 1)
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-router-version"] == "one"
        promote("two")
        await until(lambda: gateway.parts.live.loads == 2)
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-router-version"] == "two"
        assert gateway.parts.live.refusals == 1  # the bad one was tried once


async def test_openai_client() -> None:
    async with (
        faulty("usage") as (gateway, _),
        openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused", max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "a green ask"}]
        )
        assert (answer.model, answer.choices[0].message.content) == ("emerald", "a green ask")
        stream = await client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "red"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello"
        assert chunks[-1].usage.total_tokens == 14
        assert [model.id async for model in client.models.list()][:2] == ["auto", "auto:default"]
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "red"}])
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="auto", messages=[])


async def test_what_many_ask_is_answered_without_fastapi() -> None:
    asked = {"/healthz": 200, "/healthz/": 200, "/readyz": 200, "/metrics": 200, "/": 303, "/v1/nothing": 404}
    asked |= {"/v1/models": 200, "/v1/models/": 200, "/v1/models/auto": 200, "/v1/models/gpt-4o": 404}
    async with running() as gateway:
        for path, status in asked.items():
            assert (await gateway.client.get(gateway.root + path, allow_redirects=False)).status == status, path
        assert gateway.gateway.current.app._loading == {}


async def test_openapi_names_the_endpoints_and_docs_load_nothing_from_elsewhere(gateway: Running) -> None:
    _, schema = await get(gateway, "/openapi.json")
    assert {"/v1/route", "/v1/feedback", "/v1/decisions/{decision_id}"} <= schema["paths"].keys()
    described = {path: schema["paths"][path]["get"] for path in ("/healthz", "/metrics", "/v1/models/{name}")}
    assert [len(each.get("parameters", [])) for each in described.values()] == [0, 0, 1]
    assert described["/healthz"]["description"].startswith("Always ok")
    assert (await get(gateway, "/docs"))[0] == 404


async def test_the_log_has_what_a_decision_was_made_from(gateway: Running) -> None:
    async with gateway.chat("green", model="auto:wild") as answer:
        assert answer.status == 200
    async with gateway.chat("green", model="ruby") as answer:
        assert answer.status == 200
    wild, named = await gateway.record(0), await gateway.record(1)
    router = gateway.parts.live.current
    vector = router.embed("green")
    assert wild.inputs.encoder == "colours"
    assert wild.inputs.features == features_hash(to_bytes(vector), b"0" * 32)
    assert wild.inputs.settings == router.settings["wild"]
    assert wild.inputs.unreachable == ()
    assert wild.embedding == to_bytes(vector)
    again = router.decide(
        Query("q", "green", wild.inputs.facts),
        policy="wild",
        rng=np.random.default_rng(5),
        embedding=vector,
        seed=wild.decision.seed,
    )
    assert again == wild.decision
    assert (named.inputs, named.decision.seed, named.decision.propensity) == (None, None, 1.0)


@pytest.mark.parametrize("is_kept", [True, False])
async def test_the_log_keeps_embeddings_unless_it_is_told_not_to(is_kept: bool) -> None:
    async with running(sections={"log": {} if is_kept else {"embeddings": False}}) as gateway:
        async with gateway.chat("green") as answer:
            assert answer.status == 200
        kept = to_bytes(np.array([0.0, 1.0], np.float32)) if is_kept else None
        assert (await gateway.record()).embedding == kept
