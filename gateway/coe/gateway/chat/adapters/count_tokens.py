"""POST /v1/messages/count_tokens: the tokens of a prompt, counted by the expert that would answer it where its engine
counts, and estimated elsewhere; a header says which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coe.base.errors import RouterError
from coe.base.json_text import to_json
from coe.decision_log.privacy import new_decision_id
from coe.fleet.calls.backend import MAX_ERROR_BYTES, BackendRequest, reply_json
from coe.fleet.calls.pool import ExpertPool
from coe.gateway.chat_request import ChatRequest, json_object
from coe.gateway.http.asgi import Arrival, decode_json, read_body, read_off_loop, send_body
from coe.router.config.expert import ClientApi, Engine, ExpertConfig
from coe.router.config.gateway import GatewayConfig

if TYPE_CHECKING:
    from coe.gateway.chat.adapters.adapter import Adapter
    from coe.gateway.chat.deciding import Decider

COUNT_PATH = "/v1/messages/count_tokens"
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class TokenCount:
    """The endpoint. Nothing is generated and nothing logged."""

    adapter: Adapter
    bounds: GatewayConfig
    decider: Decider
    pool: ExpertPool
    experts: Mapping[str, ExpertConfig]

    async def __call__(self, arrival: Arrival) -> None:
        """Answers one request. Raises ApiError, ClientGoneError."""
        headers = arrival.headers
        raw = await read_body(headers, arrival.receive, self.bounds.max_body_bytes, arrival.admission)

        def decode(raw: bytes) -> ChatRequest:
            body = json_object(decode_json(raw))
            return self.adapter.request({"max_tokens": 1, **body}, self.bounds, headers)

        chat = await read_off_loop(decode, raw)
        expert = (await self.decider.decide(chat, new_decision_id(), caller=arrival.caller)).decision.expert
        try:
            tokens = await self._counted(chat, expert)
        except (RouterError, LookupError, TypeError, ValueError, OverflowError):
            tokens = None
        found = {
            "x-request-id": arrival.request_id,
            "request-id": arrival.request_id,
            "x-coe-expert": expert,
            "x-coe-token-count": "estimate" if tokens is None else "exact",
        }
        count = max(1, chat.facts.prompt_tokens) if tokens is None else tokens
        await send_body(arrival.send, 200, to_json({"input_tokens": count}), found)

    async def _counted(self, chat: ChatRequest, expert: str) -> int | None:
        """The engine's own count; None where it has none. Raises BackendError, or another for an odd answer."""
        entry, native = self.experts[expert], chat.native
        if native is not None and ClientApi.MESSAGES in entry.apis:
            body = {name: value for name, value in native.body.items() if name not in ("max_tokens", "stream")}
            return int((await self._ask(expert, "messages/count_tokens", body, native.headers))["input_tokens"])
        said = {name: chat.body[name] for name in ("messages", "tools") if name in chat.body}
        if entry.engine is Engine.VLLM:
            return int((await self._ask(expert, "../tokenize", said))["count"])
        if entry.engine is Engine.LLAMACPP:
            prompt = (await self._ask(expert, "../apply-template", said))["prompt"]
            text = {"content": prompt, "add_special": True, "parse_special": True}
            return len((await self._ask(expert, "../tokenize", text))["tokens"])
        return None

    async def _ask(
        self, expert: str, path: str, body: Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> Any:
        request = BackendRequest(body, path=path, timeout_s=TIMEOUT_S, headers=headers or {})
        status, answer = await self.pool.ask(expert, request, MAX_ERROR_BYTES)
        if status != 200:
            raise LookupError(f"status {status}")
        return reply_json(answer)
