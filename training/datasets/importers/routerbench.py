"""The frame of RouterBench (arXiv 2403.12031): one row a prompt, and for each model a column `<model>` with the score,
`<model>|model_response` and `<model>|total_cost`. Published as pickles, which are not read: a pickle runs code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from base.errors import DataError
from base.record_files import Record, read_records
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import LeftOut, NamedPrompt, OutcomeRow, ScoreRow

OPTIONS = ("score_range",)
PATTERNS = ("*.parquet", "*.csv")
RESPONSE, COST = "|model_response", "|total_cost"
ORACLE, NONE_CORRECT = "oracle_model_to_route_to", "no_model_correct"
FRAME_COLUMNS = ("sample_id", "prompt", "eval_name", ORACLE)


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
    """Raises DataError on another ending, or a name for the model, which the frame has itself."""
    suffix = file.path.suffix.lower()
    if file.model:
        raise DataError(f"{file.path}: a frame names its models itself; leave out '{file.model}='")
    if suffix not in (".parquet", ".csv"):
        raise DataError(
            f"{file.path}: ending '{suffix}' is not allowed; expected .parquet or .csv (reading a pickle runs its code)"
        )
    return read_records(file.path)


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
    return tuple(found)


def unread_columns(
    file: ImportFile, record: Record, models: Sequence[str], options: ImportOptions
) -> Iterator[LeftOut]:
    known = {*FRAME_COLUMNS, options.category_field, *models, *(m + s for m in models for s in (RESPONSE, COST))}
    for name in record.values:
        if name not in known:
            yield LeftOut(str(file.path), f"column '{name}', which belongs to no model")


def rows_of_prompt(record: Record, models: Sequence[str], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    names = {"prompt_id": "sample_id", "text": "prompt", "category": options.category_field or "eval_name"}
    prompt = record.read(NamedPrompt, names, text=unlisted(record.get("prompt")), **options.same_category)
    oracle = record.values.get(ORACLE) or NONE_CORRECT
    if oracle not in (*models, NONE_CORRECT):
        raise record.fault(ORACLE, f"'{str(oracle)[:60]}' is not a model of this frame; is this only half of the file?")
    for model in models:
        columns = {"score": model, "cost_usd": model + COST}
        score = record.read(ScoreRow, columns, model=model, metric="performance")
        if score.score is None:
            yield LeftOut(record.place, f"no score of '{model}'")
        else:
            yield OutcomeRow(record, prompt, score, model)


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
