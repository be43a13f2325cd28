"""An expert's errors as clients may see them: with its status and words, without our key and what is not the client's
fault."""

from __future__ import annotations

import re
from collections.abc import Mapping

from coe.base.json_text import JsonError, from_json, to_json
from coe.fleet.calls.backend import (
    ELSEWHERE,
    RETRY_AFTER_S,
    SPENT,
    SPENT_COOLDOWN_S,
    is_spent,
    is_too_large,
    reply_json,
    retry_after_s,
)
from coe.gateway.http_errors import (
    CREDENTIALS,
    MAX_UPSTREAM_MESSAGE_CHARS,
    OUT_OF_QUOTA,
    TOO_LONG,
    WRONG_ENTRY,
    ApiError,
    named,
    not_ours,
)

MASK = "***"

MISCONFIGURED = frozenset({404, 405, 410})
"""Statuses of an expert whose entry in experts.yaml is wrong: no request of a client can cause these."""

KEY_LIKE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|ghp|glpat|nvapi|tgp)[-_][\w.*-]{6,}"
    r"|\bAIza[\w*-]{8,}|\bAKIA[A-Z0-9*]{8,}"
    r"|(?<=\bbearer )\s*[\w.~+/=*-]{6,}"
    r"|(?<=\bapi key: )[^\s'\",;]+|(?<=\bapi key provided: )[^\s'\",;]+",
    re.IGNORECASE,
)
"""Pattern of providers' keys, in part hidden or not, and of what is introduced as one. Linear: nothing in it nests."""


TOO_LONG_WORDS = re.compile(
    r"maximum (?:context|model|prompt) length"  # vLLM, OpenRouter, Mistral, xAI
    r"|longer than the model's context length"  # SGLang
    r"|prompt is too long"  # Anthropic
    r"|exceeds the (?:context window|maximum number of tokens)",  # OpenAI, Gemini
    re.IGNORECASE,
)
"""Ways to say that a prompt is longer than the expert's context. llama.cpp's error has a type of its own."""

CONTEXT_ERROR = "exceed_context_size_error"


def without_keys(text: str, key: str | None) -> str:
    """An error's text without our key, and without what looks like a key."""
    return KEY_LIKE.sub(MASK, text if not key else text.replace(key, MASK))


def upstream_error(
    expert: str, status: int, body: bytes, headers: Mapping[str, str], key: str | None = None
) -> ApiError:
    """The client's view of an expert's answer with an error status.

    An error keeps its status and what it says in the fields of OpenAI's, without our key and what looks like one. What
    an expert says of our key, its model or its address, or a redirect, is the gateway's fault and becomes a 502 with a
    text of ours, and another expert may be asked: nothing was generated. So is an account without quota, which becomes
    a 429. A 429 has a time to wait, unless the request alone is above the expert's limit.
    """
    is_large = is_too_large(status, body)
    if is_spent(status, body):
        lack = "has too little credit for so long an answer at its provider" if is_large else SPENT
        message, cooldown_s = f"expert {expert} {lack}", None if is_large else SPENT_COOLDOWN_S
        return ApiError(
            message, status=429, code=OUT_OF_QUOTA, retry_after_s=cooldown_s, cooldown_s=cooldown_s, is_retryable=True
        )
    status = status if status < 600 else 502  # LinkedIn's 999 and others that HTTP does not know
    said_s, fields = retry_after_s(headers), error_fields(body)
    fault: tuple[str, str] | None = None
    if status in (401, 403, 407) and not (status == 403 and is_flagged(fields)):
        fault = CREDENTIALS, "refused the gateway's credentials"
    elif status in MISCONFIGURED:
        fault = WRONG_ENTRY, f"answered with status {status}: its address or model is not what it serves"
    elif status < 400:
        fault = "expert_broken_answer", f"answered with status {status}"
    if fault is not None:
        return ApiError(f"expert {expert} {fault[1]}", status=502, code=fault[0], is_retryable=True)
    wait_s = RETRY_AFTER_S if said_s is None and status in (429, 503, 529) else said_s
    is_retryable = is_large or status in ELSEWHERE
    wordless = {"message": f"expert {expert} answered with status {status}"}
    said = (fields or wordless).items()
    shown = {name: without_keys(value, key) if isinstance(value, str) else value for name, value in said}
    message = str(shown["message"])[:MAX_UPSTREAM_MESSAGE_CHARS]
    code, param, kind = not_ours(shown.get("code")), shown.get("param"), not_ours(shown.get("type"))
    if status >= 500:
        message = named(message, expert)
    if status == 400 and (kind == CONTEXT_ERROR or TOO_LONG_WORDS.search(message)):
        code = TOO_LONG
    return ApiError(
        message,
        status=status,
        code=code if isinstance(code, str) else None if fields else "expert_error",
        param=param if isinstance(param, str) else None,
        error_type=kind if isinstance(kind, str) and code != TOO_LONG else None,
        retry_after_s=None if is_large else wait_s,
        cooldown_s=None if is_large or not is_retryable else wait_s if status == 429 else said_s,
        is_retryable=is_retryable,
    )


def is_flagged(fields: Mapping[str, object] | None) -> bool:
    """Returns True for the error by which OpenRouter says that its moderation refused a prompt (403): no fault of our
    key, so one client's prompts keep the expert from no other."""
    metadata = fields.get("metadata") if fields else None
    return isinstance(metadata, dict) and "flagged_input" in metadata


def error_fields(body: bytes) -> dict[str, object] | None:
    """The error object of an expert's body: OpenAI's `{"error": {...}}`, vLLM's older flat form, or what FastAPI calls
    `detail`, a text or a list of faults; None if none of them."""
    try:
        values = from_json(body, has_unique_keys=False)
    except JsonError:
        return None
    if isinstance(values, list) and len(values) == 1:  # as Gemini sends it
        values = values[0]
    if not isinstance(values, dict):
        return None
    if isinstance(values.get("message"), dict):  # around what FastAPI says, as Mistral sends it
        values = values["message"]
    inner = values.get("error", values.get("detail", values))
    if isinstance(inner, list):
        faults = (each for each in inner if isinstance(each, dict) and "msg" in each)
        inner = "; ".join(f"{each.get('loc')}: {each['msg']}" for each in faults)
    if inner and isinstance(inner, str):
        return {"message": inner}
    return inner if isinstance(inner, dict) and isinstance(inner.get("message"), str) else None


def told_error(event: bytes) -> bytes | None:
    """The object that holds the error of an event: itself, or of the Responses API the answer in it."""
    try:
        values = reply_json(event)
    except JsonError:
        return None
    told = (each for each in (values, values.get("response")) if isinstance(each, dict) and each.get("error"))
    return next(map(to_json, told), None)


def error_in_answer(expert: str, body: bytes, key: str | None) -> ApiError:
    """The error that an expert sent with a status of success and in place of an answer. A code that is a status counts
    as one, as OpenRouter means it."""
    fields = error_fields(body)
    if fields is None:
        message = f"expert {expert} sent an error without a message in place of an answer"
        return ApiError(message, status=502, code="expert_error", is_retryable=True)
    code = fields.get("code")
    return upstream_error(expert, code if isinstance(code, int) and 400 <= code < 600 else 502, body, {}, key)
