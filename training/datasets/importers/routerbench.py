"""The frame of RouterBench (arXiv 2403.12031): one row a prompt, and for each model a column `<model>` with the score,
`<model>|model_response` and `<model>|total_cost`. Published as pickles, which are not read: a pickle runs code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from base.errors import DataError
from base.record_files import Record, csv_rows, parquet_rows
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import LeftOut, OutcomeRow, ask_of, category_of

OPTIONS = ("score_range",)
PATTERNS = ("*.parquet", "*.csv")
RESPONSE, COST = "|model_response", "|total_cost"
ORACLE, NONE_CORRECT = "oracle_model_to_route_to", "no_model_correct"
FRAME_COLUMNS = ("sample_id", "prompt", "eval_name", ORACLE)
PICKLES = (".pkl", ".pickle", ".p")


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError."""
    for file in files:
        models: tuple[str, ...] | None = None
        for record in open_frame(file):
            if models is None:
                models = models_of(record)
                yield from unread_columns(file, record, models, options)
            yield from rows_of_prompt(record, models, options)


def open_frame(file: ImportFile) -> Iterator[Record]:
    """Raises DataError on a pickle, another ending, or a name for the model, which the frame has itself."""
    suffix = file.path.suffix.lower()
    if suffix in PICKLES:
        raise DataError(
            f"{file.path}: is a pickle, and reading a pickle runs the code in it; if you trust its origin, "
            "convert it yourself: python -c \"import pandas; pandas.read_pickle('F.pkl').to_parquet('F.parquet')\""
        )
    if file.model:
        raise DataError(f"{file.path}: a frame names its models itself; leave out '{file.model}='")
    if suffix not in (".parquet", ".csv"):
        raise DataError(f"{file.path}: ending '{suffix}' is not allowed; expected .parquet or .csv")
    return parquet_rows(file.path) if suffix == ".parquet" else csv_rows(file.path)


def models_of(record: Record) -> tuple[str, ...]:
    """The models of a frame: a column of its own and one for answers or costs. Raises DataError."""
    columns = list(record.values)
    found = {
        name.removesuffix(suffix): None for name in columns for suffix in (RESPONSE, COST) if name.endswith(suffix)
    }
    if not found:
        raise DataError(
            f"{record.place}: no column ends in '{RESPONSE}' or '{COST}', so no model can be told; "
            f"columns: {', '.join(columns)[:300]}"
        )
    for name in found:
        if name not in columns:
            raise record.missing(name)
    return tuple(found)


def unread_columns(
    file: ImportFile, record: Record, models: Sequence[str], options: ImportOptions
) -> Iterator[LeftOut]:
    known = {*FRAME_COLUMNS, options.category_field, *models, *(m + s for m in models for s in (RESPONSE, COST))}
    for name in record.values:
        if name not in known:
            yield LeftOut(str(file.path), f"column '{name}', which belongs to no model")


def rows_of_prompt(record: Record, models: Sequence[str], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    text = ask_of(record, "prompt", unlisted(record.require("prompt")))
    prompt_id = record.text("sample_id")
    category = category_of(record, options.category_field or "eval_name", options.category)
    check_oracle(record, models)
    for model in models:
        score = record.number(model)
        if score is None:
            yield LeftOut(record.place, f"no score of '{model}'")
            continue
        yield OutcomeRow(
            place=record.place,
            text=text,
            category=category,
            model=model,
            score=score,
            score_field=model,
            prompt_id=prompt_id,
            metric="performance",
            cost_usd=record.amount(model + COST),
        )


def check_oracle(record: Record, models: Sequence[str]) -> None:
    """The last column names a model, or none; it need not be there. Raises DataError."""
    oracle = record.optional_text(ORACLE)
    if oracle and oracle not in (*models, NONE_CORRECT):
        raise record.fault(ORACLE, f"'{oracle[:60]}' is not a model of this frame; is this only half of the file?")


def unlisted(prompt: object) -> object:
    """The published frames hold a prompt as Python prints a list of texts: its turns, here one after the other."""
    if not isinstance(prompt, str) or not prompt.startswith("["):
        return prompt
    try:
        turns = ast.literal_eval(prompt)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return prompt
    is_turns = isinstance(turns, list) and bool(turns) and all(isinstance(turn, str) for turn in turns)
    return "\n\n".join(turns) if is_turns else prompt
