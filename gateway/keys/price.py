"""The most that a chat can cost before it is asked, and what it did cost. Pure.

Money is in billionths of a dollar, rounded up. A text has at most as many tokens as bytes, because the byte is the
smallest token there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from base.json_text import to_json
from gateway.keys.counters import Cost
from gateway.wire import ChatRequest
from router.expert_config import ExpertConfig
from router.types import Usage

NANO_PER_MICRO = 1000
MESSAGE_TOKENS = 16
"""Upper bound of what a chat template puts around one message (ours)."""

TOOL_TOKENS = 1024
"""Upper bound of what a template or a provider adds to the caller's own words on tools and formats (ours)."""

LONGEST = ("max_tokens", "max_completion_tokens", "min_tokens")
NO_PROMPT = frozenset({"messages", "metadata", "model", "stop", "stream_options", "user"})
PLAIN = frozenset({"role", "content"})


def bounded(chat: ChatRequest, answer_tokens: int) -> ChatRequest:
    """The request with a longest answer, where it names none: without one its cost has no bound."""
    if chat.facts.max_output_tokens:
        return chat
    facts = replace(chat.facts, max_output_tokens=answer_tokens)
    native = chat.native
    if native is not None:
        native = replace(native, body={**native.body, native.limit: answer_tokens})
    return replace(chat, body={**chat.body, "max_tokens": answer_tokens}, facts=facts, native=native)


def most(chat: ChatRequest, candidates: Iterable[ExpertConfig], added_chars: int = 0) -> Cost:
    """The most that a request with a longest answer costs, whichever of the candidates answers.

    Args:
        added_chars: of passages that may still come into the prompt.
    """
    prompt = prompt_bound(chat.body) + 4 * added_chars  # a character has at most four bytes
    prompts, choices = (1, 1) if chat.native is None else (chat.native.prompts, chat.native.choices)
    answer = max(count_of(chat.body, name) for name in LONGEST) * max(choices_of(chat.body), choices)
    # An image, or what no chat request says, has no bound in the request; the context is the only one there is.
    is_unbounded = chat.facts.has_image or chat.facts.needs_wire is not None
    tokens = nano = 0
    for expert in candidates:
        held = expert.context_tokens * prompts if is_unbounded else prompt
        tokens, nano = max(tokens, held + answer), max(nano, price(held, answer, expert))
    return Cost(tokens, nano)


def spent(usage: Usage, expert: ExpertConfig) -> Cost:
    """The cost of an answer by the expert's own count."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    return Cost(tokens, price(usage.prompt_tokens, usage.completion_tokens, expert))


def price(prompt_tokens: int, answer_tokens: int, expert: ExpertConfig) -> int:
    nano = expert.micro_usd(prompt_tokens, answer_tokens) * NANO_PER_MICRO
    return math.ceil(round(nano, 3))  # what is behind the third digit is of floating point


def prompt_bound(body: Mapping[str, object]) -> int:
    """Tokens of a prompt, at most."""
    messages = body["messages"]
    assert isinstance(messages, list)  # gateway/wire.py has checked it
    others = [value for name, value in body.items() if name not in NO_PROMPT and isinstance(value, str | list | dict)]
    described = sum(len(to_json(value)) for value in others) + TOOL_TOKENS * bool(others)
    return described + sum(message_bound(message) for message in messages)


def message_bound(message: Mapping[str, object]) -> int:
    content = message.get("content")
    if isinstance(content, str) and message.keys() <= PLAIN:
        return len(content.encode("utf-8", "replace")) + MESSAGE_TOKENS
    return len(to_json(message)) + MESSAGE_TOKENS


def choices_of(body: Mapping[str, object]) -> int:
    """Answers that are written for one request."""
    return max(1, count_of(body, "n"), count_of(body, "best_of"))


def count_of(body: Mapping[str, object], name: str) -> int:
    value = body.get(name)
    return value if isinstance(value, int) else 0
