"""Experts that compress their answers, though the gateway asks them not to."""

from __future__ import annotations

import gzip
import json

import pytest
from aiohttp import web

from coe.fleet.calls.backend import MAX_ANSWER_BYTES
from tests.gateway.fault_upstream import ANSWER, STREAM
from tests.gateway.running import echoes, provider, running
from tests.served_app import app_of, serving


def packing(body: bytes, content_type: str) -> web.Application:
    """An expert that answers each chat with this, packed."""

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["accept-encoding"] == "identity"
        headers = {"content-encoding": "gzip", "content-type": content_type}
        return web.Response(body=gzip.compress(body), headers=headers)

    return app_of({"POST /v1/chat/completions": answer})


@pytest.mark.parametrize("is_stream", [False, True])
async def test_clients_get_it_unpacked_and_it_is_counted(is_stream: bool) -> None:
    body, kind = (STREAM, "text/event-stream") if is_stream else (json.dumps(ANSWER).encode(), "application/json")
    async with (
        serving(packing(body, kind)) as url,
        running(echoes(ruby=provider(f"{url}/v1"))) as gateway,
        gateway.chat("red", stream=is_stream) as answer,
    ):
        assert "content-encoding" not in answer.headers
        assert (answer.status, await answer.read()) == (200, body)
        record = await gateway.record()
    assert (record.served_expert, record.usage.completion_tokens) == ("ruby", 2)


async def test_a_few_bytes_that_unpack_to_too_many_are_no_answer() -> None:
    async with (
        serving(packing(b" " * (MAX_ANSWER_BYTES + 1), "application/json")) as url,
        running(echoes(ruby=provider(f"{url}/v1"))) as gateway,
        gateway.chat("red", model="ruby") as answer,
    ):
        assert answer.status == 502
        assert str(MAX_ANSWER_BYTES) in (await answer.json())["error"]["message"]
