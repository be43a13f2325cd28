"""Every provider that does not speak OpenAI's API, through litellm.

Importing litellm takes seconds and 200 MB, so it happens on the first request, in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar
from weakref import WeakSet

from pydantic import Field, JsonValue, SecretStr

from coe.base.errors import BackendError
from coe.base.json_text import MAX_VALUES, has_more_values, to_json
from coe.fleet.calls.backend import (
    MAX_ANSWER_VALUES,
    MAX_EVENT_BYTES,
    BackendRequest,
    BackendResponse,
    ChatBackend,
    Unconnected,
    WholeLines,
    chunks_of,
    visible_headers,
    with_params,
)
from coe.fleet.providers._post import Connections
from coe.router.config.gateway import field_names
from coe.router.section import HttpUrl, Section

FORWARDED = field_names(
    """
    messages temperature top_p n stream stream_options stop max_tokens max_completion_tokens presence_penalty
    frequency_penalty logit_bias user seed tools tool_choice parallel_tool_calls response_format logprobs
    top_logprobs reasoning_effort modalities audio prediction functions function_call
    """
)
"""The chat fields of OpenAI's API. litellm takes its own settings from the same place (`api_base`, `api_key`, ...), so
whatever else a client sends stays here: it could send the provider's key to an address of its choice."""

PIECE_BYTES = 4096
"""Of an answer, read between two turns of the event loop: at worst each byte is a line."""


E = TypeVar("E", bound=BaseException)


class Options(Section):
    """A model in litellm's notation."""

    model: str = Field(min_length=1, description="provider/model, e.g. anthropic/claude-sonnet-4-5")
    api_key: SecretStr | None = None
    api_base: HttpUrl | None = Field(default=None, description="another address of that provider")
    params: dict[str, JsonValue] = Field(
        default_factory=dict, repr=False, description="further arguments, e.g. api_version; may contain secrets"
    )
    timeout_s: float = Field(default=600.0, gt=0)


IMPORTS = ("litellm",)
EXAMPLES = (Options(model="anthropic/claude-sonnet-4-5"), Options(model="openai/gpt-4o-mini", timeout_s=30.0))


def build(options: Options) -> ChatBackend:
    return LitellmBackend(options)


class LitellmBackend(Unconnected):
    """One hosted model. It always counts as alive: hosted providers offer no probe that is free."""

    def __init__(self, options: Options) -> None:
        self._options = options
        OPEN.add(self)

    async def send(self, request: BackendRequest) -> BackendResponse:
        """Sends one request; see `ChatBackend.send`. Answers and errors are in OpenAI's form."""
        litellm = await asyncio.to_thread(import_litellm)
        import openai

        arguments, limit_s = self._arguments(request), min(self._options.timeout_s, request.timeout_s)
        try:
            async with asyncio.timeout(limit_s):  # litellm's own limit begins anew with every byte
                answer = await litellm.acompletion(**arguments)
        except TimeoutError as error:
            raise BackendError("the provider did not answer in time", status=504) from error
        except openai.OpenAIError as error:
            return error_response(error)
        if request.is_stream:
            return BackendResponse(200, stream_events(answer, request), {"content-type": "text/event-stream"})
        answer.id = f"chatcmpl-{request.request_id}"
        body = chunks_of([answer.model_dump_json(exclude_none=True).encode()])
        return BackendResponse(200, body, {"content-type": "application/json"})

    async def aclose(self) -> None:
        """Closes the connections that litellm shares among all models, with the last of them."""
        OPEN.discard(self)
        litellm = sys.modules.get("litellm")
        if litellm is not None and not OPEN:
            await litellm.close_litellm_async_clients()
            litellm.in_memory_llm_clients_cache.flush_cache()  # it would use the closed ones again

    def _arguments(self, request: BackendRequest) -> dict[str, object]:
        options = self._options
        known = {name: value for name, value in request.body.items() if name in FORWARDED}
        arguments = with_params(request._replace(body=known), options.params)
        arguments |= {
            "model": options.model,
            "stream": request.is_stream,
            "timeout": min(options.timeout_s, request.timeout_s),
            "max_retries": 0,
        }
        if options.api_key is not None:
            arguments["api_key"] = options.api_key.get_secret_value()
        if options.api_base is not None:
            arguments["api_base"] = options.api_base
        return arguments


OPEN: WeakSet[LitellmBackend] = WeakSet()


def import_litellm() -> Any:
    """The module, quiet and without the price map and the table of Anthropic's headers, which it would fetch from the
    network on import and at the first request. Its own lines quote what clients send, so they are not logged.

    litellm reads these settings from the environment and offers no other way.
    """
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
    import litellm
    from litellm.llms.custom_httpx import aiohttp_transport, http_handler

    vars(http_handler)["TCPConnector"] = Connections  # its own gives what a server sends unasked to the next request
    vars(aiohttp_transport)["AiohttpResponseStream"] = bounded(aiohttp_transport.AiohttpResponseStream)
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL + 1)

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


def bounded(body: type[Any]) -> type[Any]:
    """litellm's body of an answer, in pieces between which others have their turn. litellm decodes a line on the event
    loop, so a line too large for that ends the answer before it is whole."""

    class BoundedBody(body):  # type: ignore[misc]
        CHUNK_SIZE = PIECE_BYTES

        async def __aiter__(self) -> AsyncGenerator[bytes, None]:
            is_whole = self._aiohttp_response.content_type == "application/json"
            lines = WholeLines(MAX_EVENT_BYTES)
            most = MAX_ANSWER_VALUES if is_whole else MAX_VALUES
            async for piece in super().__aiter__():
                check_values(lines.feed(piece), most)
                yield piece
                await asyncio.sleep(0)
            check_values(lines.rest(), most)

    return BoundedBody


def check_values(lines: bytes, most: int) -> None:
    """Raises BackendError where lines hold more values than that."""
    if len(lines) > most and has_more_values(lines, most):
        raise BackendError(f"a line of the provider's answer holds more than {most} values", status=502)


async def stream_events(chunks: AsyncIterator[Any], request: BackendRequest) -> AsyncGenerator[bytes, None]:
    """litellm's chunks as server-sent events, with the end mark. Raises BackendError when the provider fails midway."""
    import openai

    try:
        async for chunk in chunks:
            is_last = any(choice.finish_reason for choice in chunk.choices)
            if is_last and getattr(chunks, "received_finish_reason", is_last) is None:  # litellm makes up a clean end
                raise BackendError("the provider's answer was cut off", status=502)
            chunk.id = f"chatcmpl-{request.request_id}"
            yield b"data: " + chunk.model_dump_json(exclude_none=True, exclude_unset=True).encode() + b"\n\n"
    except openai.OpenAIError as error:
        raise cause(error, BackendError) or BackendError("the provider's answer was cut off", status=502) from None
    yield b"data: [DONE]\n\n"


def error_response(error: Exception) -> BackendResponse:
    """The provider's refusal: its own, where litellm did not make it from other signs. litellm rewords refusals, and
    then has no `insufficient_quota`, and often no Retry-After.

    Raises:
        BackendError: no answer came.
    """
    import openai

    is_too_long = type(error).__name__ == "ContextWindowExceededError"  # it knows the words of all providers
    ours = cause(error, BackendError)
    if ours is not None:
        raise ours
    own = None if is_too_long else own_refusal(error)
    if own is not None:
        return own
    if isinstance(error, openai.APITimeoutError):
        raise BackendError("the provider did not answer in time", status=504) from error
    # litellm turns most connection errors into an InternalServerError with status 500; only the words remain.
    if isinstance(error, openai.APIConnectionError) or str(error).endswith("Connection error."):
        raise BackendError("the provider cannot be reached", status=503, is_retryable=True) from error
    status = int(getattr(error, "status_code", None) or 502)
    code = "context_length_exceeded" if is_too_long else getattr(error, "code", None)  # which clients know
    values = {
        "message": str(getattr(error, "message", "the provider refused the request")),
        "type": str(getattr(error, "type", None) or "upstream_error"),
        "param": text_or_none(getattr(error, "param", None)),
        "code": text_or_none(code),
    }
    body = to_json({"error": values})
    return BackendResponse(status, chunks_of([body]), {"content-type": "application/json"})


def own_refusal(error: BaseException) -> BackendResponse | None:
    """The provider's own answer, from the root of an exception of litellm's; None where that holds none."""
    import httpx

    root = cause(error, httpx.HTTPStatusError)
    if root is None or not root.response.is_stream_consumed:
        return None
    response = root.response
    return BackendResponse(response.status_code, chunks_of([response.content]), visible_headers(response.headers))


def cause(error: BaseException | None, kind: type[E]) -> E | None:
    """The first error of that kind among one and its causes; None where there is none."""
    seen: set[int] = set()  # a chain of causes may be a ring
    while error is not None and id(error) not in seen:
        if isinstance(error, kind):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def text_or_none(value: object) -> str | None:
    """A field of an error, which may be anything that the provider sent, nested however deep."""
    return value if isinstance(value, str) else None
