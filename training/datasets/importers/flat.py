"""A flat table, as CSV or JSON lines: one row is one score of one model on one prompt, under our names or others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from base.errors import ConfigError, DataError, allowed_values
from base.record_files import Record, csv_rows, json_lines
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import LeftOut, OutcomeRow, ask_of, category_of

OPTIONS = ("field", "metric", "score_range")
READERS = {".csv": csv_rows, ".jsonl": json_lines}
PATTERNS = tuple(f"*{ending}" for ending in READERS)
FIELDS = (
    "prompt_id",
    "prompt",
    "category",
    "split",
    "model",
    "score",
    "metric",
    "output_tokens",
    "cost_usd",
    "latency_ms",
)
"""prompt, category and score are required, and model where no file argument names it."""


def names_of(options: ImportOptions) -> dict[str, str]:
    """Our name -> the name in the file. Raises ConfigError on a name that is not ours."""
    for ours in options.fields:
        if ours not in FIELDS:
            raise ConfigError(f"--field: unknown name '{ours}'{allowed_values(ours, FIELDS)}")
    names = {name: name for name in FIELDS} | options.fields
    return names | ({"category": options.category_field} if options.category_field else {})


def flat_row(
    record: Record, options: ImportOptions, names: Mapping[str, str], model: str | None
) -> OutcomeRow | LeftOut:
    """One row. `model` is the name that the command line gave the file. Raises DataError."""
    text = ask_of(record, names["prompt"], record.get(names["prompt"]))
    metric = record.optional_text(names["metric"]) or "score"
    if options.metric is not None and metric != options.metric:
        return LeftOut(record.place, f"a score by another metric than '{options.metric}'")
    record.require(names["score"])
    score = record.number(names["score"])
    if score is None:
        return LeftOut(record.place, "no score")
    return OutcomeRow(
        place=record.place,
        text=text,
        category=category_of(record, names["category"], options.category),
        model=model or record.text(names["model"]),
        score=score,
        score_field=names["score"],
        prompt_id=record.optional_text(names["prompt_id"]),
        split=record.optional_text(names["split"]),
        metric=metric,
        cost_usd=record.amount(names["cost_usd"]),
        output_tokens=record.amount(names["output_tokens"]),
        latency_ms=record.amount(names["latency_ms"]),
    )


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError, ConfigError."""
    names = names_of(options)
    for file in files:
        ending = file.path.with_suffix("").suffix if file.path.suffix == ".gz" else file.path.suffix
        if ending not in READERS:
            raise DataError(f"{file.path}: ending '{ending}' is not allowed; expected {' or '.join(READERS)}")
        for record in READERS[ending](file.path):
            yield flat_row(record, options, names, file.model)
