"""litellm as a backend, against an upstream of our own; and litellm as a client of the gateway."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from coe.base.errors import BackendError
from coe.base.extras import MissingExtraError
from coe.base.json_text import MAX_VALUES
from coe.fleet.calls.backend import MAX_ERROR_BYTES, BackendRequest, is_spent, read_all
from coe.fleet.calls.connect import build_backends
from coe.fleet.providers.litellm import FORWARDED, Options, build, error_response, import_litellm
from coe.router import plugins
from coe.router.config.composition import parse_config
from tests.gateway.fault_upstream import delta, events, fault_upstream
from tests.gateway.running import running

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="the 'providers' extra is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning"),
]

CONFIG: dict[str, Any] = {
    "categories": {"red": "red", "general": "the rest"},
    "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
}
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
}
BODY: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def provider(url: str) -> AsyncIterator[Callable[[dict[str, Any]], Awaitable[tuple[int, bytes]]]]:
    """Asks a model of the provider at that address."""
    backend = build(Options(model="openai/some-model", api_key="expert-key", api_base=url))

    async def ask(body: dict[str, Any]) -> tuple[int, bytes]:
        response = await backend.send(BackendRequest(body, is_stream=bool(body.get("stream"))))
        return response.status, b"".join([chunk async for chunk in response.chunks])

    try:
        yield ask
    finally:
        await backend.aclose()


async def test_an_expert_that_is_closed_leaves_the_others_their_connections() -> None:
    async with fault_upstream("paced") as upstream:
        for _ in range(2):  # also those made after all were closed
            upstream.mode = "paced"
            upstream.gate.clear()
            upstream.arrived.clear()
            async with provider(upstream.url) as ask:
                asking = asyncio.create_task(ask({**BODY, "stream": True}))
                async with provider(upstream.url):
                    await upstream.arrived.wait()
                upstream.gate.set()
                status, text = await asking
                assert (status, text[-14:]) == (200, b"data: [DONE]\n\n")
                upstream.mode = "ok"
                assert (await ask(BODY))[0] == 200


async def test_answers_are_in_openais_form() -> None:
    async with fault_upstream() as upstream, provider(upstream.url) as ask:
        status, body = await ask(BODY)
        assert (status, orjson.loads(body)["choices"][0]["message"]["content"]) == (200, "hello")
        assert orjson.loads(body)["usage"]["prompt_tokens"] == 7
        _, stream = await ask({**BODY, "stream": True})
    events = stream.decode().split("\n\n")[:-1]
    assert events[-1] == "data: [DONE]"
    deltas = [orjson.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "hello"


async def test_clients_cannot_redirect_the_providers_key() -> None:
    async with fault_upstream() as upstream, fault_upstream() as thief, provider(upstream.url) as ask:
        hostile = {"api_base": thief.url, "base_url": thief.url, "api_key": "x", "custom_llm_provider": "azure"}
        status, _ = await ask({**BODY, **hostile})
    assert status == 200
    assert thief.requests == []
    assert upstream.headers[0]["authorization"] == "Bearer expert-key"
    assert not FORWARDED & hostile.keys()


async def test_two_deployments_of_a_provider_are_told_apart_by_address_and_settings() -> None:
    asked: list[tuple[str, str, str]] = []

    async def deployment(request: web.Request) -> web.Response:
        asked.append((request.match_info["name"], request.query["api-version"], request.headers["api-key"]))
        return web.json_response(ANSWER)

    app = web.Application()
    app.router.add_post("/openai/deployments/{name}/chat/completions", deployment)
    async with TestServer(app) as server:
        for region in ("east", "west"):
            entry = {"engine": "litellm", "model": f"azure/{region}", "url": str(server.make_url("")).rstrip("/")}
            values = CONFIG | {"experts": {"far": entry | {"params": {"api_version": f"2024-{region}"}}}}
            values["experts"]["far"]["api_key_env"] = "KEY"
            backend = build_backends(parse_config(values), {}, {}, {"KEY": region})["far"]
            response = await backend.send(BackendRequest(BODY, is_stream=False))
            assert (response.status, b"hello" in b"".join([chunk async for chunk in response.chunks])) == (200, True)
        await backend.aclose()
    assert asked == [("east", "2024-east", "east"), ("west", "2024-west", "west")]


def test_secret_settings_come_from_the_environment_and_are_not_shown() -> None:
    entry = {"engine": "litellm", "model": "bedrock/m", "params": {"aws_region_name": "eu"}}
    config = parse_config(CONFIG | {"experts": {"far": entry | {"params_env": {"aws_secret_access_key": "SECRET"}}}})
    backend: Any = build_backends(config, {}, {}, {"SECRET": "hush"})["far"]
    sent = backend._arguments(BackendRequest(BODY, is_stream=False))
    assert (sent["aws_region_name"], sent["aws_secret_access_key"]) == ("eu", "hush")
    assert "hush" not in repr(backend._options)


@pytest.mark.parametrize(("mode", "status"), [("busy", 429), ("too_long", 400), ("refuses_key", 401)])
async def test_refusals_keep_their_status(mode: str, status: int) -> None:
    async with fault_upstream(mode) as upstream, provider(upstream.url) as ask:
        found, body = await ask(BODY)
    assert found == status
    assert orjson.loads(body)["error"]["message"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("model", ["openai/some-model", "anthropic/some-model"])
async def test_refusals_are_those_of_the_provider_and_not_what_litellm_makes_of_them(
    model: str, is_stream: bool
) -> None:
    async with fault_upstream("spent") as upstream:
        root = upstream.url.removesuffix("" if model.startswith("openai") else "/v1")
        backend = build(Options(model=model, api_key="expert-key", api_base=root))
        response = await backend.send(BackendRequest(BODY, is_stream=is_stream))
        assert is_spent(response.status, await read_all(response.chunks, MAX_ERROR_BYTES))
        for upstream.mode, status in (("busy", 429), ("overloaded", 503)):
            response = await backend.send(BackendRequest(BODY, is_stream=is_stream))
            assert (response.status, response.headers["retry-after"]) == (status, "7")
        await backend.aclose()


async def test_an_error_of_any_shape_can_be_written() -> None:
    deep: Any = []
    for _ in range(251):
        deep = [deep]
    error: Any = openai.OpenAIError("refused")
    error.code, error.param = [deep] * 120, deep
    response = error_response(error)
    body = b"".join([chunk async for chunk in response.chunks])
    assert {orjson.loads(body)["error"][name] for name in ("code", "param")} == {None}


async def test_a_prompt_that_is_too_long_has_the_code_that_clients_know() -> None:
    from litellm.exceptions import ContextWindowExceededError

    response = error_response(ContextWindowExceededError("too long", "m", "anthropic"))
    body = b"".join([chunk async for chunk in response.chunks])
    assert (response.status, orjson.loads(body)["error"]["code"]) == (400, "context_length_exceeded")


async def test_an_address_that_a_client_names_is_neither_fetched_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def get(request: web.Request) -> web.Response:
        raise AssertionError(f"{request.path} was fetched")

    server = TestServer(web.Application())
    server.app.router.add_get("/{path:.*}", get)
    await server.start_server()
    image = {"type": "image_url", "image_url": {"url": f"{server.make_url('/secret.png')}"}}
    backend = build(
        Options(model="anthropic/claude-sonnet-4-5", api_key="k", api_base="http://127.0.0.1:9", timeout_s=5.0)
    )
    try:
        answer = await backend.send(BackendRequest({"messages": [{"role": "user", "content": [image]}]}))
        assert answer.status == 400
    finally:
        await backend.aclose()
        await server.close()
    assert "secret.png" not in caplog.text


def test_neither_prices_nor_names_of_headers_come_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import_litellm()
    prices = importlib.import_module("litellm.litellm_core_utils.get_model_cost_map")
    headers = importlib.import_module("litellm.anthropic_beta_headers_manager")
    fetched: list[object] = []
    monkeypatch.setattr("httpx.get", lambda *asked, **_: fetched.append(asked))
    headers.reload_beta_headers_config()
    assert fetched == []
    assert prices.get_model_cost_map_source_info()["is_env_forced"], "it looked for newer prices as it was imported"


async def test_a_ring_of_causes_has_an_end() -> None:
    outer, inner = openai.OpenAIError("refused"), ValueError()
    outer.__cause__, inner.__context__ = inner, outer
    assert error_response(outer).status == 502


async def test_an_answer_that_was_refused_here_is_told_as_such() -> None:
    outer = openai.OpenAIError("an unexpected error")
    outer.__context__ = BackendError("a line is larger than a line may be", status=502)
    with pytest.raises(BackendError, match="larger than a line may be"):
        error_response(outer)


async def test_a_stream_that_was_refused_here_is_told_as_such() -> None:
    large = events(delta("hello"), b"[" + b"0," * MAX_VALUES + b"0]")
    async with fault_upstream("dies") as upstream, provider(upstream.url) as ask:
        upstream.lead = (large,)
        with pytest.raises(BackendError, match=f"holds more than {MAX_VALUES} values"):
            await ask({**BODY, "stream": True})


async def test_nobody_there() -> None:
    async with provider("http://127.0.0.1:1/v1") as ask:
        with pytest.raises(BackendError, match="cannot be reached"):
            await ask(BODY)


def test_without_litellm_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.base.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[providers\]'"):
        plugins.build("fleet.providers", "litellm", {"model": "provider/m"})


async def test_litellm_as_client() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litellm
        from litellm.exceptions import NotFoundError
        from litellm.llms.custom_httpx.async_client_cleanup import close_litellm_async_clients

    async with running() as gateway:
        arguments: dict[str, Any] = {
            "model": "openai/auto",
            "api_base": gateway.gateway.url,
            "api_key": "unused",
            "messages": [{"role": "user", "content": "a green ask"}],
        }
        whole = await litellm.acompletion(**arguments)
        assert (whole.model, whole.choices[0].message.content) == ("emerald", "a green ask")
        texts = [
            chunk.choices[0].delta.content or "" async for chunk in await litellm.acompletion(**arguments, stream=True)
        ]
        assert "".join(texts) == "a green ask"
        with pytest.raises(NotFoundError):
            await litellm.acompletion(**{**arguments, "model": "openai/nobody"})
        await close_litellm_async_clients()
