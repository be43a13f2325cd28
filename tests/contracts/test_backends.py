"""Every chat backend: found by its file, built from its examples, and true to the protocol."""

from __future__ import annotations

import importlib.util

import pytest

from coe.base.errors import BackendError
from coe.fleet.calls.backend import BackendRequest, ChatBackend
from coe.router import plugins
from tests.contracts.examples import cases_of

FAMILY = "fleet.providers"
CASES = cases_of(FAMILY)


def build(kind: str, number: int) -> ChatBackend:
    if kind == "litellm" and importlib.util.find_spec("litellm") is None:
        pytest.skip("the 'providers' extra is not installed")
    plugin = plugins.load(FAMILY, kind)
    return plugin.build(plugin.EXAMPLES[number])


def test_the_kinds_there_are() -> None:
    assert {"echo", "litellm", "vllm"} <= set(plugins.kinds(FAMILY))


@pytest.mark.parametrize(("kind", "number"), CASES)
async def test_examples_build_without_any_connection(kind: str, number: int) -> None:
    backend = build(kind, number)
    assert isinstance(backend, ChatBackend)
    await backend.aclose()
    await backend.aclose()


@pytest.mark.parametrize("kind", [kind for kind in plugins.kinds(FAMILY) if kind != "litellm"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_or_a_backend_error(kind: str, is_stream: bool) -> None:
    """The examples' engines do not run here, so whatever needs one must say so in the project's own error."""
    backend = build(kind, 0)
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello there"}], "stream": is_stream}
    request = BackendRequest(body, is_stream=is_stream)
    try:
        if not await backend.is_alive():
            with pytest.raises(BackendError) as refused:
                await backend.send(request)
            assert refused.value.status in (502, 503, 504)
            return
        response = await backend.send(request)
        received = b"".join([chunk async for chunk in response.chunks])
        await response.chunks.aclose()
        assert b"hello" in received
        assert received.endswith(b"data: [DONE]\n\n") is is_stream
    finally:
        await backend.aclose()
