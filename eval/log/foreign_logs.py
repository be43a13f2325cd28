"""Logs of gateways that people have today, each read as calls: LiteLLM's spend logs, OpenAI's batches, Langfuse's
exports, OpenTelemetry's spans. docs/drift.md names the fields that are read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """One answered chat. `asks` are what a person typed, newest first; `score` in [0, 1] is what the log says of the
    answer; None: not in the log. `links` are ids by which scores of other rows find it."""

    model: str
    asks: tuple[str, ...]
    prompt_tokens: float | None
    output_tokens: float | None
    cost_usd: float | None
    score: float | None = None
    links: tuple[str, ...] = ()
    cached_tokens: float = 0.0  # of the prompt, read from a cache


@dataclass(frozen=True)
class Score:
    """A grade of an answer. `links` are ids by which the answer may be found."""

    links: tuple[str, ...]
    value: float


Reader = Callable[[Record], Iterator[Call | Score | str]]
"""Reads what is in a row; a text says why it is not a call."""


def read_calls(kind: str, paths: Sequence[Path], left_out: Counter[str]) -> tuple[Call, ...]:
    """Calls in files, with their scores. `left_out` counts rows that are not an answered chat with a text, by reason.

    Raises:
        ConfigError: no such format.
        DataError: a malformed row, or no row has the text of its request, which routing needs.
    """
    if kind not in READERS:
        raise ConfigError(f"--import: unknown format '{kind}'{allowed_values(kind, READERS)}")
    calls: list[Call] = []
    scores: dict[str, list[float]] = {}
    reader, hint = READERS[kind]
    for path in paths:
        for record in csv_rows(path) if ".csv" in path.suffixes else json_rows(path):
            for found in rows_of(reader, record, kind):
                if isinstance(found, str):
                    left_out[found] += 1
                elif isinstance(found, Score):
                    for link in found.links:
                        scores.setdefault(link, []).append(found.value)
                else:
                    calls.append(found)
    calls = joined(calls) if kind == "openai" else calls
    left_out[NO_TEXT] += sum(not call.asks for call in calls)
    kept = [with_score(call, scores, left_out) for call in calls if call.asks and call.model]
    if not kept:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "no row"
        raise DataError(f"--import {kind}: holds no answered chat with the text of its request ({reasons}); {hint}")
    return tuple(kept)


def rows_of(reader: Reader, record: Record, kind: str) -> Iterator[Call | Score | str]:
    """Calls and scores in a row. Raises DataError where an object or a list is something else."""
    try:
        yield from reader(record)
    except (AttributeError, TypeError) as error:
        raise DataError(f"{record.place}: is not laid out as {kind} writes it") from error


def sample_of(calls: Sequence[Call], left_out: Counter[str]) -> Sequence[Call]:
    """At most `MOST_CALLS` of them, in their order."""
    if len(calls) <= MOST_CALLS:
        return calls
    left_out["not drawn"] = len(calls) - MOST_CALLS
    return [calls[i] for i in sorted(random.Random(0).sample(range(len(calls)), MOST_CALLS))]


def with_score(call: Call, scores: Mapping[str, list[float]], left_out: Counter[str]) -> Call:
    values = next((scores[link] for link in call.links if link in scores), [])
    if not values:
        return call
    mean = sum(values) / len(values)
    if 0 <= mean <= 1:
        return replace(call, score=mean)
    left_out["a score outside 0 to 1, which was not used"] += 1
    return call


def joined(calls: Sequence[Call]) -> list[Call]:
    """Answers of a batch with the asks of its requests, by `custom_id`."""
    asks = {call.links[0]: call.asks for call in calls if call.asks}
    return [replace(call, asks=asks.get(call.links[0], ())) for call in calls if not call.asks]


def litellm_row(record: Record) -> Iterator[Call | str]:
    """A row of `LiteLLM_SpendLogs`, as its API and a CSV export of the table have it."""
    if record.optional_text("status") == "failure":
        yield "failed"
    elif record.optional_text("cache_hit") == "True":
        yield "answered from its cache"
    elif not any(kind in record.optional_text("call_type") for kind in ("completion", "responses", "messages")):
        yield "not a chat"
    else:
        request, metadata = decoded(record, "proxy_server_request"), decoded(record, "metadata")
        body = request if isinstance(request, dict) else {}
        yield Call(
            model=record.optional_text("model_group") or record.optional_text("model"),
            asks=asks_of(decoded(record, "messages")) or asks_of(body.get("messages") or body.get("input")),
            prompt_tokens=record.amount("prompt_tokens"),
            output_tokens=record.amount("completion_tokens"),
            cost_usd=record.amount("spend"),
            cached_tokens=cached(metadata.get("usage_object")) if isinstance(metadata, dict) else 0.0,
        )


def openai_row(record: Record) -> Iterator[Call | str]:
    """A row of a batch's input file or of its output file."""
    if record.get("error") not in (None, "") and record.optional_text("response.status_code") not in ("", "200"):
        yield "failed"
        return
    is_output = isinstance(record.values.get("response"), dict)
    body = as_record(record.require("response.body" if is_output else "body"), record.place)
    sent = {} if is_output else body.values
    yield Call(
        model=body.optional_text("model"),
        asks=asks_of(sent.get("messages") or sent.get("input")),
        prompt_tokens=first_amount(body, "usage.prompt_tokens", "usage.input_tokens"),
        output_tokens=first_amount(body, "usage.completion_tokens", "usage.output_tokens"),
        cost_usd=None,
        links=(record.text("custom_id"),),
        cached_tokens=cached(body.values.get("usage")),
    )


def langfuse_row(record: Record) -> Iterator[Call | Score | str]:
    """An observation or a score, under the names of the API (camel case) or of the export to blob storage."""
    values = Record(record.place, {snake(name): value for name, value in record.values.items()}, record.unit)
    links = tuple(values.optional_text(name) for name in ("observation_id", "trace_id"))
    if "value" in values.values and "data_type" in values.values:
        if (
            values.optional_text("data_type") in ("NUMERIC", "BOOLEAN")
            and (value := values.number("value")) is not None
        ):
            yield Score(links[:1] if links[0] else links[1:], value)
        return
    if values.optional_text("type") != "GENERATION":
        yield "not a generation"
        return
    named = {name: decoded(values, name) for name in ("usage_details", "usage", "input")}
    usage = next((Record(record.place, one) for one in named.values() if isinstance(one, dict)), values)
    given = named["input"]
    yield Call(
        model=values.optional_text("provided_model_name") or values.optional_text("model"),
        asks=asks_of(given.get("messages") if isinstance(given, dict) else given),
        prompt_tokens=first_amount(usage, "input", "prompt_tokens"),
        output_tokens=first_amount(usage, "output", "completion_tokens"),
        cost_usd=first_amount(values, "total_cost", "calculated_total_cost"),
        links=(values.optional_text("id"), links[1]),
    )


def otel_row(record: Record) -> Iterator[Call | Score | str]:
    """A line of OTLP JSON: spans of chats, and evaluations as events of spans or as log records."""
    for group in record.values.get("resourceSpans") or []:
        for scope in group.get("scopeSpans") or []:
            for span in scope.get("spans") or []:
                yield from span_calls(Record(record.place, span))
    for group in record.values.get("resourceLogs") or []:
        for scope in group.get("scopeLogs") or []:
            for log in scope.get("logRecords") or []:
                yield from evaluation(log, attributes(log), log.get("spanId"))


def span_calls(span: Record) -> Iterator[Call | Score | str]:
    found = attributes(span.values)
    for event in span.values.get("events") or []:
        yield from evaluation(event, attributes(event), span.values.get("spanId"))
    if found.get("gen_ai.operation.name") not in ("chat", "text_completion", "generate_content"):
        yield "not a chat"
        return
    named = Record(span.place, found)
    yield Call(
        model=named.optional_text("gen_ai.request.model") or named.optional_text("gen_ai.response.model"),
        asks=asks_of(decoded(named, "gen_ai.input.messages")),
        prompt_tokens=named.amount("gen_ai.usage.input_tokens"),
        output_tokens=named.amount("gen_ai.usage.output_tokens"),
        cost_usd=None,
        links=tuple(filter(None, (span.optional_text("spanId"), named.optional_text("gen_ai.response.id")))),
        cached_tokens=named.amount("gen_ai.usage.cache_read.input_tokens") or 0.0,
    )


def cached(usage: object) -> float:
    """Prompt tokens that a provider's usage object says were read from a cache."""
    return float(usage_of(usage).of(READ)) if isinstance(usage, dict) else 0.0


def evaluation(event: Mapping[str, Any], found: Mapping[str, Any], span: object) -> Iterator[Score]:
    name = event.get("eventName") or event.get("name") or found.get("event.name")
    value = found.get("gen_ai.evaluation.score.value")
    if name == "gen_ai.evaluation.result" and isinstance(value, int | float):
        yield Score(tuple(str(link) for link in (span, found.get("gen_ai.response.id")) if link)[:1], float(value))


def attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of OTLP as plain values. OTLP sends integers as strings."""
    found: dict[str, Any] = {}
    for pair in values.get("attributes") or []:
        for kind, value in pair.get("value", {}).items():
            found[str(pair.get("key"))] = float(value) if kind == "intValue" else value
    return found


def first_amount(record: Record, *names: str) -> float | None:
    return next((amount for name in names if (amount := record.amount(name)) is not None), None)


def decoded(record: Record, name: str) -> Any:
    """The value; from JSON where a column holds it as text."""
    value = record.values.get(name)
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(DataError):  # a prompt that only begins like JSON
            return parse_json(value, record.place)
    return value


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def asks_of(messages: Any) -> tuple[str, ...]:
    """The texts that the user typed, newest first: of a list of messages, or of one text."""
    if isinstance(messages, str):
        return (ask_in(messages),) if messages.strip() else ()
    listed = messages if isinstance(messages, list) else []
    texts = [content_text(each) for each in listed if isinstance(each, dict) and each.get("role") == "user"]
    return tuple(ask for text in reversed(texts) if (ask := ask_in(text)))


def content_text(message: Mapping[str, Any]) -> str:
    """The text of a message of any of these formats: a text, or parts of which some are texts."""
    content = message.get("content", message.get("parts"))
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") or part.get("content") if isinstance(part, dict) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


READERS: Mapping[str, tuple[Reader, str]] = {
    "litellm": (litellm_row, "LiteLLM keeps texts where `general_settings.store_prompts_in_spend_logs` is true"),
    "openai": (openai_row, "give the input file of the batch as well as its output file"),
    "langfuse": (langfuse_row, "export observations with their field `input`"),
    "otel": (otel_row, "spans have `gen_ai.input.messages` where the instrumentation captures content"),
}
