"""Outcome tables on disk: a folder with `prompts.parquet` (one row a prompt) and `scores.parquet` (one row a prompt,
model and metric), and sizes and prices in a `models.parquet` in that folder or the one above.

prompts: prompt_id, messages (JSON list of role and content) and category are required; split, source, benchmark and
language are read when there. scores: prompt_id, model and score in [0, 1] are required; metric, output_tokens,
output_chars (where tokens were not counted), cost_usd and latency_ms are read when there. A third file,
`answers.parquet`, may say what was answered: prompt_id, model, and answer, in a spelling in which equal answers are
equal; empty where the reply states none. Its logprob, the mean of the reply's tokens, is read when there.

Shapes: n prompts, m experts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from base.columns import numbers, optional_texts, positions, read_table, texts
from base.errors import DataError
from router.types import Float64Array, FloatArray, IntArray
from training.datasets.outcome_files import (
    ALL_PROMPTS,
    MODELS_FILE,
    PROMPTS_FILE,
    SCORES_FILE,
    PromptColumns,
    PromptRows,
    ScoreRows,
    choose_experts,
    choose_metric,
    estimated_cost,
    find_models_file,
    read_models,
    read_prompts,
    read_scores,
    refuse_repeats,
    reply_tokens,
    write_models,
)
from training.types import NO_ANSWER, NOT_COMPARED, ModelFacts, OutcomeTable

ANSWERS_FILE = "answers.parquet"


def read_outcomes(
    folder: Path,
    *,
    experts: Sequence[str] | None = None,
    prompts: PromptColumns = ALL_PROMPTS,
    metric: str | None = None,
    keep_partial: bool = False,
    models: Mapping[str, ModelFacts] | None = None,
) -> OutcomeTable:
    """Reads an outcome table.

    Args:
        experts: models to keep, in this order; None keeps all, sorted.
        metric: only scores of this metric; needed where one prompt was scored by several.
        keep_partial: keep prompts that some expert has no score on; by default only prompts that all have are kept.
        models: sizes and prices of models that no `models.parquet` there names.

    Raises:
        DataError: with file, row and column where one is at fault; a missing file or column, an unknown name, several
            metrics without a choice, a score out of range, a pair scored twice, or no prompt that every expert has.
    """
    asked = read_prompts(folder / PROMPTS_FILE, prompts)
    path = folder / SCORES_FILE
    rows = choose_metric(path, choose_experts(path, read_scores(path, asked), experts), metric)
    refuse_repeats(path, asked, rows)
    models_file = find_models_file(folder)
    facts = dict(models or {}) | (read_models(models_file) if models_file else {})
    answers, logprobs = read_answers(folder / ANSWERS_FILE, asked, rows.models)
    table = replace(assemble(asked, rows, facts), answers=answers, logprobs=logprobs)
    return scored_rows(table, path) if keep_partial else complete_rows(table, path)


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


def read_answers(path: Path, prompts: PromptRows, models: Sequence[str]) -> tuple[IntArray | None, FloatArray | None]:
    """(n, m) numbers of answers and log-probabilities as `OutcomeTable` has them; None without the file, or without
    any. Raises DataError."""
    if not path.exists():
        return None, None
    table = read_table(path, ("prompt_id", "model", "answer"))
    prompt = positions(texts(path, table, "prompt_id"), prompts.ids)
    expert = positions(texts(path, table, "model"), models)
    given = zip(prompt.tolist(), expert.tolist(), optional_texts(path, table, "answer", ""), strict=True)
    shape, is_kept = (len(prompts.ids), len(models)), (prompt >= 0) & (expert >= 0)
    answers = numbered_answers((cell for cell in given if cell[0] >= 0 and cell[1] >= 0), shape)
    logprob = numbers(path, table, "logprob")
    if not np.isfinite(logprob[is_kept]).any():
        return answers, None
    logprobs = np.full(shape, np.nan, dtype=np.float32)
    logprobs[prompt[is_kept], expert[is_kept]] = logprob[is_kept]
    return answers, logprobs


def numbered_answers(given: Iterable[tuple[int, int, str | None]], shape: tuple[int, int]) -> IntArray:
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


def assemble(prompts: PromptRows, rows: ScoreRows, facts: Mapping[str, ModelFacts]) -> OutcomeTable:
    def matrix(values: Float64Array) -> FloatArray:
        cells = np.full((len(prompts.ids), len(rows.models)), np.nan, dtype=np.float32)
        cells[rows.prompt, rows.expert] = values
        return cells

    recorded, lengths = rows.cost_usd, reply_tokens(rows)
    cost = np.where(np.isnan(recorded), estimated_cost(prompts, rows, lengths, facts), recorded)
    known = {name: facts[name].active_params_b for name in rows.models if name in facts}
    return OutcomeTable(
        prompt_ids=tuple(prompts.ids),
        texts=tuple(prompts.texts),
        categories=tuple(prompts.categories),
        splits=tuple(prompts.splits),
        experts=rows.models,
        scores=matrix(rows.score),
        cost_usd=matrix(cost),
        output_tokens=matrix(lengths),
        latency_ms=matrix(rows.latency_ms),
        metric=" + ".join(sorted(set(rows.metric.tolist()))),
        source=prompts.source,
        active_params_b={name: size for name, size in known.items() if size is not None},
        is_cost_estimated=bool((np.isnan(recorded) & np.isfinite(cost)).any()),
    )


def coverage(table: OutcomeTable) -> str:
    """The most and the least complete experts, for an error."""
    counts = np.isfinite(table.scores).sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    named = [f"{table.experts[e]} has {counts[e]} of {len(table.prompt_ids)}" for e in order]
    return ", ".join(named if len(named) <= 6 else [*named[:3], "...", *named[-3:]])


def write_outcomes(table: OutcomeTable, folder: Path) -> None:
    """Writes a table so that `read_outcomes` gives it back; cells without a score are left out.

    Raises:
        DataError: a name is not UTF-8, as names of files and words of a command line may be; nothing is written then.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        prompts, scores = pa.table(prompt_columns(table)), pa.table(score_columns(table))
        answers = None if table.answers is None else pa.table(answer_columns(table, table.answers))
    except UnicodeEncodeError as error:
        raise DataError(f"{folder}: a name or text of the table cannot be written as UTF-8 ({error.reason})") from error
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(prompts, folder / PROMPTS_FILE, compression="zstd")
    pq.write_table(scores, folder / SCORES_FILE, compression="zstd")
    if answers is not None:
        pq.write_table(answers, folder / ANSWERS_FILE, compression="zstd")
    if table.active_params_b:
        write_models(folder / MODELS_FILE, table.active_params_b)


def prompt_columns(table: OutcomeTable) -> dict[str, list[str]]:
    return {
        "prompt_id": list(table.prompt_ids),
        "source": [table.source] * len(table.prompt_ids),
        "benchmark": [table.source] * len(table.prompt_ids),
        "category": list(table.categories),
        "split": list(table.splits),
        "messages": [json.dumps([{"role": "user", "content": text}], ensure_ascii=False) for text in table.texts],
    }


def answer_columns(table: OutcomeTable, answers: IntArray) -> dict[str, list[Any]]:
    """The answers that were compared, by their numbers."""
    prompt, expert = np.nonzero(answers > NOT_COMPARED)
    known = {} if table.logprobs is None else {"logprob": table.logprobs[prompt, expert].tolist()}
    return known | {
        "prompt_id": [table.prompt_ids[i] for i in prompt],
        "model": [table.experts[e] for e in expert],
        "answer": [str(number) if number > NO_ANSWER else None for number in answers[prompt, expert].tolist()],
    }


def score_columns(table: OutcomeTable) -> dict[str, Any]:
    import pyarrow as pa

    prompt, expert = np.nonzero(np.isfinite(table.scores))

    def amounts(cells: FloatArray) -> Any:
        return pa.array(cells[prompt, expert].astype(np.float64), from_pandas=True)  # NaN becomes an empty cell

    return {
        "prompt_id": [table.prompt_ids[i] for i in prompt],
        "source": [table.source] * len(prompt),
        "model": [table.experts[e] for e in expert],
        "score": amounts(table.scores),
        "metric": [table.metric] * len(prompt),
        "output_tokens": amounts(table.output_tokens),
        "cost_usd": amounts(table.cost_usd),
        "latency_ms": amounts(table.latency_ms),
    }
