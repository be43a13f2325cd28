"""The part of experts.yaml about the HTTP server: its limits, the fields of a chat request, and an identity provider.

Engines take more fields than a chat may have here. Some name addresses to fetch from or to send to
(`kv_transfer_params`, `api_base`), or code and templates to run (`logits_processors`, `chat_template`). Others name an
adapter, a slot or a cache (`lora`, `id_slot`, `cache_salt`), jump the queue (a `priority` below 0), or give a second
name to what is bounded (`n_predict`). A field that is not listed is refused; `gateway.extra_fields` lists more.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from coe.router.config.expert import Engine
from coe.router.section import HttpUrl, Seconds, Section

CACHE_SALT = "cache_salt"
"""The field by which vLLM keeps one tenant's cached prompts from another's; the gateway alone sets it."""


def check_is_clients(field: str) -> str:
    if field == CACHE_SALT:
        raise ValueError(f"'{CACHE_SALT}' keeps callers apart and is set by the gateway; allowed: any other field")
    return field


def field_names(names: str) -> frozenset[str]:
    return frozenset(names.split())


OPENAI = field_names(
    """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages
    metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
    stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options
    """
)
"""OpenAI's own, as its SDK has them."""

SAMPLING = field_names(
    """
    add_generation_prompt add_special_tokens allowed_token_ids bad_words best_of chat_template_kwargs
    continue_final_message echo ignore_eos include_reasoning include_stop_str_in_output length_penalty min_p min_tokens
    priority prompt_logprobs repetition_penalty return_token_ids return_tokens_as_token_ids skip_special_tokens
    spaces_between_special_tokens stop_token_ids structured_outputs top_k truncate_prompt_tokens use_beam_search

    dry_allowed_length dry_base dry_multiplier dry_penalty_last_n dry_sequence_breakers dynatemp_exponent dynatemp_range
    grammar json_schema min_keep mirostat mirostat_eta mirostat_tau repeat_last_n repeat_penalty samplers
    timings_per_token top_n_sigma typical_p xtc_probability xtc_threshold
    """
)
"""Choice of the next token by vLLM and llama.cpp, and what their templates may be told. Other engines ignore or refuse
them."""

FIELDS = OPENAI | SAMPLING

CONSTRAINTS = {Engine.VLLM: frozenset({"structured_outputs"}), Engine.LLAMACPP: frozenset({"grammar", "json_schema"})}
"""Fields that bind an answer to a form, by the engine that knows them. Others ignore them without an error."""

CONSTRAINING = frozenset().union(*CONSTRAINTS.values())

GUIDED = {"guided_json": "json", "guided_choice": "choice", "guided_regex": "regex", "guided_grammar": "grammar"}
"""Fields that vLLM once took and ignores now, and their names within `structured_outputs`, which replaced them."""

WHOLE_NUMBERS = {
    "max_tokens": (1, "max_output_tokens"),
    "max_completion_tokens": (1, "max_output_tokens"),
    "min_tokens": (0, "max_output_tokens"),
    "n": (1, "max_choices"),
    "best_of": (1, "max_choices"),
    "priority": (0, "max_priority"),
    "top_logprobs": (0, "max_top_logprobs"),
    "prompt_logprobs": (0, "max_top_logprobs"),
}
"""Least value of a field, and the limit that is its largest."""

NUMBERS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
"""Least and largest value of a field, as OpenAI's API and vLLM take it."""

ENTRIES = {
    "messages": "max_messages",
    "tools": "max_tools",
    "functions": "max_tools",
    "stop": "max_stops",
    "stop_token_ids": "max_stops",
    "bad_words": "max_stops",
    "dry_sequence_breakers": "max_stops",
    "samplers": "max_stops",
    "logit_bias": "max_biases",
    "allowed_token_ids": "max_biases",
}
"""Limit on the entries of a field."""


def check_safe_url(url: str) -> str:
    """Refuse plain http to other machines: a change of the keys on their way would let anybody in."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(f"'{url}' is not safe; allowed: https://..., or http:// on this machine")
    return url


SafeUrl = Annotated[HttpUrl, AfterValidator(check_safe_url)]


class OidcConfig(Section):
    """An OpenID Connect provider whose tokens (JWTs with a public-key signature) are taken beside keys."""

    issuer: SafeUrl = Field(description="the claim `iss`, and where its discovery document is")
    audience: str = Field(min_length=1, description="what the claim `aud` must contain")
    team_claim: str = Field(default="team", min_length=1, description="the claim that names the team")
    admin_scope: str | None = Field(default=None, min_length=1, description="the scope that gives admin rights")


class GatewayConfig(Section):
    """Limits of the HTTP server. Where it listens comes from the environment or the command line."""

    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_concurrency: int = Field(default=512, ge=1)
    max_connections: int = Field(default=2048, ge=1, description="open connections of clients")
    max_bytes_in_flight: int = Field(
        default=512 * 1024 * 1024,
        ge=8 * 1024,
        description="memory for request bodies over 64 KiB, each with three copies; one client may take half",
    )
    allowed_hosts: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]+$")], ...] = Field(
        default=(), description="names in `host`, besides those of this machine; without port"
    )
    allowed_origins: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://[^/\s]+$")], ...] = Field(
        default=(), description="web pages that may call, e.g. https://chat.example"
    )
    max_text_chars: ClassVar = 4000
    """Characters of the last human ask that are classified."""
    max_earlier: ClassVar = 8  # asks before it that are looked at, a bound on the work that a request can cause
    retries: int = Field(
        default=1, ge=0, le=3, description="further experts tried when one fails before its first content"
    )
    answer_cache_s: int | None = Field(
        default=None, ge=1, description="seconds for which a team gets the same answer to the same request; None: never"
    )
    keep_alive_s: ClassVar = 75.0
    drain_s: Seconds = Field(default=5.0, description="after SIGTERM: not ready, but still accepting and serving")
    shutdown_grace_s: Seconds = 20.0
    console: bool = Field(default=True, description="pages for people at /console")
    max_output_tokens: int = Field(
        default=131_072, ge=1, description="`max_tokens`, `max_completion_tokens` and `min_tokens`"
    )
    extra_fields: tuple[Annotated[str, AfterValidator(check_is_clients)], ...] = Field(
        default=(), description="further fields that clients may send, e.g. vllm_xargs"
    )
    # Further bounds on a chat request, which is refused with 400 above one and never cut down.
    max_messages: ClassVar = 2048
    max_parts: ClassVar = 256  # of one message's content
    max_tools: ClassVar = 128  # `tools`, or `functions`
    max_choices: ClassVar = 16  # `n` and `best_of`
    max_priority: ClassVar = 1_000_000  # `priority`; vLLM serves the lowest first, and 0 is that of everybody
    max_top_logprobs: ClassVar = 20  # `top_logprobs` and `prompt_logprobs`
    max_stops: ClassVar = 16  # `stop`, `stop_token_ids`, `bad_words`, ...
    max_biases: ClassVar = 1024  # `logit_bias` and `allowed_token_ids`
    oidc: OidcConfig | None = None

    @model_validator(mode="after")
    def has_room_for_a_body(self) -> Self:
        if self.max_bytes_in_flight < 8 * self.max_body_bytes:
            raise ValueError(f"max_bytes_in_flight: needs eight times max_body_bytes, {8 * self.max_body_bytes}")
        return self
