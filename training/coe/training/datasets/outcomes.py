"""Outcome tables on disk: a folder with `prompts.parquet` (one row a prompt) and `scores.parquet` (one row a prompt,
model and metric), and sizes and prices in a `models.parquet` in that folder or the one above.

prompts: prompt_id, messages (JSON list of role and content) and category are required; split and source are
read when there. scores: prompt_id, model and score in [0, 1] are required; metric, output_tokens,
output_chars (where tokens were not counted), cost_usd and latency_ms are read when there. A third file,
`answers.parquet`, may say what was answered: prompt_id, model, and answer, in a spelling in which equal answers are
equal; empty where the reply states none. Its logprob, the mean of the reply's tokens, is read when there.

Shapes: n prompts, m experts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from coe.base.errors import DataError
from coe.base.record_files import Amount, Finite, Number, OptionalText, Row, Text, parse_json, read_records
from coe.router.config import CoeConfig
from coe.router.cost import Price
from coe.router.types import FloatArray, IntArray
from coe.training.datasets.outcome_rows import PromptRow, Scored, ScoreRow, table_of
from coe.training.types import NO_ANSWER, NOT_COMPARED, ModelFacts, OutcomeTable

PROMPTS_FILE, SCORES_FILE, ANSWERS_FILE, MODELS_FILE = (
    f"{name}.parquet" for name in ("prompts", "scores", "answers", "models")
)


class StoredPrompt(PromptRow):
    prompt_id: Text
    source: OptionalText = ""


class StoredScore(ScoreRow):
    prompt_id: Text
    score: Annotated[Finite, Field(ge=0, le=1)]


class ModelName(Row):
    model: Text


class AnswerRow(ModelName):
    prompt_id: Text
    answer: OptionalText
    logprob: Number = None


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
    """Reads an outcome table.

    Args:
        experts: models to keep, in this order; None keeps all, sorted.
        keep_partial: keep prompts that some expert has no score on; by default only prompts that all have are kept.

    Raises:
        DataError: with file, row and field where one is at fault; a missing file or column, an unknown name, several
            metrics on one prompt, a score out of range, a pair scored twice, or no prompt that every expert has.
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
    answers, logprobs = read_answers(folder / ANSWERS_FILE, table)
    sources = sorted({row.source or folder.name for row in prompts.values()})
    table = replace(table, answers=answers, logprobs=logprobs, source=" + ".join(sources))
    return scored_rows(table, path) if keep_partial else complete_rows(table, path)


def read_prompts(path: Path) -> dict[str, StoredPrompt]:
    """All prompts by id. Raises DataError."""
    found: dict[str, StoredPrompt] = {}
    for record in read_records(path):
        messages = record.get("messages")
        if isinstance(messages, str):
            messages = parse_json(messages, f"{record.place}, field 'messages'")
        row = record.read(StoredPrompt, {"text": "messages"}, text=messages)
        if row.prompt_id in found:
            raise record.fault("prompt_id", f"'{row.prompt_id}' is there already")
        found[row.prompt_id] = row
    return found


def scored_rows(table: OutcomeTable, path: Path) -> OutcomeTable:
    """The prompts that some expert has a score on. Raises DataError when there is none; `path` is for its message."""
    keep = np.asarray(np.isfinite(table.scores).any(axis=1))
    if not keep.any():
        raise DataError(f"{path}: no prompt has a score")
    return table.rows(keep)


def complete_rows(table: OutcomeTable, path: Path) -> OutcomeTable:
    """The prompts that every expert has a score on. Raises DataError when there is none; `path` is for its message."""
    keep = np.asarray(np.isfinite(table.scores).all(axis=1))
    if not keep.any():
        raise DataError(f"{path}: no prompt has a score of every expert; {coverage(table)}; choose fewer experts")
    return table.rows(keep)


def coverage(table: OutcomeTable) -> str:
    """The most and the least complete experts, for an error."""
    counts = np.isfinite(table.scores).sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    named = [f"{table.experts[e]} has {counts[e]} of {len(table.prompt_ids)}" for e in order]
    return ", ".join(named if len(named) <= 6 else [*named[:3], "...", *named[-3:]])


def read_answers(path: Path, table: OutcomeTable) -> tuple[IntArray | None, FloatArray | None]:
    """(n, m) numbers of answers and log-probabilities as `OutcomeTable` has them; None without the file, or without
    any. Raises DataError."""
    if not path.exists():
        return None, None
    prompts, experts = ({name: i for i, name in enumerate(names)} for names in (table.prompt_ids, table.experts))
    rows = [record.read(AnswerRow) for record in read_records(path)]
    kept = [row for row in rows if row.prompt_id in prompts and row.model in experts]
    cells = [(prompts[row.prompt_id], experts[row.model], row.answer) for row in kept]
    logprobs = np.full(table.scores.shape, np.nan, dtype=np.float32)
    for (prompt, expert, _), row in zip(cells, kept, strict=True):
        logprobs[prompt, expert] = np.nan if row.logprob is None else row.logprob
    return numbered_answers(cells, table.scores.shape), logprobs if np.isfinite(logprobs).any() else None


def numbered_answers(given: Iterable[tuple[int, int, str | None]], shape: tuple[int, ...]) -> IntArray:
    """(n, m) numbers of answers as `OutcomeTable` has them, from prompt, expert and answer (empty: none)."""
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
    """Facts per model. Only the column `model` is required; a size of 0 is unknown, as in experts.yaml. Raises
    DataError."""
    found = {}
    for row in (record.read(ModelRow) for record in read_records(path)):
        prices = {"input": row.price_in_per_m, "output": row.price_out_per_m}
        known = {kind: price for kind, price in prices.items() if price is not None}
        found[row.model] = ModelFacts(row.params_active_b or None, Price(known) if len(known) == len(prices) else None)
    return found


def facts_of_config(config: CoeConfig) -> dict[str, ModelFacts]:
    """Facts per expert of experts.yaml. A size of 0 there means that it is not hosted here: unknown."""
    return {name: ModelFacts(entry.active_b or None, entry.chat_price) for name, entry in config.experts.items()}


def write_outcomes(table: OutcomeTable, folder: Path) -> None:
    """Writes a table so that `read_outcomes` gives it back; cells without a score are left out.

    Raises:
        DataError: a name is not UTF-8, as names of files and words of a command line may be; nothing is written then.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes = [{"model": name, "params_active_b": size} for name, size in table.active_params_b.items()]
    rows = {PROMPTS_FILE: prompt_rows(table), SCORES_FILE: score_rows(table), ANSWERS_FILE: answer_rows(table)}
    try:
        files = {name: pa.Table.from_pylist(found) for name, found in (rows | {MODELS_FILE: sizes}).items() if found}
    except UnicodeEncodeError as error:
        raise DataError(f"{folder}: a name or text of the table cannot be written as UTF-8 ({error.reason})") from error
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        pq.write_table(file, folder / name, compression="zstd")


def prompt_rows(table: OutcomeTable) -> list[dict[str, str]]:
    columns = zip(table.prompt_ids, table.categories, table.splits, table.texts, strict=True)
    return [
        {"prompt_id": prompt_id, "source": table.source, "category": category}
        | {"split": split, "messages": json.dumps([{"role": "user", "content": text}], ensure_ascii=False)}
        for prompt_id, category, split, text in columns
    ]


def score_rows(table: OutcomeTable) -> list[dict[str, Any]]:
    """Scores with what is known of them."""
    amounts = {"output_tokens": table.output_tokens, "cost_usd": table.cost_usd, "latency_ms": table.latency_ms}
    return [
        cell_of(table, at) | {"source": table.source, "score": float(table.scores[at]), "metric": table.metric}
        | {name: float(cells[at]) if np.isfinite(cells[at]) else None for name, cells in amounts.items()}
        for at in zip(*np.nonzero(np.isfinite(table.scores)), strict=True)
    ]  # fmt: skip


def answer_rows(table: OutcomeTable) -> list[dict[str, Any]]:
    """The answers that were compared, by their numbers."""
    if table.answers is None:
        return []
    return [
        cell_of(table, at) | {"answer": str(table.answers[at]) if table.answers[at] > NO_ANSWER else None}
        | ({} if table.logprobs is None else {"logprob": float(table.logprobs[at])})
        for at in zip(*np.nonzero(table.answers > NOT_COMPARED), strict=True)
    ]  # fmt: skip


def cell_of(table: OutcomeTable, at: tuple[Any, ...]) -> dict[str, Any]:
    return {"prompt_id": table.prompt_ids[at[0]], "model": table.experts[at[1]]}
