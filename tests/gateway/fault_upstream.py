"""An OpenAI-compatible upstream on a real socket that answers as told, faults included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.served_app import app_of, serving

ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "upstream-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}


def delta(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish_reason}
    return orjson.dumps(
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "upstream-model", "choices": [choice]}
    )


def events(*payloads: bytes, end: bytes = b"\n\n") -> bytes:
    return b"".join(b"data: " + payload + end for payload in payloads)


WORDS = (delta("he"), delta("llo"), delta("", "stop"))
STREAM = events(*WORDS, b"[DONE]")
CRLF_STREAM = events(*WORDS, b"[DONE]", end=b"\r\n\r\n")
LARGE_STREAM = events(delta("x" * 1_000_000), *WORDS, b"[DONE]")
ERROR_EVENT = b'{"error":{"message":"engine died","type":"server_error","param":null,"code":"engine_dead"}}'


@dataclass
class FaultUpstream:
    """`mode` names the fault; `requests` are the bodies received; `gate` holds `paced` between its events."""

    mode: str = "ok"
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    bytes_sent: int = 0
    url: str = ""
    retry_after: str = "7"
    lead: tuple[bytes, ...] = ()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(json.loads(await request.read()))
        self.targets.append(request.raw_path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.arrived.set()
        is_stream = bool(self.requests[-1].get("stream"))
        answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = getattr(self, f"_{self.mode}")
        if self.mode == "ok" and is_stream:
            answer = self._stream
        try:
            return await answer(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.cancelled.set()
            raise

    async def _ok(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=orjson.dumps(ANSWER), content_type="application/json")

    async def _whole(self, request: web.Request) -> web.StreamResponse:
        """An answer in one piece with two choices, to a request for a stream, too."""
        call = {"id": "call-1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        calling = {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "call-2"}]}
        choices = [*ANSWER["choices"], {"index": 1, "message": calling, "finish_reason": "tool_calls"}]
        return web.Response(body=orjson.dumps({**ANSWER, "choices": choices}), content_type="application/json")

    async def _shapeless(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": None}]})

    async def _answer_and_error(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({**ANSWER, "error": {"message": "ran out of memory", "code": "dead"}})

    async def _whole_error(self, request: web.Request) -> web.StreamResponse:
        error = {"message": "engine died of sk-proj-abcdef7890", "type": "x", "param": None, "code": "dead"}
        return web.json_response({"error": error})

    async def _wordless_error(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": 429}})

    async def _first_error(self, request: web.Request) -> web.StreamResponse:
        """As OpenRouter says it."""
        return await self._stream(request, events(b'{"error":{"message":"slow down","code":429}}'))

    async def _gated(self, request: web.Request) -> web.StreamResponse:
        await self.gate.wait()
        return await self._ok(request)

    async def _stream(self, request: web.Request, *pieces: bytes, is_cut: bool = False) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces or (STREAM,):
            await response.write(piece)
            self.bytes_sent += len(piece)
        if is_cut:
            drop(request)
        return response

    async def _dies(self, request: web.Request) -> web.StreamResponse:
        """Breaks off after pieces that the test chose."""
        return await self._stream(request, *(self.lead or (b"",)), is_cut=True)

    async def _split(self, request: web.Request) -> web.StreamResponse:
        """Pieces that end in the middle of events, of UTF-8 sequences and of line ends."""
        text = events(delta("häßlich"), *WORDS, b"[DONE]")
        return await self._stream(request, *(text[i : i + 7] for i in range(0, len(text), 7)))

    async def _crlf(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, CRLF_STREAM)

    async def _large(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, LARGE_STREAM)

    async def _usage(self, request: web.Request) -> web.StreamResponse:
        usage = b'{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}'
        return await self._stream(request, events(*WORDS, usage, b"[DONE]"))

    async def _counting(self, request: web.Request) -> web.StreamResponse:
        """Reports usage where it is asked for, as engines do."""
        options = self.requests[-1].get("stream_options") or {}
        return await (self._usage(request) if options.get("include_usage") else self._stream(request))

    async def _strict(self, request: web.Request) -> web.StreamResponse:
        """Knows no `stream_options`, and does not name what it refuses."""
        if "stream_options" in self.requests[-1]:
            return web.Response(status=422, text="unknown field")
        return await self._stream(request)

    async def _paced(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(events(WORDS[0]))
        await self.gate.wait()
        await response.write(events(*WORDS[1:], b"[DONE]"))
        return response

    async def _lingering(self, request: web.Request) -> web.StreamResponse:
        """Sends the whole stream, end mark included, and keeps the body open."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(STREAM)
        await self.gate.wait()
        return response

    async def _bad_chunk(self, request: web.Request) -> web.StreamResponse:
        """Breaks the framing of the chunked body after the first event, and closes."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(events(WORDS[0]))
        await self.gate.wait()  # in a packet of its own, when the first event was read
        request.transport.write(b"zz\r\nnonsense\r\n")
        drop(request)
        return response

    async def _odd_type(self, request: web.Request) -> web.StreamResponse:
        """A content type in another case, with bytes that are no ASCII."""
        response = web.StreamResponse(headers={"content-type": "Text/Event-Stream; x=\u20ac"})
        await response.prepare(request)
        await response.write(STREAM)
        return response

    async def _untyped(self, request: web.Request) -> web.StreamResponse:
        """As a server that forgets to say that it streams."""
        response = web.StreamResponse(headers={"content-type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        await response.write(STREAM)
        return response

    async def _json_type(self, request: web.Request) -> web.StreamResponse:
        """As one that gives every answer the same type."""
        return web.Response(body=STREAM, content_type="application/json")

    async def _pings(self, request: web.Request) -> web.StreamResponse:
        """Shows that it is at work, and says nothing for long."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": ping\n\n")
        await self.gate.wait()
        await response.write(STREAM)
        return response

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        piece = events(delta("x" * 10_000))
        while True:
            await response.write(piece)
            self.bytes_sent += len(piece)

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        """Ends between two events, in the middle of the chunked body."""
        return await self._stream(request, events(*WORDS[:2]), is_cut=True)

    async def _cut_inside(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, events(WORDS[0]) + b'data: {"choi', is_cut=True)

    async def _unfinished(self, request: web.Request) -> web.StreamResponse:
        """A whole HTTP body whose stream never came to its end."""
        return await self._stream(request, events(*WORDS[:2]))

    async def _error_event(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, events(WORDS[0], ERROR_EVENT))

    async def _garbage(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, events(WORDS[0]) + b"data: \xff\xfe{not json}\n\n" + events(b"[DONE]"))

    async def _bad_json(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"choices": [', content_type="application/json")

    async def _empty(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"", content_type="application/json")

    async def _cut_body(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "500"})
        await response.prepare(request)
        await response.write(b'{"choices":')
        drop(request)
        return response

    async def _partial_head(self, request: web.Request) -> web.StreamResponse:
        request.transport.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
        drop(request)
        return web.Response()

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        request.transport.abort()
        return web.Response()

    async def _hang(self, request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async def _html(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=502, body=b"<html><h1>Bad Gateway</h1></html>", content_type="text/html")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"<html><h1>Log in</h1></html>", content_type="text/html")

    async def _busy(self, request: web.Request) -> web.StreamResponse:
        return self._error(429, "slow down", code="rate_limited", headers={"Retry-After": self.retry_after})

    async def _spent(self, request: web.Request) -> web.StreamResponse:
        """As OpenAI says that nothing is paid for any more."""
        error = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "credit_balance"}
        return web.json_response({"error": error}, status=429)

    async def _fault(self, request: web.Request) -> web.StreamResponse:
        return self._error(500, "boom", code="boom")

    async def _unavailable(self, request: web.Request) -> web.StreamResponse:
        return self._error(503, "loading", code="loading")

    async def _crowded(self, request: web.Request) -> web.StreamResponse:
        """As Groq says that it is overloaded."""
        return self._error(498, "no capacity", code="capacity")

    async def _overloaded(self, request: web.Request) -> web.StreamResponse:
        return self._error(503, "overloaded", code="overloaded", headers={"Retry-After": self.retry_after})

    async def _refuses_key(self, request: web.Request) -> web.StreamResponse:
        return self._error(401, "Incorrect API key provided: sk-exp***7890", code="invalid_api_key")

    async def _quotes_key(self, request: web.Request) -> web.StreamResponse:
        """Refuses the request and repeats the key it came with, where errors have text."""
        key = request.headers["authorization"].removeprefix("Bearer ")
        error = {"message": f"bad request of {key} and sk-proj-abcdef***7890", "type": "x", "param": key, "code": key}
        return web.Response(
            status=400, body=orjson.dumps({"error": error, "debug": key}), content_type="application/json"
        )

    async def _streams_key(self, request: web.Request) -> web.StreamResponse:
        """An error event that repeats the key, cut in the middle of it."""
        key = request.headers["authorization"].removeprefix("Bearer ").encode()
        event = events(WORDS[0], b'{"error":{"message":"died with ' + key + b'","type":"x","param":null,"code":null}}')
        cut = event.index(key) + 5
        return await self._stream(request, event[:cut], event[cut:])

    async def _no_model(self, request: web.Request) -> web.StreamResponse:
        return self._error(404, "The model `x` does not exist.", code="model_not_found")

    async def _codeless(self, request: web.Request) -> web.StreamResponse:
        """As llama.cpp refuses a field."""
        error = {"message": "type must be number", "type": "invalid_request_error", "code": 400}
        return web.Response(status=400, body=orjson.dumps({"error": error}), content_type="application/json")

    async def _refuses(self, request: web.Request) -> web.StreamResponse:
        return self._error(400, "temperature is too high", code="invalid_value")

    async def _drips(self, request: web.Request) -> web.StreamResponse:
        """One event after another, for ever."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(events(WORDS[0]))
            await asyncio.sleep(0.02)

    async def _oversized(self, request: web.Request) -> web.StreamResponse:
        """As OpenAI refuses a request that alone is above the limit of a minute."""
        message = "Request too large for m on tokens per min (TPM): Limit 30000, Requested 36278."
        return self._error(429, message, code="rate_limit_exceeded")

    async def _reasoning(self, request: web.Request) -> web.StreamResponse:
        """As OpenAI's reasoning models, which know one name of the longest answer."""
        if "max_tokens" not in self.requests[-1]:
            return await (self._stream if self.requests[-1].get("stream") else self._ok)(request)
        message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        return self._error(400, message, code="unsupported_parameter")

    async def _mistral(self, request: web.Request) -> web.StreamResponse:
        """Knows the other name only."""
        if "max_completion_tokens" not in self.requests[-1]:
            return await (self._stream if self.requests[-1].get("stream") else self._ok)(request)
        fault = {"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "not permitted"}
        return web.json_response({"detail": [fault]}, status=422)

    async def _groq(self, request: web.Request) -> web.StreamResponse:
        """Knows no hint but `user`, has one temperature, and names one field at a time."""
        for name in ("prompt_cache_key", "metadata", "temperature"):
            if name in self.requests[-1]:
                error = {"message": f"property '{name}' is unsupported", "type": "invalid_request_error"}
                return web.json_response({"error": error}, status=400)
        return await self._ok(request)

    async def _too_long(self, request: web.Request) -> web.StreamResponse:
        """As llama.cpp says it."""
        error = {"code": 400, "message": "request (5031 tokens) exceeds the available context size (2048 tokens)",
                 "type": "exceed_context_size_error", "n_prompt_tokens": 5031, "n_ctx": 2048}  # fmt: skip
        return web.Response(status=400, body=orjson.dumps({"error": error}), content_type="application/json")

    async def _redirect(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"location": "http://127.0.0.1:1/steal"})

    def _error(self, status: int, message: str, *, code: str, headers: dict[str, str] | None = None) -> web.Response:
        error = {"message": message, "type": "upstream", "param": None, "code": code}
        return web.Response(
            status=status, body=orjson.dumps({"error": error}), content_type="application/json", headers=headers
        )

    async def models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": []})


def drop(request: web.Request) -> None:
    """Closes the connection after what was written is out."""
    request.transport.close()


@asynccontextmanager
async def fault_upstream(mode: str = "ok") -> AsyncIterator[FaultUpstream]:
    """A running upstream."""
    upstream = FaultUpstream(mode)
    asked = ("POST /v1/chat/completions", "POST /v1/messages")
    routes = {**dict.fromkeys(asked, upstream.chat), "GET /v1/models": upstream.models}
    async with serving(app_of(routes)) as root:
        upstream.url = f"{root}/v1"
        try:
            yield upstream
        finally:
            upstream.gate.set()
