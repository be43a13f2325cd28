"""COE_LOG_FORMAT=json: an object a line, one of them for each request, and nothing of what was asked or answered."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from functools import partial
from pathlib import Path

import aiohttp

from coe.fleet.processes.program_log import JsonFormatter
from tests.gateway.served import end_gateway, start_gateway
from tests.training.trained_folder import EXPERTS, make_trained

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "mine-1"}


async def test_each_request_is_a_line(tmp_path: Path) -> None:
    make_trained(tmp_path)
    start = partial(start_gateway, tmp_path / "experts.yaml", tmp_path / "data", COE_LOG_FORMAT="json")
    process, url = await asyncio.to_thread(start)
    decisions = list[str | None]()
    try:
        async with aiohttp.ClientSession(headers=HEADERS) as client:
            for model in ("auto", "nobody"):
                body = {"model": model, "messages": [{"role": "user", "content": "my secret is xyzzy"}]}
                async with client.post(f"{url}/chat/completions", json=body) as answer:
                    decisions.append(answer.headers.get("x-coe-decision-id"))
            async with client.get(f"{url}/models"), client.get(f"{url.removesuffix('/v1')}/healthz"):
                pass
    finally:
        written = await asyncio.to_thread(end_gateway, process, signal.SIGTERM)
    lines = [json.loads(line) for line in written.splitlines()]
    routed, refused, models = [line for line in lines if line["logger"] == "coe.requests"]
    expected = {
        "level": "info",
        "message": "request",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "request_id": "mine-1",
        "decision_id": decisions[0],
        "trace_id": TRACE,
        "state": "answered",
    }
    assert expected.items() <= routed.items(), routed
    assert routed["expert"] in EXPERTS
    assert routed["latency_ms"] > 0
    assert routed["output_tokens"] > 0
    assert (refused["status"], refused["error"], refused["request_id"]) == (404, "model_not_found", "mine-1")
    assert (models["path"], models["status"], models["method"]) == ("/v1/models", 200, "GET")
    assert "xyzzy" not in written


def test_a_line_is_an_object_whatever_it_says() -> None:
    record = logging.LogRecord("a", logging.WARNING, "", 0, "a\n%s\x1b[31m", ("b",), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "\x1b" not in line
    assert json.loads(line)["message"] == "a\nb\x1b[31m"
