"""Logs of gateways that people have today, each read as calls: LiteLLM's spend logs and OpenAI's
batches. docs/drift.md names the fields that are read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from base.errors import ConfigError, DataError, allowed_values
from base.record_files import Record, as_record, csv_rows, json_rows, parse_json
from router.types import ask_in
from router.usage import READ, usage_of

MOST_CALLS = 20_000
"""Calls that are routed, drawn at random from more: a mean over them is exact enough (ours)."""

NO_TEXT = "no text of the request"


@dataclass(frozen=True)
class Call:
    """One answered chat, or half of one in a batch. `asks` are what a person typed, newest first; None means that the
    log does not have it."""

    model: str
    asks: tuple[str, ...]
    prompt_tokens: float | None
    output_tokens: float | None
    cost_usd: float | None
    batch_id: str = ""  # joins an answer of a batch with its request
    cached_tokens: float = 0.0  # of the prompt, read from a cache


Reader = Callable[[Record], Call | str]
"""Reads a row; a text says why it is not a call."""


def read_calls(kind: str, paths: Sequence[Path], left_out: Counter[str]) -> tuple[Call, ...]:
    """Calls in files. `left_out` counts rows that are not an answered chat with a text, by reason.

    Raises:
        ConfigError: no such format.
        DataError: a malformed row, or no row has the text of its request, which routing needs.
    """
    if kind not in READERS:
        raise ConfigError(f"--import: unknown format '{kind}'{allowed_values(kind, READERS)}")
    calls: list[Call] = []
    reader, hint = READERS[kind]
    for path in paths:
        for record in csv_rows(path) if ".csv" in path.suffixes else json_rows(path):
            try:
                found = reader(record)
            except (AttributeError, TypeError) as error:
                raise DataError(f"{record.place}: is not laid out as {kind} writes it") from error
            if isinstance(found, str):
                left_out[found] += 1
            else:
                calls.append(found)
    calls = joined(calls) if kind == "openai" else calls
    left_out[NO_TEXT] += sum(not call.asks for call in calls)
    kept = [call for call in calls if call.asks and call.model]
    if not kept:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "no row"
        raise DataError(f"--import {kind}: holds no answered chat with the text of its request ({reasons}); {hint}")
    return tuple(kept)


def sample_of(calls: Sequence[Call], left_out: Counter[str]) -> Sequence[Call]:
    """At most `MOST_CALLS` of them, in their order."""
    if len(calls) <= MOST_CALLS:
        return calls
    left_out["not drawn"] = len(calls) - MOST_CALLS
    return [calls[i] for i in sorted(random.Random(0).sample(range(len(calls)), MOST_CALLS))]


def joined(calls: Sequence[Call]) -> list[Call]:
    """Answers of a batch with the asks of its requests, by `custom_id`."""
    asks = {call.batch_id: call.asks for call in calls if call.asks}
    return [replace(call, asks=asks.get(call.batch_id, ())) for call in calls if not call.asks]


def litellm_row(record: Record) -> Call | str:
    """A row of `LiteLLM_SpendLogs`, as its API and a CSV export of the table have it."""
    if record.optional_text("status") == "failure":
        return "failed"
    if record.optional_text("cache_hit") == "True":
        return "answered from its cache"
    if not any(kind in record.optional_text("call_type") for kind in ("completion", "responses", "messages")):
        return "not a chat"
    request, metadata = decoded(record, "proxy_server_request"), decoded(record, "metadata")
    body = request if isinstance(request, dict) else {}
    return Call(
        model=record.optional_text("model_group") or record.optional_text("model"),
        asks=asks_of(decoded(record, "messages")) or asks_of(body.get("messages") or body.get("input")),
        prompt_tokens=record.amount("prompt_tokens"),
        output_tokens=record.amount("completion_tokens"),
        cost_usd=record.amount("spend"),
        cached_tokens=cached(metadata.get("usage_object")) if isinstance(metadata, dict) else 0.0,
    )


def openai_row(record: Record) -> Call | str:
    """A row of a batch's input file or of its output file."""
    if record.get("error") not in (None, "") and record.optional_text("response.status_code") not in ("", "200"):
        return "failed"
    is_output = isinstance(record.values.get("response"), dict)
    body = as_record(record.require("response.body" if is_output else "body"), record.place)
    sent = {} if is_output else body.values
    return Call(
        model=body.optional_text("model"),
        asks=asks_of(sent.get("messages") or sent.get("input")),
        prompt_tokens=first_amount(body, "usage.prompt_tokens", "usage.input_tokens"),
        output_tokens=first_amount(body, "usage.completion_tokens", "usage.output_tokens"),
        cost_usd=None,
        batch_id=record.text("custom_id"),
        cached_tokens=cached(body.values.get("usage")),
    )


def cached(usage: object) -> float:
    """Prompt tokens that a provider's usage object says were read from a cache."""
    return float(usage_of(usage).of(READ)) if isinstance(usage, dict) else 0.0


def first_amount(record: Record, *names: str) -> float | None:
    return next((amount for name in names if (amount := record.amount(name)) is not None), None)


def decoded(record: Record, name: str) -> Any:
    """The value; from JSON where a column holds it as text."""
    value = record.values.get(name)
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(DataError):  # a prompt that only begins like JSON
            return parse_json(value, record.place)
    return value


def asks_of(messages: Any) -> tuple[str, ...]:
    """The texts that the user typed, newest first: of a list of messages, or of one text."""
    if isinstance(messages, str):
        return (ask_in(messages),) if messages.strip() else ()
    listed = messages if isinstance(messages, list) else []
    texts = [content_text(each) for each in listed if isinstance(each, dict) and each.get("role") == "user"]
    return tuple(ask for text in reversed(texts) if (ask := ask_in(text)))


def content_text(message: Mapping[str, Any]) -> str:
    """The text of a message: a text, or parts of which some are texts."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") or part.get("content") if isinstance(part, dict) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


READERS: Mapping[str, tuple[Reader, str]] = {
    "litellm": (litellm_row, "LiteLLM keeps texts where `general_settings.store_prompts_in_spend_logs` is true"),
    "openai": (openai_row, "give the input file of the batch as well as its output file"),
}
