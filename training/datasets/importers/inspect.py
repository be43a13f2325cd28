"""Logs of Inspect (inspect_ai): one file a model and task, as JSON (`.json`) or as a zip of JSON (`.eval`).

Models are joined on task and sample id; epochs of a sample are averaged. Score values "C", "P", "I" and "N" are 1, 0.5,
0 and 0, as Inspect's own `value_to_float` has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from router.errors import DataError
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.inspect_logs import InspectLog, read_inspect_log
from training.datasets.outcome_rows import LeftOut, OutcomeRow, ask_of, category_of
from training.datasets.record_files import ABSENT, Record

SUMMARY = "Inspect logs (.eval or .json), one file a model and task"
OPTIONS = ("metric", "score_range")
PATTERNS = ("*.eval", "*.json")
LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "no": 0.0}
ATTACHMENT = "attachment://"


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError."""
    for file in files:
        log = read_inspect_log(file.path)
        if file.model:
            log = replace(log, name=file.model)
        epochs: dict[str, list[OutcomeRow]] = {}
        seen: dict[tuple[str, str], str] = {}
        for sample in log.samples:
            refuse_repeat(sample, seen)
            row = row_of(sample, log, options)
            if isinstance(row, LeftOut):
                yield row
            else:
                epochs.setdefault(row.prompt_id, []).append(row)
        for rows in epochs.values():
            yield mean_row(rows)


def refuse_repeat(sample: Record, seen: dict[tuple[str, str], str]) -> None:
    """Raises DataError when an epoch of a sample is there already. `seen` maps sample and epoch to their place."""
    key = sample.text("id"), sample.text("epoch")
    if seen.setdefault(key, sample.place) != sample.place:
        raise sample.fault("id", f"epoch {key[1]} of '{key[0]}' is there already at {seen[key]}")


def row_of(sample: Record, log: InspectLog, options: ImportOptions) -> OutcomeRow | LeftOut:
    """One epoch of one sample. Raises DataError."""
    scores = sample.get("scores")
    if scores in (ABSENT, None, {}):
        failed = sample.get("error") not in (ABSENT, None)
        return LeftOut(sample.place, "the sample ended in an error" if failed else "no score")
    metric, value = chosen_score(sample, scores, options.metric)
    score = LETTERS[value] if isinstance(value, str) and value in LETTERS else sample.as_number("scores", value)
    if score is None:
        return LeftOut(sample.place, f"no value of '{metric}'")
    usage = usage_of(sample, log.model)
    seconds = sample.amount("working_time")
    seconds = sample.amount("total_time") if seconds is None else seconds
    category = log.task if options.category_field is None else ""
    return OutcomeRow(
        place=sample.place,
        text=text_of(sample),
        category=options.category or category or category_of(sample, str(options.category_field), None),
        model=log.name,
        score=score,
        score_field=f"scores.{metric}",
        prompt_id=f"{log.task}/{sample.text('id')}",
        metric=metric,
        cost_usd=usage.amount("total_cost"),
        output_tokens=usage.amount("output_tokens"),
        latency_ms=None if seconds is None else seconds * 1000,
    )


def chosen_score(sample: Record, scores: object, wanted: str | None) -> tuple[str, Any]:
    """Name and value of the score to read: `scorer`, or `scorer.key` where a scorer gives several.

    Raises:
        DataError: there are several and none was chosen, or the chosen one is not there.
    """
    if not isinstance(scores, dict):
        raise sample.fault("scores", "expected an object of scorers")
    values: dict[str, Any] = {}
    for scorer, score in scores.items():
        if not isinstance(score, dict) or "value" not in score:
            raise sample.fault(f"scores.{scorer}", "has no value")
        value = score["value"]
        several = value if isinstance(value, dict) else {}
        values |= {f"{scorer}.{key}": part for key, part in several.items()} or {scorer: value}
    if wanted is None and len(values) == 1:
        return next(iter(values.items()))
    if wanted is None:
        raise sample.fault("scores", f"there are several; choose one with --metric: {', '.join(sorted(values))}")
    if wanted not in values:
        raise sample.fault("scores", f"'{wanted}' is not there; allowed: {', '.join(sorted(values))}")
    return wanted, values[wanted]


def usage_of(sample: Record, model: str) -> Record:
    """What the model itself used; `model_usage` counts graders too. Empty where it is not told."""
    usage = sample.get("model_usage")
    own = usage.get(model) if isinstance(usage, dict) else None
    return Record(sample.place, own if isinstance(own, Mapping) else {})


def text_of(sample: Record) -> str:
    """The question, and the options of a multiple choice one, lettered as Inspect does. Raises DataError."""
    text = ask_of(sample, "input", attached(sample, sample.require("input")))
    choices = sample.get("choices")
    if not isinstance(choices, list) or not choices:
        return text
    lettered = [f"{chr(ord('A') + i)}) {attached(sample, choice)}" for i, choice in enumerate(choices)]
    return "\n".join([text, "", *lettered])


def attached(sample: Record, value: Any) -> Any:
    """A value with its long texts, which Inspect keeps aside under a hash, put back. Raises DataError."""
    if isinstance(value, list):
        return [attached(sample, part) for part in value]
    if isinstance(value, dict):
        return {name: attached(sample, part) for name, part in value.items()}
    if not isinstance(value, str) or not value.startswith(ATTACHMENT):
        return value
    attachments = sample.get("attachments")
    text = attachments.get(value.removeprefix(ATTACHMENT)) if isinstance(attachments, dict) else None
    if not isinstance(text, str):
        raise sample.fault("attachments", f"'{value[:60]}' is not there")
    return text


def mean_row(rows: Sequence[OutcomeRow]) -> OutcomeRow:
    """The epochs of one sample as one row: the mean of each number that all have. Raises DataError."""
    first = rows[0]
    for row in rows[1:]:
        if (row.text, row.category) != (first.text, first.category):
            raise DataError(f"{row.place}: '{row.prompt_id}' is another sample than at {first.place}")

    def mean(name: str) -> float | None:
        known = [value for value in (getattr(row, name) for row in rows) if value is not None]
        return fmean(known) if len(known) == len(rows) else None

    return replace(
        first,
        score=fmean(row.score for row in rows),
        cost_usd=mean("cost_usd"),
        output_tokens=mean("output_tokens"),
        latency_ms=mean("latency_ms"),
    )
