"""POST /v1/completions: text without turns. An expert that speaks only chat answers the prompt as a user's message."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from coe.gateway.chat.adapters.adapter import Answer, Json, TranslatingAdapter
from coe.gateway.chat.adapters.reading import Fields, Reading
from coe.gateway.chat.adapters.turn import TEXT, texts_of
from coe.gateway.chat_request import ChatRequest, Native, count, wrong
from coe.gateway.exchange import answer_id
from coe.gateway.http_errors import ApiError
from coe.router.config.expert import ClientApi
from coe.router.config.gateway import GatewayConfig, field_names

FIELDS = Fields(
    same=field_names("model stream temperature top_p n stop seed presence_penalty frequency_penalty logit_bias user"),
    read=field_names("prompt max_tokens stream_options"),
    native={"best_of": (1,), "echo": (False,), "logprobs": (), "suffix": ("",)},
)
DEFAULT_MAX_TOKENS = 16
"""The limit of this API for a request that names none."""


class CompletionsAdapter(TranslatingAdapter):
    """/v1/completions, whose events and errors have the form of chat completions'."""

    def request(self, body: Mapping[str, Any], bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
        reading = Reading(ClientApi.COMPLETIONS, body, bounds)
        reading.take(FIELDS)
        for name in ("n", "best_of"):
            count(body, name, most=bounds.max_choices)
        count(body, "logprobs", least=0, most=bounds.max_top_logprobs)
        limit = DEFAULT_MAX_TOKENS if body.get("max_tokens") is None else body["max_tokens"]
        reading.put("max_tokens", limit)
        reading.messages.append({"role": "user", "content": prompt_of(reading)})
        prompts = prompt_count(body.get("prompt"))
        choices = prompts * max(body.get("n") or 1, body.get("best_of") or 1)
        native = {**body, "max_tokens": limit}
        return reading.done(
            Native(ClientApi.COMPLETIONS, native, as_chat, "max_tokens", prompts=prompts, choices=choices)
        )

    def answer(self, chat: ChatRequest, decision_id: str, request_id: str) -> Answer:
        return CompletionsAnswer(chat, decision_id)

    def frame(self, event: Json) -> bytes:
        return b"data: [DONE]\n\n" if "done" in event else super().frame(event)


def prompt_of(reading: Reading) -> str:
    """The text that is asked. Several prompts, and prompts of token numbers, are for engines of this API only."""
    prompt = reading.body.get("prompt")
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list) or not prompt:
        wrong("prompt", reading.body, "a text, or a list with one")
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    if len(prompt) > reading.bounds.max_messages and not isinstance(prompt[0], int):
        wrong("prompt", reading.body, f"at most {reading.bounds.max_messages} prompts")
    reading.lose("prompt (a list)")
    return "\n".join(each for each in prompt if isinstance(each, str))


def prompt_count(prompt: object) -> int:
    """Prompts of a request: a list of numbers is one."""
    return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1


class CompletionsAnswer:
    """The events of a completion."""

    def __init__(self, chat: ChatRequest, decision_id: str) -> None:
        options = chat.native.body.get("stream_options") if chat.native is not None else None
        self._wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._frame = {"id": answer_id("cmpl-", decision_id), "object": "text_completion", "created": int(time.time())}

    def read(self, event: Mapping[str, Any]) -> Iterator[Json]:
        choices = [choice for choice in map(text_choice, event.get("choices") or ()) if choice is not None]
        usage = event.get("usage")
        if choices or (usage and self._wants_usage):
            more = {"usage": usage} if self._wants_usage else {}
            yield {**self._frame, "model": event.get("model"), "choices": choices, **more}

    def end(self) -> Iterator[Json]:
        yield {"done": True}

    def fail(self, error: ApiError) -> Iterator[Json]:
        yield error.values

    def whole(self, answer: Mapping[str, Any]) -> Json:
        choices = [text_choice(choice) for choice in answer.get("choices") or ()]
        return {**self._frame, "model": answer.get("model"), "choices": choices, "usage": answer.get("usage")}


def text_choice(choice: Mapping[str, Any]) -> Json | None:
    """A choice of a chat completion as one of text; None for an event that brings neither text nor an end."""
    message = choice.get("delta") or choice.get("message") or {}
    text = "".join(text for kind, text in texts_of(message) if kind == TEXT)
    reason = choice.get("finish_reason")
    if not text and reason is None and "message" not in choice:
        return None
    return {"text": text, "index": choice.get("index", 0), "logprobs": None, "finish_reason": reason}


def as_chat(event: Mapping[str, Any]) -> Json:
    """An event, or a whole completion, in the terms of a chat completion."""
    choices = event.get("choices")
    if not isinstance(choices, list):
        return dict(event)
    return {
        **event,
        "choices": [
            {**choice, "delta": {"content": choice.get("text")}, "message": {"content": choice.get("text")}}
            for choice in choices
            if isinstance(choice, dict)
        ],
    }
