"""Logs of other gateways, read as calls: LiteLLM's spend logs and OpenAI's batches. docs/drift.md names the fields."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from coe.base.errors import ConfigError, DataError, allowed_values
from coe.base.record_files import Amount, OptionalText, Record, Row, Text, parse_json, read_records
from coe.router.prices.usage import Usage, usage_of
from coe.router.types import ask_in

MAX_CALLS = 20_000
"""Largest number of calls to route; more are sampled at random (ours). A mean over so many is exact enough."""

NO_TEXT = "no text of the request"


@dataclass(frozen=True)
class Call:
    """One answered chat, or half of one in a batch. `asks` are the user's texts, newest first; empty if the log
    lacks them."""

    model: str
    asks: tuple[str, ...]
    usage: Usage  # a count of 0 is not known
    cost_usd: float | None = None
    batch_id: str = ""  # joins an answer of a batch with its request


Reader = Callable[[Record], Call | str]
"""The type of a function that reads a row; it returns the reason as text if the row is not a call."""


def read_calls(kind: str, paths: Sequence[Path], left_out: Counter[str]) -> Sequence[Call]:
    """Read the calls of files, at most `MAX_CALLS`, in their order. `left_out` counts, by reason, rows that are not an
    answered chat with a text, and calls that were not drawn.

    Raises:
        ConfigError: the format is unknown.
        DataError: a row is malformed, or no row has the text of its request, which routing needs.
    """
    if kind not in READERS:
        raise ConfigError(f"--import: unknown format '{kind}'{allowed_values(kind, READERS)}")
    calls: list[Call] = []
    reader, hint = READERS[kind]
    for record in chain.from_iterable(map(read_records, paths)):
        try:
            found = reader(record)
        except (AttributeError, TypeError) as error:
            raise DataError(f"{record.place}: is not laid out as {kind} writes it") from error
        if isinstance(found, str):
            left_out[found] += 1
        else:
            calls.append(found)
    calls = join_batches(calls) if kind == "openai" else calls
    left_out[NO_TEXT] += sum(not call.asks for call in calls)
    kept = [call for call in calls if call.asks and call.model]
    if not kept:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "no row"
        raise DataError(f"--import {kind}: holds no answered chat with the text of its request ({reasons}); {hint}")
    if len(kept) > MAX_CALLS:
        left_out["not drawn"] = len(kept) - MAX_CALLS
        kept = [kept[i] for i in sorted(random.Random(0).sample(range(len(kept)), MAX_CALLS))]
    return kept


def join_batches(calls: Sequence[Call]) -> list[Call]:
    """Join the answers of a batch with the asks of its requests, by `custom_id`."""
    asks = {call.batch_id: call.asks for call in calls if call.asks}
    return [replace(call, asks=asks.get(call.batch_id, ())) for call in calls if not call.asks]


def decode_column(value: object) -> object:
    """Return the value, parsed from JSON if a column holds it as text."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(DataError):  # a prompt that only begins like JSON
            return parse_json(value, "")
    return value


Decoded = Annotated[Any, BeforeValidator(decode_column)]
Object = Annotated[dict[str, Any], BeforeValidator(lambda value: value if isinstance(value, dict) else {})]


class SpendRow(Row):
    """A row of `LiteLLM_SpendLogs`, as in its API and in a CSV export of the table."""

    status: OptionalText = ""
    cache_hit: Annotated[str, BeforeValidator(str)] = ""
    call_type: OptionalText = ""
    model_group: OptionalText = ""
    model: OptionalText = ""
    messages: Decoded = None
    proxy_server_request: Decoded = None
    metadata: Decoded = None
    prompt_tokens: Amount = None
    completion_tokens: Amount = None
    spend: Amount = None


class Body(Row):
    """The body of a request or of a response."""

    model: OptionalText = ""
    messages: Any = None
    input: Any = None
    usage: Object = Field(default={})


class BatchResponse(Row):
    status_code: int | None = None
    body: Body


class BatchRow(Row):
    """A row of a batch's input file or of its output file."""

    custom_id: Text
    error: Any = None
    response: BatchResponse | None = None
    body: Body = Body()


def litellm_row(record: Record) -> Call | str:
    """Convert a row of LiteLLM's spend logs to a call, or return why it is none."""
    row = record.read(SpendRow)
    if row.status == "failure":
        return "failed"
    if row.cache_hit == "True":
        return "answered from its cache"
    if not any(kind in row.call_type for kind in ("completion", "responses", "messages")):
        return "not a chat"
    body = row.proxy_server_request if isinstance(row.proxy_server_request, dict) else {}
    said = row.metadata.get("usage_object") if isinstance(row.metadata, dict) else None
    counted = {"prompt_tokens": int(row.prompt_tokens or 0), "completion_tokens": int(row.completion_tokens or 0)}
    return Call(
        model=row.model_group or row.model,
        asks=asks_of(row.messages) or asks_of(body.get("messages") or body.get("input")),
        usage=usage_of((said if isinstance(said, dict) else {}) | counted),
        cost_usd=row.spend,
    )


def openai_row(record: Record) -> Call | str:
    """Convert a row of an OpenAI batch's input or output to a call, or return why it is none."""
    row = record.read(BatchRow)
    if row.error and (row.response is None or row.response.status_code != 200):
        return "failed"
    body = row.body if row.response is None else row.response.body
    return Call(
        model=body.model,
        asks=() if row.response else asks_of(body.messages or body.input),
        usage=usage_of(body.usage),
        batch_id=row.custom_id,
    )


def asks_of(messages: Any) -> tuple[str, ...]:
    """Return the user's texts, newest first, from a list of messages or from one text."""
    if isinstance(messages, str):
        return (ask_in(messages),) if messages.strip() else ()
    listed = messages if isinstance(messages, list) else []
    texts = [content_text(each) for each in listed if isinstance(each, dict) and each.get("role") == "user"]
    return tuple(ask for text in reversed(texts) if (ask := ask_in(text)))


def content_text(message: Mapping[str, Any]) -> str:
    """Return the text of a message whose content is a text or a list of parts."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") or part.get("content") if isinstance(part, dict) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


READERS: Mapping[str, tuple[Reader, str]] = {
    "litellm": (litellm_row, "LiteLLM keeps texts where `general_settings.store_prompts_in_spend_logs` is true"),
    "openai": (openai_row, "give the input file of the batch as well as its output file"),
}
