"""The endpoints of the fake, with vLLM's shapes and status codes."""

from __future__ import annotations

import base64
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, JsonValue, ValidationError

from coe.base.errors import EngineError
from coe.base.json_text import from_json, to_json
from tests.fake_vllm.engine import TOKEN, FakeEngine, Generation
from tests.fake_vllm.shapes import (
    AdapterAsked,
    AdapterNamed,
    Asked,
    Called,
    ChatAsked,
    ChatForm,
    CompletionAsked,
    EmbeddingsAsked,
    Json,
    RerankAsked,
    SleepAsked,
    TextForm,
    TokenizeAsked,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=BaseModel)
MESSAGE_TOKENS = 3  # that a chat template adds to each message
DIM = 16
"""Of the vectors of pooling models."""

FINISH_REASONS = ("stop", "length", "abort", "error")


class Refusal(Exception):
    """An answer with an error status."""

    def __init__(
        self, message: str, kind: str = "BadRequestError", status: int = 400, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.error = {"message": message, "type": kind, "param": param, "code": status}


def encoded(vector: Sequence[float], form: str) -> JsonValue:
    """Return a vector as numbers, or as base64 of little-endian float32."""
    return [*vector] if form == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


class FakeServer:
    """The HTTP of one engine."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine, self._options, self._begun_at = engine, engine.options, int(time.time())

    def app(self) -> web.Application:
        """The routes that this command line opens."""
        app = web.Application(middlewares=[refusals], client_max_size=64 << 20)
        routes = [
            web.get("/health", self._health),
            web.get("/version", self._version),
            web.get("/metrics", self._metrics),
            web.get("/v1/models", self._models),
            web.post("/tokenize", self._tokenize),
        ]
        if self._options.is_pooling:  # each model has one task, and vLLM opens no other route
            is_reranker = "rerank" in self._options.model
            routes.append(
                web.post("/v1/rerank", self._rerank) if is_reranker else web.post("/v1/embeddings", self._embed)
            )
        else:
            routes += [
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._completion),
            ]
        if self._options.allows_lora_updates:
            routes += [
                web.post("/v1/load_lora_adapter", self._load_adapter),
                web.post("/v1/unload_lora_adapter", self._unload_adapter),
            ]
        if self._options.is_dev:
            routes += [
                web.post("/sleep", self._sleep),
                web.post("/wake_up", self._wake),
                web.get("/is_sleeping", self._is_sleeping),
                web.post("/collective_rpc", self._rpc),
                web.post("/reset_prefix_cache", self._reset_prefix_cache),
            ]
        app.add_routes(routes)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self._engine.died.is_set() else 200)

    async def _version(self, _: web.Request) -> web.Response:
        return json_response({"version": f"{self._options.version}+fake"})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=metrics_text(self._engine))

    async def _models(self, _: web.Request) -> web.Response:
        card: Json = {"object": "model", "created": self._begun_at, "owned_by": "vllm"}
        bases = self._options.served_model_name
        longest = self._options.max_model_len
        data: list[JsonValue] = [
            {"id": name, **card, "root": self._options.model, "parent": None, "max_model_len": longest}
            for name in bases
        ]
        data += [
            {"id": name, **card, "root": path, "parent": bases[0], "max_model_len": None}
            for name, path in self._engine.adapters.items()
        ]
        return json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await body_of(request, ChatAsked)
        texts = [message.text for message in asked.messages]
        question = next((m.text for m in reversed(asked.messages) if m.role == "user"), "")
        prompt_tokens = sum(map(count, texts)) + MESSAGE_TOKENS * len(texts)
        return await self._answer(request, asked, " ".join(texts), question, prompt_tokens)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        asked = await body_of(request, CompletionAsked)
        if asked.logprobs is not None:
            return self._logprobs(asked, asked.logprobs)
        (prompt,) = asked.prompts  # the fake continues one
        return await self._answer(request, asked, prompt, prompt, count(prompt))

    def _logprobs(self, asked: CompletionAsked, top: int) -> web.Response:
        """One token after each text, with the log-probabilities of the first ones."""
        model = self._known_model(asked)
        choices: list[JsonValue] = [
            {"index": number, "text": "t0", "logprobs": {"top_logprobs": [{**self._engine.logprobs(model, text, top)}]}}
            for number, text in enumerate(asked.prompts)
        ]
        return json_response({"object": "text_completion", "model": model, "choices": choices})

    async def _embed(self, request: web.Request) -> web.Response:
        asked = await body_of(request, EmbeddingsAsked)
        model = self._known_model(asked)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        self._refuse_long(texts, asked.truncate_prompt_tokens)
        vectors = await self._engine.pooled(model, texts, DIM)
        data: list[JsonValue] = [
            {"index": i, "object": "embedding", "embedding": encoded(vector, asked.encoding_format)}
            for i, vector in enumerate(vectors)
        ]
        return json_response({"object": "list", "model": model, "data": data})

    async def _rerank(self, request: web.Request) -> web.Response:
        asked = await body_of(request, RerankAsked)
        model = self._known_model(asked)
        self._refuse_long([f"{asked.query} {text}" for text in asked.documents], asked.truncate_prompt_tokens)
        await self._engine.pooled(model, [asked.query], 1)
        words = set(asked.query.lower().split())
        scores = [len(words & set(text.lower().split())) / (1 + len(words)) for text in asked.documents]
        results: list[JsonValue] = [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]
        return json_response({"model": model, "results": results})

    def _refuse_long(self, texts: Sequence[str], cut_at: int | None) -> None:
        """Raises Refusal for a text beyond the context that is not to be cut."""
        longest = max(map(count, texts), default=0)
        if cut_at is None and longest > self._options.max_model_len:
            raise Refusal(f"This model's maximum context length is {self._options.max_model_len}; you have {longest}")

    def _known_model(self, asked: Asked | EmbeddingsAsked | RerankAsked) -> str:
        """Raises Refusal."""
        model = asked.model or self._options.served_model_name[0]
        if model not in (*self._options.served_model_name, *self._engine.adapters):
            raise Refusal(f"The model `{model}` does not exist.", "NotFoundError", 404, "model")
        return model

    async def _answer(
        self, request: web.Request, asked: Asked, prompt: str, question: str, prompt_tokens: int
    ) -> web.StreamResponse:
        model, longest = self._known_model(asked), self._options.max_model_len
        wanted = asked.max_completion_tokens if asked.max_tokens is None else asked.max_tokens
        if wanted is None:
            wanted = longest - prompt_tokens
        if not 1 <= wanted <= longest - prompt_tokens:
            raise Refusal(f"max_tokens={wanted}; the context has {longest} tokens", param="max_tokens")
        made = Generation(prompt_tokens)
        words = self._engine.generate(model, prompt, question, wanted, made)
        form = ChatForm(model) if isinstance(asked, ChatAsked) else TextForm(model)
        if asked.stream:
            return await stream(request, form, words, made, has_usage=asked.stream_options.include_usage)
        text = "".join([word async for word in words])
        return json_response({**form.whole(text, made.finish_reason), "usage": usage_of(made)})

    async def _tokenize(self, request: web.Request) -> web.Response:
        asked = await body_of(request, TokenizeAsked)
        text = " ".join(message.text for message in asked.messages) if asked.prompt is None else asked.prompt
        tokens: list[JsonValue] = [zlib.crc32(word.encode()) % 50_000 for word in TOKEN.findall(text)]
        tokens += [0] * (MESSAGE_TOKENS * len(asked.messages) if asked.prompt is None else 0)
        return json_response({"count": len(tokens), "max_model_len": self._options.max_model_len, "tokens": tokens})

    async def _load_adapter(self, request: web.Request) -> web.Response:
        asked = await body_of(request, AdapterAsked)
        if asked.lora_name in self._engine.adapters and not asked.load_inplace:
            raise Refusal(f"The lora adapter '{asked.lora_name}' has already been loaded.", "InvalidUserInput")
        try:
            self._engine.load_adapter(asked.lora_name, asked.lora_path)
        except FileNotFoundError as error:
            raise Refusal(str(error), "NotFoundError", 404) from error
        return web.Response(text=f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    async def _unload_adapter(self, request: web.Request) -> web.Response:
        name = (await body_of(request, AdapterNamed)).lora_name
        if self._engine.adapters.pop(name, None) is None:
            raise Refusal(f"The lora adapter '{name}' cannot be found.", "NotFoundError", 404)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _sleep(self, request: web.Request) -> web.Response:
        asked = validated(SleepAsked, dict(request.query), "query")
        await self._engine.sleep(asked.level, asked.mode)
        return json_response({"status": "sleeping", "level": asked.level})

    async def _wake(self, request: web.Request) -> web.Response:
        tags = request.query.getall("tags", [])
        is_awake = await self._engine.wake(tags)
        return json_response({"status": "awake" if is_awake else "sleeping", "tags": [*tags] or None})

    async def _is_sleeping(self, _: web.Request) -> web.Response:
        return json_response({"is_sleeping": self._engine.is_sleeping})

    async def _rpc(self, request: web.Request) -> web.Response:
        method = (await body_of(request, Called)).method
        if method != "reload_weights":
            raise Refusal(f"the fake has no method '{method}'", "InternalServerError", 500)
        await self._engine.reload_weights()
        return json_response({"results": [None]})

    async def _reset_prefix_cache(self, _: web.Request) -> web.Response:
        return json_response({"success": self._engine.reset_prefix_cache()})


async def stream(
    request: web.Request, form: ChatForm, words: AsyncIterator[str], made: Generation, *, has_usage: bool
) -> web.StreamResponse:
    """Sends an answer token by token; the last token has the finish reason."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    held: str | None = None
    async for word in words:
        if not response.prepared:
            await response.prepare(request)
            if (opening := form.opening()) is not None:
                await response.write(event(opening))
        if held is not None:
            await response.write(event(form.piece(held, None)))
        held = word
    if not response.prepared:
        await response.prepare(request)
    await response.write(event(form.piece(held or "", made.finish_reason)))
    if has_usage:
        await response.write(event(form.last() | {"usage": usage_of(made)}))
    await response.write(b"data: [DONE]\n\n")
    return response


async def body_of(request: web.Request, kind: type[Body]) -> Body:
    """The body of a request. Raises Refusal."""
    try:
        body = from_json(await request.read())
    except ValueError as error:
        raise Refusal("JSON decode error", "Bad Request", param="body.0") from error
    return validated(kind, body, "body")


def validated(kind: type[Body], values: object, where: str) -> Body:
    """Raises Refusal naming the field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, (where, *fault["loc"])))
        raise Refusal(f"{field}: {fault['msg']}", "Bad Request", param=field) from error


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in vLLM's shape. What ends the engine is a 500, and the server ends after it."""
    try:
        return await handler(request)
    except Refusal as refusal:
        error = refusal.error
    except EngineError as failed:
        error = Refusal(str(failed), "InternalServerError", 500).error
    return json_response({"error": error}, int(str(error["code"])))


def json_response(value: object, status: int = 200) -> web.Response:
    return web.Response(body=to_json(value), status=status, content_type="application/json")


def event(value: Json) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


def usage_of(made: Generation) -> JsonValue:
    total = made.prompt_tokens + made.made_tokens
    return {"prompt_tokens": made.prompt_tokens, "total_tokens": total, "completion_tokens": made.made_tokens}


def count(text: str) -> int:
    return len(TOKEN.findall(text))


def metrics_text(engine: FakeEngine) -> str:
    """Prometheus text: vLLM's names for what others read, and `fake_vllm:*` for the memory that no engine tells."""
    lines = []
    for name, kind, samples in families(engine):
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in samples.items():
            shown = f'engine="0",model_name="{engine.options.served_model_name[0]}"' + labels
            lines.append(f"{name}{{{shown}}} {value}")
    return "\n".join(lines) + "\n"


def families(engine: FakeEngine) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Name, type, and values by further labels."""
    totals, state = engine.totals, engine.sleep_state
    for name, value in {
        "vllm:num_requests_running": engine.running,
        "vllm:num_requests_waiting": engine.waiting,
        "vllm:kv_cache_usage_perc": min(1.0, engine.running / engine.options.max_num_seqs),
        "fake_vllm:gpu_gib": engine.card.held_gib,
        "fake_vllm:host_gib": engine.host_gib,
    }.items():
        yield name, "gauge", {"": float(value)}
    states = ("awake", "weights_offloaded", "discard_all")
    yield "vllm:engine_sleep_state", "gauge", {f',sleep_state="{each}"': float(each == state) for each in states}
    for name in ("prefix_cache_queries", "prefix_cache_hits", "prompt_tokens", "generation_tokens"):
        yield f"vllm:{name}_total", "counter", {"": float(getattr(totals, name))}
    successes = {f',finished_reason="{each}"': float(totals.request_success.get(each, 0)) for each in FINISH_REASONS}
    yield "vllm:request_success_total", "counter", successes
