"""Traces as a collector gets them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.gateway.fault_upstream import FaultUpstream, fault_upstream
from tests.gateway.retrieval.serving import serving
from tests.gateway.running import Running, echoes, provider, running
from tests.gateway.served import end_gateway, start_gateway
from tests.gateway.telemetry.collector import Collector, collecting, environment, exporting_to
from tests.gateway.test_answer_cache import asked, composition
from tests.training.trained_folder import EXPERTS, make_trained

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=x"}
ENTRIES = {"ruby": {"engine": "vllm", "url": "http://127.0.0.1:1/v1", "model": "ruby-7b"}}
SECRET = "red, and my secret is xyzzy"


@asynccontextmanager
async def traced(
    monkeypatch: pytest.MonkeyPatch, mode: str = "ok", **options: object
) -> AsyncIterator[tuple[Running, Collector, FaultUpstream]]:
    """A gateway whose expert `ruby` is an upstream of that mode, with a collector."""
    async with (
        collecting() as collector,
        fault_upstream(mode) as upstream,
        exporting_to(collector.url, monkeypatch) as telemetry,
        running(echoes(ruby=provider(upstream.url)), entries=ENTRIES, telemetry=telemetry, **options) as gateway,
    ):
        yield gateway, collector, upstream


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_chat_is_a_span_with_a_child_for_its_expert(is_stream: bool, monkeypatch) -> None:
    async with traced(monkeypatch, "usage" if is_stream else "ok") as (gateway, collector, upstream):
        async with gateway.chat(SECRET, headers=CONTEXT, stream=is_stream, temperature=0.5) as answer:
            await answer.read()
            given = answer.headers
        server, call = await collector.wait(2)
        assert (server.kind, server.name, call.kind, call.name) == (
            "SERVER",
            "POST /v1/chat/completions",
            "CLIENT",
            "chat ruby-7b",
        )
        assert (server.trace_id, server.parent_id) == (TRACE, PARENT)
        assert (call.trace_id, call.parent_id) == (TRACE, server.span_id)
        sent = upstream.headers[0]
        assert sent["traceparent"] == f"00-{TRACE}-{call.span_id}-01"
        assert sent["tracestate"] == "vendor=x"
        expected = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": "ruby-7b",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.response.model": "upstream-model",
            "gen_ai.response.id": given["x-coe-decision-id"],
            "gen_ai.response.finish_reasons": ["stop"],
            "coe.expert": "ruby",
            "coe.attempt": 1,
        }
        assert expected.items() <= call.attributes.items(), call.attributes
        assert call.attributes["gen_ai.usage.output_tokens"] > 0
        assert call.attributes["gen_ai.usage.cache_read.input_tokens"] == 0
        assert ("gen_ai.response.time_to_first_chunk" in call.attributes) == is_stream
        assert call.attributes.get("gen_ai.request.stream", False) == is_stream
        decided = {
            "coe.category": "red",
            "coe.policy": "default",
            "coe.reason": "map",
            "coe.expert": "ruby",
            "coe.decision.id": given["x-coe-decision-id"],
            "http.response.status_code": 200,
            "gen_ai.request.model": "auto",
        }
        assert decided.items() <= server.attributes.items(), server.attributes
        assert 0 <= server.attributes["coe.doubt"] <= 1
        assert (server.status, call.status, server.events, call.events) == (0, 0, 0, 0)
        assert server.seconds >= call.seconds > 0
        record = await gateway.record()
        assert record.decision_id == given["x-coe-decision-id"]
        assert not any(b"xyzzy" in body for body in collector.raw)


async def test_a_request_without_context_begins_a_trace(monkeypatch) -> None:
    async with traced(monkeypatch) as (gateway, collector, upstream):
        async with gateway.chat("red", headers={"traceparent": "00-0-0-nonsense"}) as answer:
            assert answer.status == 200
        server, call = await collector.wait(2)
    assert (server.parent_id, call.trace_id) == ("", server.trace_id)
    assert upstream.headers[0]["traceparent"].split("-")[1] == server.trace_id


async def test_what_a_client_does_not_sample_goes_on_with_its_context_and_is_not_exported(monkeypatch) -> None:
    async with traced(monkeypatch) as (gateway, collector, upstream):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        async with gateway.chat("red", headers=headers):
            pass
        async with gateway.chat("red"):
            pass
        spans = await collector.wait(2)
    assert {span.trace_id for span in spans}.isdisjoint({TRACE})
    assert upstream.headers[0]["traceparent"].startswith(f"00-{TRACE}-"), upstream.headers
    assert upstream.headers[0]["traceparent"].endswith("-00"), upstream.headers


async def test_two_attempts_are_two_children_and_the_first_says_why_it_failed(monkeypatch) -> None:
    async with traced(monkeypatch, "unavailable") as (gateway, collector, _):
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-fallback"] == "failover:ruby"
        server, first, second = await collector.wait(3)
    assert (first.parent_id, second.parent_id) == (server.span_id, server.span_id)
    assert (first.attributes["error.type"], first.status) == ("loading", 2)
    assert (second.attributes["coe.attempt"], second.status) == (2, 0)
    assert "error.type" not in second.attributes
    assert {first.attributes["gen_ai.response.id"] for first in (second, server)} == {
        answer.headers["x-coe-decision-id"]
    }
    assert server.attributes["coe.expert"] == second.attributes["coe.expert"] != "ruby"


@pytest.mark.parametrize(("mode", "status", "error"), [("fault", 500, "boom"), ("cut", 200, "expert_broken_answer")])
async def test_an_expert_that_fails_is_an_error_on_both(mode: str, status: int, error: str, monkeypatch) -> None:
    async with traced(monkeypatch, mode, retries=0) as (gateway, collector, _):
        async with gateway.chat(SECRET, stream=True) as answer:
            assert answer.status == status
            await answer.read()
        server, call = await collector.wait(2)
        assert (server.attributes["error.type"], call.attributes["error.type"]) == (error, error)
        assert call.status == 2
        assert (call.message, call.events) == ("", 0)
        assert server.attributes["http.response.status_code"] == status
        assert not any(b"xyzzy" in body for body in collector.raw)


async def test_a_client_that_leaves_ends_its_spans(monkeypatch) -> None:
    async with traced(monkeypatch, "endless") as (gateway, collector, _):
        answer = await gateway.chat("red", stream=True)
        await answer.content.readany()
        answer.close()
        server, call = await collector.wait(2)
    assert (server.attributes["error.type"], call.attributes["error.type"]) == ("client_gone", "client_gone")
    assert server.attributes["coe.state"] == "client_gone"


async def test_requests_that_are_refused_have_a_span_too_and_probes_of_health_none(monkeypatch) -> None:
    async with traced(monkeypatch, keys=["a-key-of-the-tests-1234"]) as (gateway, collector, _):
        for path in ("healthz", "readyz", "metrics"):
            async with gateway.client.get(f"{gateway.root}/{path}"):
                pass
        async with gateway.client.get(f"{gateway.gateway.url}/decisions/{SECRET}") as answer:
            assert answer.status == 401
        (server,) = await collector.wait(1)
    assert server.name == "GET /v1/decisions"
    assert server.attributes["http.response.status_code"] == 401
    assert not any(b"xyzzy" in body for body in collector.raw)


async def test_what_a_cache_answers_has_no_call(monkeypatch, redis_url: str) -> None:
    async with (
        collecting() as collector,
        exporting_to(collector.url, monkeypatch) as telemetry,
        composition(redis_url, telemetry=telemetry) as gateway,
    ):
        await asked(gateway)
        assert (await asked(gateway))[0] == "kept"
        spans = await collector.wait(3)
    assert [(span.kind, span.attributes["coe.expert"]) for span in spans] == [
        ("SERVER", "ruby"),
        ("SERVER", "ruby"),
        ("CLIENT", "ruby"),
    ]


async def test_retrieval_is_a_child_of_the_request_that_asked_for_it(tmp_path: Path, monkeypatch) -> None:
    async with serving(tmp_path) as gateway:
        store_id = await gateway.store_of({"red.txt": "Red paint dries in two hours."})
    async with (
        collecting() as collector,
        exporting_to(collector.url, monkeypatch) as telemetry,
        serving(tmp_path, telemetry=telemetry) as gateway,
    ):
        body = {"model": "auto", "input": SECRET}
        async with gateway.http.post(f"{gateway.url}/embeddings", json=body) as answer:
            assert answer.status == 200
        await collector.wait(2)
        status, _, _ = await gateway.search(store_id, SECRET, model="base")
        assert status == 200
        await collector.wait(4)
    by_name = {span.name.replace(store_id, "STORE"): span for span in collector.spans}
    embeddings, search = by_name["embeddings auto"], by_name["retrieval STORE"]
    assert embeddings.parent_id == by_name["POST /v1/embeddings"].span_id
    assert (
        search.parent_id == next(each for name, each in by_name.items() if name.startswith("POST /v1/vector")).span_id
    )
    assert (embeddings.kind, search.kind) == ("INTERNAL", "INTERNAL")
    assert search.attributes["gen_ai.data_source.id"] == store_id
    assert search.attributes["coe.expert"] == "base"
    assert not any(b"xyzzy" in body for body in collector.raw)


@pytest.mark.slow
async def test_a_real_gateway_exports_what_it_asked(tmp_path: Path) -> None:
    make_trained(tmp_path)
    async with collecting() as collector, fault_upstream() as upstream:
        values = yaml.safe_load((tmp_path / "experts.yaml").read_text())
        values["experts"] = {name: {"engine": "vllm", "url": upstream.url, "model": name} for name in EXPERTS}
        (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
        variables = environment(collector.url)
        start = partial(start_gateway, tmp_path / "experts.yaml", tmp_path / "data", **variables)
        process, url = await asyncio.to_thread(start)
        try:
            async with aiohttp.ClientSession() as client:
                body = {"model": "auto", "messages": [{"role": "user", "content": SECRET}]}
                for _ in range(3):
                    async with client.post(f"{url.rstrip(',')}/chat/completions", json=body) as answer:
                        assert answer.status == 200
        finally:
            written = await asyncio.to_thread(end_gateway, process, signal.SIGTERM)
    assert "Traceback" not in written
    assert len({span.instance for span in collector.spans}) == 1
    servers = {span.span_id for span in collector.spans if span.kind == "SERVER"}
    assert len(servers) == len(upstream.requests)
    assert servers == {span.parent_id for span in collector.spans if span.kind == "CLIENT"}
    assert not any(b"xyzzy" in body for body in collector.raw)
