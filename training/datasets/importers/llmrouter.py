"""Routing data of LLMRouter (`default_routing_train_data.jsonl`): one line a query and model, with `performance`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import LeftOut, OutcomeRow, ask_of, category_of, text_id
from training.datasets.record_files import ABSENT, Record, json_lines

SUMMARY = "LLMRouter routing data (JSON lines)"
OPTIONS = ("metric", "score_range")
PATTERNS = ("*routing*.jsonl",)
QUERY_FIELDS = ("task_name", "query", "ground_truth", "gt", "metric", "choices", "task_id")
"""What tells one query from another; `gt` is the older name of `ground_truth`."""


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError."""
    for file in files:
        for record in json_lines(file.path):
            yield row_of(record, options, file.model)


def row_of(record: Record, options: ImportOptions, model: str | None) -> OutcomeRow | LeftOut:
    text = ask_of(record, "query", record.get("query"))
    metric = record.optional_text("metric") or "performance"
    if options.metric is not None and metric != options.metric:
        return LeftOut(record.place, f"a score by another metric than '{options.metric}'")
    if is_failed_call(record):
        return LeftOut(record.place, "the call of the model had failed")
    record.require("performance")
    score = record.number("performance")
    if score is None:
        return LeftOut(record.place, "no performance")
    seconds = record.amount("response_time")
    tokens = record.amount("output_tokens")
    return OutcomeRow(
        place=record.place,
        text=text,
        category=category_of(record, options.category_field or "task_name", options.category),
        model=model or record.text("model_name"),
        score=score,
        score_field="performance",
        prompt_id=text_id(*(str(record.get(name)) for name in QUERY_FIELDS if record.get(name) not in (ABSENT, None))),
        metric=metric,
        output_tokens=record.amount("completion_tokens") if tokens is None else tokens,
        latency_ms=None if seconds is None else seconds * 1000,
    )


def is_failed_call(record: Record) -> bool:
    """LLMRouter writes a call that failed as an answer with the error, no tokens and the score 0."""
    response = record.get("response")
    return isinstance(response, str) and response.startswith("ERROR:") and not record.amount("token_num")
