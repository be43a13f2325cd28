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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from base.columns import (
    Float64Array,
    numbers,
    optional_texts,
    positions,
    read_table,
    require_amounts,
    require_range,
    texts,
)
from base.errors import DataError, allowed_values
from base.record_files import kind_of, parse_json
from router.types import FloatArray
from training.datasets.model_facts import MODELS_FILE, find_models_file, read_models, write_models
from training.split import SPLITS, split_of
from training.types import NO_ANSWER, NOT_COMPARED, ModelFacts, OutcomeTable

PROMPTS_FILE = "prompts.parquet"
SCORES_FILE = "scores.parquet"
ANSWERS_FILE = "answers.parquet"
CHARS_PER_TOKEN = 4
"""The usual ratio for English text, as `QueryFacts.prompt_tokens` counts."""


@dataclass(frozen=True)
class PromptRows:
    """Columns of the kept prompts, and the ids of all."""

    ids: list[str]
    texts: list[str]
    categories: list[str]
    splits: list[str]
    source: str
    all_ids: frozenset[str]


@dataclass(frozen=True)
class ScoreRows:
    """Rows of the kept prompts and models. `number` is the row in the file, from 1; `prompt` and `expert` are indices;
    unknown numbers are NaN. `models` are all models that have a score on a kept prompt, sorted."""

    models: tuple[str, ...]
    number: NDArray[np.int64]
    prompt: NDArray[np.int64]
    expert: NDArray[np.int64]
    score: Float64Array
    metric: NDArray[np.str_]
    cost_usd: Float64Array
    output_tokens: Float64Array
    output_chars: Float64Array
    latency_ms: Float64Array

    def take(self, keep: NDArray[np.bool_]) -> ScoreRows:
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return ScoreRows(**{name: c if name == "models" else c[keep] for name, c in columns.items()})


@dataclass(frozen=True)
class PromptColumns:
    """Choice of prompts, and of the columns of prompts.parquet that tell of them.

    Args:
        benchmark: only prompts of this benchmark; None: all.
        category: the column that holds the labels.
        has_splits: False where the column `split` plays no role and may hold anything: splits are then by hash of text.
    """

    benchmark: str | None = None
    category: str = "category"
    has_splits: bool = True


ALL_PROMPTS = PromptColumns()


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


def read_prompts(path: Path, wanted: PromptColumns) -> PromptRows:
    """Prompts of one benchmark, or all. Raises DataError."""
    benchmark = wanted.benchmark
    table = read_table(path, ("prompt_id", "messages", wanted.category))
    ids = texts(path, table, "prompt_id")
    if not ids:
        raise DataError(f"{path}: holds no row")
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        row = len(ids) - ids[::-1].index(repeated[0])
        raise DataError(f"{path}: row {row}, column 'prompt_id': '{repeated[0]}' is there already")
    benchmarks = optional_texts(path, table, "benchmark", "")
    if benchmark is not None and benchmark not in benchmarks:
        raise DataError(f"{path}: unknown benchmark '{benchmark}'{allowed_values(benchmark, set(benchmarks) - {''})}")
    kept = [i for i, name in enumerate(benchmarks) if benchmark in (None, name)]
    part = table.take(kept)
    messages, categories = texts(path, table, "messages"), texts(path, table, wanted.category)
    asks = [last_ask(path, i + 1, messages[i]) for i in kept]
    splits = optional_texts(path, part, "split", "") if wanted.has_splits else [""] * len(kept)
    return PromptRows(
        ids=[ids[i] for i in kept],
        texts=asks,
        categories=[categories[i] for i in kept],
        splits=checked_splits(path, splits, asks, kept),
        source=" + ".join(sorted(set(optional_texts(path, part, "source", path.parent.name)))),
        all_ids=frozenset(ids),
    )


def last_ask(path: Path, row: int, messages: str) -> str:
    """Text of the last user message; the text parts of one that has several. Raises DataError."""
    place = f"{path}: row {row}, column 'messages'"
    listed = parse_json(messages, place)
    if not isinstance(listed, list):
        raise DataError(f"{place}: expected a list of messages; got {kind_of(listed)}")
    asks = [m.get("content") for m in listed if isinstance(m, dict) and m.get("role") == "user"]
    if not asks:
        raise DataError(f"{place}: holds no message of role 'user'")
    content = asks[-1]
    if isinstance(content, list):
        content = "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    if not isinstance(content, str) or not content.strip():
        raise DataError(f"{place}: the last user message has no text")
    return content.strip()


def checked_splits(path: Path, splits: list[str], asks: list[str], kept: list[int]) -> list[str]:
    """The splits of a file, or by hash of the text where it names none. Raises DataError on another name."""
    for i, name in zip(kept, splits, strict=True):
        if name and name not in SPLITS:
            raise DataError(f"{path}: row {i + 1}, column 'split': '{name}' is unknown{allowed_values(name, SPLITS)}")
    return [name or split_of(ask) for name, ask in zip(splits, asks, strict=True)]


def read_scores(path: Path, prompts: PromptRows) -> ScoreRows:
    """Scores of the kept prompts. Raises DataError."""
    table = read_table(path, ("prompt_id", "model", "score"))
    ids, names = texts(path, table, "prompt_id"), texts(path, table, "model")
    score = numbers(path, table, "score")
    require_range(path, "score", score, 0.0, 1.0, may_miss=False)
    amounts = {name: numbers(path, table, name) for name in ("cost_usd", "output_tokens", "output_chars", "latency_ms")}
    for name, values in amounts.items():
        require_amounts(path, name, values)
    for row, prompt_id in enumerate(ids, start=1):
        if prompt_id not in prompts.all_ids:
            raise DataError(f"{path}: row {row}, column 'prompt_id': '{prompt_id}' is not in {PROMPTS_FILE}")
    prompt = positions(ids, prompts.ids)
    models = tuple(sorted({name for name, i in zip(names, prompt, strict=True) if i >= 0}))
    if not models:
        raise DataError(f"{path}: holds no score of the chosen prompts")
    rows = ScoreRows(
        models=models,
        number=np.arange(1, len(ids) + 1),
        prompt=prompt,
        expert=positions(names, models),
        score=score,
        metric=np.array(optional_texts(path, table, "metric", "score"), dtype=np.str_),
        **amounts,
    )
    return rows.take(prompt >= 0)


def read_answers(
    path: Path, prompts: PromptRows, models: Sequence[str]
) -> tuple[NDArray[np.int64] | None, FloatArray | None]:
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


def numbered_answers(given: Iterable[tuple[int, int, str | None]], shape: tuple[int, int]) -> NDArray[np.int64]:
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


def choose_experts(path: Path, rows: ScoreRows, experts: Sequence[str] | None) -> ScoreRows:
    """Rows of the chosen experts, whose order becomes that of the columns. Raises DataError on an unknown one."""
    if experts is None:
        return rows
    for name, count in Counter(experts).items():
        if name not in rows.models:
            raise DataError(f"{path}: unknown expert '{name}'{allowed_values(name, rows.models)}")
        if count > 1:
            raise DataError(f"expert '{name}' is named {count} times")
    new_number = positions(rows.models, experts)[rows.expert]
    keep = new_number >= 0
    return replace(rows.take(keep), models=tuple(experts), expert=new_number[keep])


def choose_metric(path: Path, rows: ScoreRows, metric: str | None) -> ScoreRows:
    """Rows of one metric. Different prompts may have different metrics, as benchmarks do; one prompt may not."""
    found, code = np.unique(rows.metric, return_inverse=True)
    if metric is not None:
        if metric not in found:
            raise DataError(f"{path}: unknown metric '{metric}'{allowed_values(metric, found.tolist())}")
        return rows.take(rows.metric == metric)
    prompt, used = np.unique(np.stack([rows.prompt, code]), axis=1)
    mixed = found[np.unique(used[np.bincount(prompt)[prompt] > 1])]
    if len(mixed):
        raise DataError(f"{path}: prompts are scored by several metrics; choose one of: {', '.join(mixed)}")
    return rows


def refuse_repeats(path: Path, prompts: PromptRows, rows: ScoreRows) -> None:
    pairs = rows.prompt * len(rows.models) + rows.expert
    first = np.unique(pairs, return_index=True)[1]
    if len(first) < len(pairs):
        i = int(np.setdiff1d(np.arange(len(pairs)), first)[0])
        pair = f"'{prompts.ids[rows.prompt[i]]}' and '{rows.models[rows.expert[i]]}'"
        raise DataError(f"{path}: row {rows.number[i]}, columns 'prompt_id' and 'model': {pair} were scored already")


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


def reply_tokens(rows: ScoreRows) -> Float64Array:
    """Tokens of each row's reply, or its characters / 4; NaN where neither was recorded."""
    return np.where(np.isnan(rows.output_tokens), rows.output_chars / CHARS_PER_TOKEN, rows.output_tokens)


def estimated_cost(
    prompts: PromptRows, rows: ScoreRows, tokens_out: Float64Array, facts: Mapping[str, ModelFacts]
) -> Float64Array:
    """USD per row at list prices, from the prompt's characters / 4 and the reply's tokens; NaN where length or price is
    unknown."""
    unknown = ModelFacts()
    of_model = [facts.get(name, unknown) for name in rows.models]
    price_in = np.array([f.price_in_per_m_usd for f in of_model], dtype=np.float64)[rows.expert]
    price_out = np.array([f.price_out_per_m_usd for f in of_model], dtype=np.float64)[rows.expert]
    tokens_in = np.array([len(text) / CHARS_PER_TOKEN for text in prompts.texts])[rows.prompt]
    return np.asarray((tokens_in * price_in + tokens_out * price_out) / 1e6, dtype=np.float64)


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


def answer_columns(table: OutcomeTable, answers: NDArray[np.int64]) -> dict[str, list[Any]]:
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
