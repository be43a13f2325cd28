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
from base.record_files import ABSENT, OptionalText, Record, Row, Text, json_records, parse_json
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import LeftOut, OutcomeRow, PromptRow, ScoreRow

OPTIONS = ("text_field", "metric", "filter", "score_range")
PATTERNS = ("samples_*.jsonl",)
FILE_NAME = re.compile(r"samples_(?P<task>.+?)(_\d{4}-\d\d-\d\dT[\d.-]+)?")


class Sample(Row):
    """What is read of a line beside its score."""

    doc_id: Text
    doc_hash: OptionalText = ""
    filter: OptionalText = ""


@dataclass
class Documents:
    """Documents seen so far: id -> (hash, text, place)."""

    seen: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def check(self, record: Record, prompt: PromptRow, doc_hash: str) -> None:
        """Raises DataError where an id has two documents, or one that is worded differently for another model."""
        name, told = prompt.prompt_id, (doc_hash, prompt.text, record.place)
        known_hash, text, place = self.seen.setdefault(name, told)
        if doc_hash != known_hash:
            raise record.fault("doc_hash", f"'{name}' is another document than at {place}")
        if prompt.text != text:
            raise record.fault(
                "arguments",
                f"'{name}' is worded otherwise than at {place} (a chat template?); name the field of the question "
                f"with --text-field; fields of doc: {', '.join(text_fields(record)) or 'none'}",
            )


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError."""
    documents = Documents()
    for file in files:
        name = FILE_NAME.fullmatch(file.path.stem)
        task = name["task"] if name else file.path.stem
        model = file.model or file.path.resolve().parent.name.replace("__", "/")
        samples = [(record, record.read(Sample)) for record in json_records(file.path)]
        chosen = chosen_filter(samples, options.filter)
        for record, sample in samples:
            if sample.filter != chosen:
                yield LeftOut(record.place, f"under another filter than '{chosen}'")
            else:
                yield row_of(record, sample, options, task, model, documents)


def chosen_filter(samples: Sequence[tuple[Record, Sample]], wanted: str | None) -> str:
    """The filter whose scores are read. Raises DataError when there are several and none was chosen."""
    found = {sample.filter: record for record, sample in samples}
    if wanted in found or (wanted is None and len(found) == 1):
        return wanted or next(iter(found))
    reason = "there are several; choose one with --filter" if wanted is None else f"'{wanted}' is not there; allowed"
    raise list(found.values())[-1].fault("filter", f"{reason}: {', '.join(sorted(found))}")


def row_of(
    record: Record, sample: Sample, options: ImportOptions, task: str, model: str, documents: Documents
) -> OutcomeRow | LeftOut:
    metric, given = metric_of(record, options.metric), {"prompt_id": f"{task}/{sample.doc_id}"}
    text_name, text = prompt_of(record, options.text_field)
    names = {"text": text_name, "category": category_field(record, options.category_field)}
    category = options.same_category or ({} if options.category_field else {"category": task})
    prompt = record.read(PromptRow, names, text=text, **given, **category)
    documents.check(record, prompt, sample.doc_hash)
    score = record.read(ScoreRow, {"score": metric}, metric=metric, model=model, **given)
    return LeftOut(record.place, f"no {metric}") if score.score is None else OutcomeRow(record, prompt, score, metric)


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


def category_field(record: Record, wanted: str | None) -> str:
    """The field of the line, or of its document, that the options name."""
    inside = f"doc.{wanted}"
    return inside if wanted is None or record.get(wanted) is ABSENT else wanted


def prompt_of(record: Record, text_field: str | None) -> tuple[str, Any]:
    """The question's own field, or the first argument of the request, with its name. Raises DataError."""
    if text_field is not None:
        name = "doc." + text_field.removeprefix("doc.")
        return name, record.get(name)
    return "arguments", messages_or_text(first_argument(record))


def first_argument(record: Record) -> Any:
    """The prompt: a text, or a list of messages. `arguments` is {"gen_args_0": {"arg_0": prompt, ...}}, in older files
    [[prompt, ...]]. Raises DataError."""
    found = record.get("arguments")
    while isinstance(found, dict | list) and not is_chat(found):
        if not found:
            raise record.fault("arguments", "is empty")
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
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
