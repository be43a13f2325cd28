"""Limits of one chat request, as `gateway.limits` of experts.yaml bounds it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from router.section import Section

CACHE_SALT = "cache_salt"
"""The field by which vLLM keeps one tenant's cached prompts from another's; the gateway alone sets it."""


def check_is_clients(field: str) -> str:
    if field == CACHE_SALT:
        raise ValueError(f"'{CACHE_SALT}' keeps callers apart and is set by the gateway; allowed: any other field")
    return field


class RequestLimits(Section):
    """Bounds on a chat request. A request above one is refused with 400, never cut down."""

    max_messages: int = Field(default=2048, ge=1)
    max_parts: int = Field(default=256, ge=1, description="parts of one message's content")
    max_tools: int = Field(default=128, ge=1, description="`tools`, or `functions`")
    max_output_tokens: int = Field(
        default=131_072, ge=1, description="`max_tokens`, `max_completion_tokens` and `min_tokens`"
    )
    max_choices: int = Field(default=16, ge=1, description="`n` and `best_of`")
    max_top_logprobs: int = Field(default=20, ge=0, description="`top_logprobs` and `prompt_logprobs`")
    max_stops: int = Field(default=16, ge=1, description="`stop`, `stop_token_ids`, `bad_words`, ...")
    max_biases: int = Field(default=1024, ge=1, description="`logit_bias` and `allowed_token_ids`")
    extra_fields: tuple[Annotated[str, AfterValidator(check_is_clients)], ...] = Field(
        default=(), description="further fields that clients may send, e.g. chat_template_kwargs"
    )
