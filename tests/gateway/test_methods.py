"""Methods: HEAD is GET without its body, and a refusal says what a path takes."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from coe.retrieval.stores.files import new_id
from tests.gateway.retrieval.serving import serving
from tests.gateway.running import Running, running


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/auto", "/openapi.json"])
async def test_head_is_get_without_its_body(gateway: Running, path: str) -> None:
    async with gateway.client.get(gateway.root + path, headers={"x-request-id": "mine"}) as got:
        content = await got.read()
    assert got.headers.getall("x-request-id") == ["mine"]
    for _ in range(2):  # and the connection goes on
        async with gateway.client.head(gateway.root + path) as answer:
            assert (answer.status, await answer.read()) == (got.status, b"")
            assert answer.headers["content-type"] == got.headers["content-type"]
            if path != "/metrics":  # which counts what was asked before
                assert int(answer.headers["content-length"]) == len(content)


REFUSED = (
    ("DELETE", "/v1/models", "HEAD, GET"),
    ("GET", "/v1/feedback", "POST"),
    ("HEAD", "/v1/feedback", "POST"),
    ("PUT", "/v1/feedback", "POST"),
    ("PUT", "/v1/vector_stores", "HEAD, GET, POST"),
    ("PATCH", "/v1/vector_stores/vs_1", "HEAD, GET, POST, DELETE"),
    ("DELETE", "/v1/chat/completions", "POST"),
    ("POST", "/", "HEAD, GET"),
)


@pytest.mark.parametrize(("method", "path", "allowed"), REFUSED)
async def test_a_refusal_names_every_method_of_the_path(method: str, path: str, allowed: str) -> None:
    async with running() as gateway, gateway.client.request(method, gateway.root + path) as answer:
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        if method != "HEAD":
            error = (await answer.json())["error"]
            assert error["code"] == "method_not_allowed"
            assert error["message"] == f"method {method} is not allowed here; allowed: {allowed}"


@pytest.mark.parametrize(("path", "hint"), [("/chat/completions", True), ("/v1/chat/completion", False)])
async def test_a_path_beside_the_api_is_told_where_that_is(gateway: Running, path: str, hint: bool) -> None:
    async with gateway.client.post(gateway.root + path, json={}) as answer:
        message = (await answer.json())["error"]["message"]
    assert (answer.status, message.startswith(f"there is no {path} here")) == (404, True)
    assert ("the API is below /v1" in message) is hint


async def test_a_file_for_an_endpoint_that_is_not_there_is_404(gateway: Running) -> None:
    form = aiohttp.FormData({"model": "whisper-1"})
    form.add_field("file", b"RIFF", filename="a.wav")
    async with gateway.client.post(f"{gateway.gateway.url}/audio/transcriptions", data=form) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")
        assert answer.headers["x-request-id"].startswith("req-")
    form = aiohttp.FormData({"decision_id": "dec-1"})
    form.add_field("file", b"RIFF", filename="a.wav")
    async with gateway.client.post(f"{gateway.gateway.url}/feedback", data=form) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_value")


async def test_head_of_a_file_does_not_send_it(tmp_path: Path) -> None:
    async with serving(tmp_path, keys=["my-very-secret-key-1"]) as gateway:
        async with gateway.openai("my-very-secret-key-1") as client:
            file = await client.files.create(file=("a.txt", b"x" * 1000), purpose="assistants")
        headers = {"authorization": "Bearer my-very-secret-key-1"}
        async with gateway.http.head(f"{gateway.url}/files/{file.id}/content", headers=headers) as answer:
            assert (answer.status, answer.headers["content-length"], await answer.read()) == (200, "1000", b"")
        async with gateway.http.head(f"{gateway.url}/files/{new_id('file')}", headers=headers) as answer:
            assert answer.status == 404
        async with gateway.http.head(f"{gateway.url}/files/{file.id}") as answer:
            assert answer.status == 401
