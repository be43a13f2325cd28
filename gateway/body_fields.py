"""Fields of a JSON body, each of an allowed type and within its bounds, or a 400 says so; those that a chat may have.

Engines take more: fields that name addresses to fetch from or to send to (`kv_transfer_params`, `api_base`), code and
templates to run (`logits_processors`, `chat_template`), an adapter, a slot or a cache (`lora`, `id_slot`,
`cache_salt`), a place in the queue (`priority`), or a second name for what is bounded here (`n_predict`). So what is
not listed is refused, and an operator who wants more of them lists them in `gateway.limits.extra_fields`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from base.errors import shorten
from gateway.http_errors import ApiError, invalid
from router.gateway_config import RequestLimits

JSON_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),  # before numbers: True is an int
    ((int, float), "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "an object"),
)


def flag(body: Mapping[str, object], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        wrong(name, body, "true or false")
    return bool(value)


def count(body: Mapping[str, object], name: str, *, least: int = 1, most: int) -> int | None:
    """A whole number within bounds, or None when absent."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        wrong(name, body, f"a whole number from {least} to {most}")
    return value


def few(body: Mapping[str, object], name: str, most: int) -> None:
    """Refuses a list or an object with more entries than that."""
    value = body.get(name)
    if isinstance(value, list | dict) and len(value) > most:
        raise invalid(f"'{name}' has {len(value)} entries; allowed: at most {most}", name)


def typed(body: Mapping[str, object], name: str, kind: type, allowed: str) -> Any:
    """A field that is absent, null or of that type."""
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        wrong(name, body, allowed)
    return value


def wrong(name: str, body: Mapping[str, object], allowed: str) -> NoReturn:
    if name not in body:
        raise invalid(f"'{name}' is required: {allowed}", name, code="missing_required_parameter")
    value = body[name]
    shown = json_type(value) if value is None or (value and isinstance(value, list | dict)) else shorten(value)
    raise invalid(f"'{name}' is {shown}; allowed: {allowed}", name)


def wrong_type(value: object, where: str, allowed: str) -> ApiError:
    return invalid(f"'{where}' must be {allowed}, got {json_type(value)}", where)


def unknown_kind(value: object, where: str, allowed: str) -> ApiError:
    return invalid(f"'{where}' is {shorten(value)}; allowed: {allowed}", where)


def json_type(value: object) -> str:
    """JSON's word for a value's type."""
    for kinds, word in JSON_TYPES:
        if isinstance(value, kinds):
            return word
    return "null"


def listed(names: str) -> frozenset[str]:
    return frozenset(names.split())


OPENAI = listed(
    """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages
    metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
    stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options
    """
)
"""OpenAI's own, as its SDK has them."""

SAMPLING = listed(
    """
    add_generation_prompt add_special_tokens allowed_token_ids bad_words best_of continue_final_message echo
    guided_choice guided_grammar guided_json guided_regex ignore_eos include_reasoning include_stop_str_in_output
    length_penalty min_p min_tokens prompt_logprobs repetition_penalty return_token_ids return_tokens_as_token_ids
    skip_special_tokens spaces_between_special_tokens stop_token_ids structured_outputs top_k truncate_prompt_tokens
    use_beam_search

    dry_allowed_length dry_base dry_multiplier dry_penalty_last_n dry_sequence_breakers dynatemp_exponent dynatemp_range
    grammar json_schema min_keep mirostat mirostat_eta mirostat_tau repeat_last_n repeat_penalty samplers
    timings_per_token top_n_sigma typical_p xtc_probability xtc_threshold
    """
)
"""Choice of the next token by vLLM and llama.cpp. Other engines ignore or refuse them."""

FIELDS = OPENAI | SAMPLING

WHOLE_NUMBERS = {
    "max_tokens": (1, "max_output_tokens"),
    "max_completion_tokens": (1, "max_output_tokens"),
    "min_tokens": (0, "max_output_tokens"),
    "n": (1, "max_choices"),
    "best_of": (1, "max_choices"),
    "top_logprobs": (0, "max_top_logprobs"),
    "prompt_logprobs": (0, "max_top_logprobs"),
}
"""Least value of a field, and the limit that is its largest."""

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


def check_fields(body: Mapping[str, object], limits: RequestLimits) -> None:
    """Raises ApiError for the first field that is not allowed, or that asks for more than is allowed."""
    for name in body:
        if name in WHOLE_NUMBERS:
            least, limit = WHOLE_NUMBERS[name]
            count(body, name, least=least, most=getattr(limits, limit))
        elif name in ENTRIES:
            few(body, name, getattr(limits, ENTRIES[name]))
        elif name not in FIELDS and name not in limits.extra_fields:
            raise unknown_field(name, limits)
    if not isinstance(body.get("logprobs"), bool):  # some engines take how many
        count(body, "logprobs", least=0, most=limits.max_top_logprobs)


def unknown_field(
    name: str, limits: RequestLimits, request: str = "a chat request", known: Collection[str] = OPENAI
) -> ApiError:
    close = get_close_matches(name[:80], [*known, *SAMPLING, *limits.extra_fields], n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return invalid(
        f"{shorten(name)} is not a field that {request} may have{hint} allowed: the API's own, the sampling fields of "
        "vLLM and llama.cpp, and what the operator adds by gateway.limits.extra_fields",
        name[:80],
        code="unknown_parameter",
    )
