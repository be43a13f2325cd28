"""A flat table, as CSV or JSON lines: one row is one score of one model on one prompt, under our names or others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from base.errors import ConfigError, DataError, allowed_values
from base.record_files import ending_of, read_records
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import LeftOut, OutcomeRow, PromptRow, ScoreRow

OPTIONS = ("field", "metric", "score_range")
ENDINGS = (".csv", ".jsonl")
PATTERNS = tuple(f"*{ending}" for ending in ENDINGS)
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
    return names | {"text": names["prompt"], "category": options.category_field or names["category"]}


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError, ConfigError."""
    names = names_of(options)
    for file in files:
        if ending_of(file.path) not in ENDINGS:
            allowed = " or ".join(ENDINGS)
            raise DataError(f"{file.path}: ending '{ending_of(file.path)}' is not allowed; expected {allowed}")
        for record in read_records(file.path):
            prompt = record.read(PromptRow, names, **options.same_category)
            score = record.read(ScoreRow, names, **({"model": file.model} if file.model else {}))
            if options.metric not in (None, score.metric):
                yield LeftOut(record.place, f"a score by another metric than '{options.metric}'")
            elif score.score is None:
                yield LeftOut(record.place, "no score")
            else:
                yield OutcomeRow(record, prompt, score, names["score"])
