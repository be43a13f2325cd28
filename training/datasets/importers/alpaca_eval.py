"""AlpacaEval's `annotations.json`: one file a model (`generator_2`), compared with a reference model (`generator_1`).

`preference` is 1 when the reference is better, 2 when the model is, in between when the judge was unsure; 0, in older
files, is a draw. The score is `preference - 1`: the (weighted) win of the model over the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.errors import DataError
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import ROUNDING, LeftOut, OutcomeRow, ask_of, category_of
from training.datasets.record_files import Record, json_list

SUMMARY = "AlpacaEval annotations.json, one file a model"
OPTIONS = ("metric",)
PATTERNS = ("*annotations*.json",)
DRAW = 1.5


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError, also when a second judge or reference comes, even on another prompt: wins over two references
    have no common scale."""
    first: OutcomeRow | None = None
    for file in files:
        for record in json_list(file.path):
            row = row_of(record, options, file.model)
            if isinstance(row, OutcomeRow):
                first = first or row
                if row.metric != first.metric:
                    raise DataError(
                        f"{row.place}: is scored by '{row.metric}', and by '{first.metric}' at {first.place}; "
                        "choose one with --metric"
                    )
            yield row


def row_of(record: Record, options: ImportOptions, model: str | None) -> OutcomeRow | LeftOut:
    text = ask_of(record, "instruction", record.get("instruction"))
    metric = metric_of(record)
    if options.metric is not None and metric != options.metric:
        return LeftOut(record.place, f"judged by another annotator or reference than '{options.metric}'")
    record.require("preference")
    preference = record.number("preference")
    if preference is None:
        return LeftOut(record.place, "no preference: the judge's answer could not be read")
    if preference != 0 and not 1 - ROUNDING <= preference <= 2 + ROUNDING:
        raise record.fault("preference", f"{preference:g} is not allowed; expected 1 to 2, or 0 for a draw")
    return OutcomeRow(
        place=record.place,
        text=text,
        category=category_of(record, options.category_field or "dataset", options.category),
        model=model or record.text("generator_2"),
        score=(preference or DRAW) - 1,
        score_field="preference",
        metric=metric,
    )


def metric_of(record: Record) -> str:
    """Scores of another judge, or against another reference, are not comparable."""
    return f"win_over_{record.text('generator_1')}_by_{record.optional_text('annotator') or 'unknown'}"
