"""Outcome tables on disk: a folder with `prompts.parquet` (a row for each prompt) and `scores.parquet` (a row for each
prompt, model and metric). Sizes and prices are in a `models.parquet` in that folder or the one above.

prompts: prompt_id, messages (JSON list of role and content) and category are required; split and source are optional.
scores: prompt_id, model and score in [0, 1] are required; metric, output_tokens, output_chars (if tokens were not
counted), cost_usd and latency_ms are optional. A third file, `answers.parquet`, may hold the answers: prompt_id, model,
and answer, spelled so that equal answers are equal; empty if the reply states none. If a prompt's `meta` (JSON) has
`tools`, the answer is the reply itself, whose calls are compared.

Shapes: n prompts, m experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from coe.base.errors import DataError
from coe.base.record_files import Amount, Finite, OptionalText, Row, Text, parse_json, read_records
from coe.router.answers import calls_of
from coe.router.config.composition import CoeConfig
from coe.router.prices.cost import Price
from coe.router.types import IntArray
from coe.training.datasets.outcome_rows import (
    ANSWERS_FILE,
    MODELS_FILE,
    PROMPTS_FILE,
    SCORES_FILE,
    PromptRow,
    Scored,
    ScoreRow,
    table_of,
)
from coe.training.types import COLUMNS, NO_ANSWER, NOT_COMPARED, ModelFacts, OutcomeTable, unknown


class StoredPrompt(PromptRow):
    prompt_id: Text
    source: OptionalText = ""
    tools: Any = None  # that the prompt offers


class StoredScore(ScoreRow):
    prompt_id: Text
    score: Annotated[Finite, Field(ge=0, le=1)]


class ModelName(Row):
    model: Text


class AnswerRow(ModelName):
    prompt_id: Text
    answer: OptionalText


class ModelRow(ModelName):
    params_active_b: Amount = None
    price_in_per_m: Amount = None
    price_out_per_m: Amount = None


def read_outcomes(
    folder: Path,
    *,
    experts: Sequence[str] | None = None,
    keep_partial: bool = False,
) -> OutcomeTable:
    """Load an outcome table.

    Args:
        experts: models to keep, in this order; None keeps all, sorted.
        keep_partial: keep prompts that some expert has no score on; by default only prompts that all have are kept.

    Raises:
        DataError: a file, a row or a name is wrong, or no prompt has a score of every expert. The message names file,
            row and field.
    """
    prompts, path = read_prompts(folder / PROMPTS_FILE), folder / SCORES_FILE
    scores: list[Scored] = []
    for record in read_records(path):
        row = record.read(StoredScore)
        if row.prompt_id not in prompts:
            raise record.fault("prompt_id", f"'{row.prompt_id}' is not in {PROMPTS_FILE}")
        scores.append((record.place, row))
    if not scores:
        raise DataError(f"{path}: holds no score")
    models = next((place for place in (folder, folder.resolve().parent) if (place / MODELS_FILE).is_file()), None)
    facts = {} if models is None else read_models(models / MODELS_FILE)
    table = table_of(prompts, scores, str(path), experts, facts=facts)
    answers = read_answers(folder / ANSWERS_FILE, table, prompts)
    sources = sorted({row.source or folder.name for row in prompts.values()})
    table = replace(table, answers=answers, source=" + ".join(sources))
    return scored_rows(table, path) if keep_partial else complete_rows(table, path)


def read_prompts(path: Path) -> dict[str, StoredPrompt]:
    """Load all prompts by id; raise DataError if a row is wrong or an id appears twice."""
    found: dict[str, StoredPrompt] = {}
    for record in read_records(path):
        messages = record.get("messages")
        if isinstance(messages, str):
            messages = parse_json(messages, f"{record.place}, field 'messages'")
        meta = record.get("meta")
        meta = parse_json(meta, f"{record.place}, field 'meta'") if isinstance(meta, str) and meta else meta
        tools = meta.get("tools") if isinstance(meta, dict) else None
        row = record.read(StoredPrompt, {"text": "messages"}, text=messages, tools=tools)
        if row.prompt_id in found:
            raise record.fault("prompt_id", f"'{row.prompt_id}' is there already")
        found[row.prompt_id] = row
    return found


def scored_rows(table: OutcomeTable, path: Path) -> OutcomeTable:
    """Select the prompts that some expert has a score on; raise DataError, naming `path`, if there is none."""
    keep = np.asarray(np.isfinite(table.scores).any(axis=1))
    if not keep.any():
        raise DataError(f"{path}: no prompt has a score")
    return table.rows(keep)


def complete_rows(table: OutcomeTable, path: Path) -> OutcomeTable:
    """Select the prompts that every expert has a score on; raise DataError, naming `path`, if there is none."""
    keep = np.asarray(np.isfinite(table.scores).all(axis=1))
    if not keep.any():
        raise DataError(f"{path}: no prompt has a score of every expert; {coverage(table)}; choose fewer experts")
    return table.rows(keep)


def coverage(table: OutcomeTable) -> str:
    """Describe the most and the least complete experts, for an error."""
    counts = np.isfinite(table.scores).sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    named = [f"{table.experts[e]} has {counts[e]} of {len(table.prompt_ids)}" for e in order]
    return ", ".join(named if len(named) <= 6 else [*named[:3], "...", *named[-3:]])


def read_answers(path: Path, table: OutcomeTable, asked: Mapping[str, StoredPrompt]) -> IntArray | None:
    """Load the numbers of answers (n, m), as in `OutcomeTable`; None without the file. Raise DataError if a row is
    wrong."""
    if not path.exists():
        return None
    prompts, experts = ({name: i for i, name in enumerate(names)} for names in (table.prompt_ids, table.experts))
    rows = [record.read(AnswerRow) for record in read_records(path)]
    kept = [row for row in rows if row.prompt_id in prompts and row.model in experts]
    keys = {name: calls_of(asked[name].tools) for name in prompts if asked[name].tools}
    cells = [
        (prompts[name], experts[row.model], keys[name](row.answer) if name in keys else row.answer)
        for row in kept
        for name in (row.prompt_id,)
    ]
    return number_answers(cells, table.scores.shape)


def number_answers(given: Iterable[tuple[int, int, str | None]], shape: tuple[int, ...]) -> IntArray:
    """Assign numbers to answers as in `OutcomeTable`, (n, m), from (prompt, expert, answer); an empty one is none."""
    found = np.full(shape, NOT_COMPARED, dtype=np.int64)
    numbers: dict[tuple[int, str], int] = {}
    counts: Counter[int] = Counter()
    for prompt, expert, answer in given:
        if not answer:
            found[prompt, expert] = NO_ANSWER
            continue
        if (prompt, answer) not in numbers:
            numbers[prompt, answer] = counts[prompt]
            counts[prompt] += 1
        found[prompt, expert] = numbers[prompt, answer]
    return found


def read_models(path: Path) -> dict[str, ModelFacts]:
    """Load the facts of each model; raise DataError if a row is wrong. Only the column `model` is required; a size
    of 0 is unknown, as in experts.yaml."""
    found = {}
    for row in (record.read(ModelRow) for record in read_records(path)):
        prices = {"input": row.price_in_per_m, "output": row.price_out_per_m}
        known = {kind: price for kind, price in prices.items() if price is not None}
        found[row.model] = ModelFacts(row.params_active_b or None, Price(known) if len(known) == len(prices) else None)
    return found


def facts_of_config(config: CoeConfig) -> dict[str, ModelFacts]:
    """Return the facts of each expert of experts.yaml. A size of 0 there means that it is not hosted here: unknown."""
    return {name: ModelFacts(entry.active_b or None, entry.chat_price) for name, entry in config.experts.items()}


def read_outcome_folders(root: Path, experts: Sequence[str]) -> OutcomeTable:
    """Load the grades of some experts, in their order; ungraded experts are left out.

    The same question of the same category, scored by the same metric, is one prompt, whichever table it is in. An
    expert graded on it twice has the score of the table that was written later.

    Args:
        root: a folder with an outcome table, or with folders of them.

    Raises:
        DataError: there is no table, none grades any of the experts, or one that does cannot be read.
    """
    folders = outcome_folders(root)
    if not folders:
        raise DataError(
            f"{root}: holds no outcome table ({PROMPTS_FILE} and {SCORES_FILE}, there or in its folders); "
            "run `coe eval collect`"
        )
    graded = {folder: graded_models(folder) for folder in folders}
    known = [folder for folder in folders if graded[folder] & set(experts)]
    if not known:
        names = sorted(set().union(*graded.values()))
        raise DataError(
            f"{root}: no expert of experts.yaml was graded there (graded: {', '.join(names)}; "
            f"experts.yaml: {', '.join(experts)}); run `coe eval collect`"
        )
    tables = [
        read_outcomes(folder, experts=[name for name in experts if name in graded[folder]], keep_partial=True)
        for folder in known
    ]
    return tables[0] if len(tables) == 1 else merge_tables(tables, experts)


def outcome_folders(root: Path) -> tuple[Path, ...]:
    """Find the folders with an outcome table; the last one is the newest."""
    below = root.iterdir() if root.is_dir() else ()
    places = [root] if is_table(root) else sorted(path for path in below if path.is_dir() and is_table(path))
    return tuple(sorted(places, key=written_at))


def is_table(folder: Path) -> bool:
    """Return whether a folder has one of both files: half a table is an error to report; answers alone are no table."""
    return (folder / PROMPTS_FILE).exists() or (folder / SCORES_FILE).exists()


def written_at(folder: Path) -> float:
    """Return when a table was written, in Unix seconds; 0 for half a table."""
    path = folder / SCORES_FILE
    return path.stat().st_mtime if path.exists() else 0.0


def graded_models(folder: Path) -> set[str]:
    """Load the names of the models that a table grades; raise DataError if a row is wrong."""
    return {record.read(ModelName).model for record in read_records(folder / SCORES_FILE)}


def graded_at(root: Path) -> dict[str, float]:
    """Return the Unix time of each model's newest grades; raise DataError if a row is wrong."""
    return {name: written_at(folder) for folder in outcome_folders(root) for name in graded_models(folder)}


def merge_tables(tables: Sequence[OutcomeTable], experts: Sequence[str]) -> OutcomeTable:
    """Merge several tables, the later ones over the earlier ones. A score comes with the cost, length and latency of
    its own answer. Numbers of answers are those of the last table with answers to the prompt: two tables' cannot be
    compared."""
    names = tuple(name for name in experts if any(name in table.experts for table in tables))
    numbers: dict[tuple[str, str, str], int] = {}
    asked = [[(table.metric, *pair) for pair in zip(table.categories, table.texts, strict=True)] for table in tables]
    rows = [np.array([numbers.setdefault(each, len(numbers)) for each in own], dtype=np.int64) for own in asked]
    shape, matrices = (len(numbers), len(names)), dict[str, Any]()
    for table, row in zip(tables, rows, strict=True):
        columns = np.array([names.index(name) for name in table.experts])
        prompt, expert = np.nonzero(np.isfinite(table.scores))
        for kind in (matrices.keys() | table.matrices) - {"answers"}:
            values = table.matrices.get(kind, unknown(kind, table.scores.shape))
            matrix = matrices.setdefault(kind, unknown(kind, shape))
            matrix[row[prompt], columns[expert]] = values[prompt, expert]
        if table.answers is not None:
            answers = matrices.setdefault("answers", unknown("answers", shape))
            answers[row] = NOT_COMPARED
            answers[row[:, None], columns] = table.answers
    _, first = np.unique(np.concatenate(rows), return_index=True)
    texts_of = {name: [text for table in tables for text in getattr(table, name)] for name in COLUMNS}
    kept: dict[str, Any] = {name: tuple(values[i] for i in first) for name, values in texts_of.items()}
    return OutcomeTable(
        **kept | {"prompt_ids": make_unique(kept["prompt_ids"])},
        **matrices,
        experts=names,
        metric=" + ".join(sorted({table.metric for table in tables})),
        source=" + ".join(sorted({table.source for table in tables})),
        active_params_b={name: size for table in tables for name, size in table.active_params_b.items()},
        is_cost_estimated=any(table.is_cost_estimated for table in tables),
    )


def make_unique(ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ids made unique: a repeated one gets a number."""
    seen: dict[str, int] = {}
    found = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(found)
