"""Samples of lm-evaluation-harness (`--log_samples`): `<model>/samples_<task>_<date>.jsonl`, one file a model and task.

One line is one document under one filter. The prompt is the first argument of the request, as rendered for the model;
models are joined on task and `doc_id`, and `doc_hash` proves that it is the same document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from base.errors import DataError
from base.record_files import ABSENT, Record, json_lines, kind_of, parse_json
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import LeftOut, OutcomeRow, ask_of, category_of

OPTIONS = ("text_field", "metric", "filter", "score_range")
PATTERNS = ("samples_*.jsonl",)
FILE_NAME = re.compile(r"samples_(?P<task>.+?)(_\d{4}-\d\d-\d\dT[\d.-]+)?")


@dataclass
class Documents:
    """Documents seen so far: id -> (hash, text, place)."""

    seen: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def check(self, record: Record, prompt_id: str, text: str) -> None:
        """Raises DataError where an id has two documents, or one that is worded differently for another model."""
        doc_hash, earlier_text, place = self.seen.setdefault(
            prompt_id, (record.optional_text("doc_hash"), text, record.place)
        )
        if doc_hash != record.optional_text("doc_hash"):
            raise record.fault("doc_hash", f"'{prompt_id}' is another document than at {place}")
        if text != earlier_text:
            raise record.fault(
                "arguments",
                f"'{prompt_id}' is worded otherwise than at {place} (a chat template?); name the field of the question "
                f"with --text-field; fields of doc: {', '.join(text_fields(record)) or 'none'}",
            )


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError."""
    documents = Documents()
    for file in files:
        name = FILE_NAME.fullmatch(file.path.stem)
        task = name["task"] if name else file.path.stem
        model = file.model or file.path.resolve().parent.name.replace("__", "/")
        records = list(json_lines(file.path))
        chosen = chosen_filter(records, options.filter)
        for record in records:
            if record.get("filter") not in (ABSENT, chosen):
                yield LeftOut(record.place, f"under another filter than '{chosen}'")
            else:
                yield row_of(record, options, task, model, documents)


def chosen_filter(records: Sequence[Record], wanted: str | None) -> str | None:
    """The filter whose scores are read. Raises DataError when there are several and none was chosen."""
    found = {record.text("filter"): record for record in records if record.get("filter") is not ABSENT}
    if wanted is None and len(found) > 1:
        last = list(found.values())[-1]
        raise last.fault("filter", f"there are several; choose one with --filter: {', '.join(sorted(found))}")
    if wanted is not None and found and wanted not in found:
        last = list(found.values())[-1]
        raise last.fault("filter", f"'{wanted}' is not there; allowed: {', '.join(sorted(found))}")
    return wanted or next(iter(found), None)


def row_of(record: Record, options: ImportOptions, task: str, model: str, documents: Documents) -> OutcomeRow | LeftOut:
    metric = metric_of(record, options.metric)
    prompt_id = f"{task}/{record.text('doc_id')}"
    text = prompt_of(record, options.text_field)
    documents.check(record, prompt_id, text)
    score = record.as_number(metric, record.require(metric))
    if score is None:
        return LeftOut(record.place, f"no {metric}")
    return OutcomeRow(
        place=record.place,
        text=text,
        category=task_category(record, options, task),
        model=model,
        score=score,
        score_field=metric,
        prompt_id=prompt_id,
        metric=metric,
    )


def metric_of(record: Record, wanted: str | None) -> str:
    """The metric to read: the one asked for, or the only one. Raises DataError."""
    if wanted is not None:
        return wanted
    listed = record.get("metrics")
    if not isinstance(listed, list) or not listed:
        raise record.fault("metrics", "does not list the metrics; choose one with --metric")
    if len(listed) > 1:
        raise record.fault("metrics", f"there are several; choose one with --metric: {', '.join(map(str, listed))}")
    return str(listed[0])


def task_category(record: Record, options: ImportOptions, task: str) -> str:
    """The field of the line, or of its document, that the options name; without one, the task."""
    if options.category_field is None:
        return options.category or task
    inside = f"doc.{options.category_field}"
    name = inside if record.get(options.category_field) is ABSENT and record.get(inside) is not ABSENT else None
    return category_of(record, name or options.category_field, options.category)


def prompt_of(record: Record, text_field: str | None) -> str:
    """The question's own field, or the first argument of the request. Raises DataError."""
    if text_field is not None:
        name = "doc." + text_field.removeprefix("doc.")
        return ask_of(record, name, record.get(name))
    return ask_of(record, "arguments", messages_or_text(first_argument(record)))


def first_argument(record: Record) -> Any:
    """The prompt: a text, or a list of messages. `arguments` is {"gen_args_0": {"arg_0": prompt, ...}}, in older files
    [[prompt, ...]]. Raises DataError."""
    found = record.require("arguments")
    while isinstance(found, dict | list) and not is_chat(found):
        if not found:
            raise record.fault("arguments", "is empty")
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
    if not isinstance(found, str | list):
        raise record.fault("arguments", f"expected the prompt as a text; got {kind_of(found)}")
    return found


def is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)


def messages_or_text(prompt: Any) -> Any:
    """Chat models are asked with a list of messages, mostly written as JSON in a text."""
    if not isinstance(prompt, str) or not prompt.lstrip().startswith("[{"):
        return prompt
    try:
        messages = parse_json(prompt, "")
    except DataError:
        return prompt
    return messages if is_chat(messages) else prompt


def text_fields(record: Record) -> list[str]:
    document = record.get("doc")
    return [name for name, value in document.items() if isinstance(value, str)] if isinstance(document, dict) else []
