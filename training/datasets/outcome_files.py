"""The files of an outcome table as they are read: `prompts.parquet`, `scores.parquet`, whose rows are chosen, and
`models.parquet`, with sizes and prices of experts, which experts.yaml may give instead.

Shapes: n prompts, m experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from base.columns import numbers, optional_texts, positions, read_table, require_range, texts
from base.errors import DataError, allowed_values
from base.record_files import Record, parse_json
from router.config import CoeConfig
from router.cost import Price
from router.types import BoolArray, Float64Array, IntArray
from training.datasets.outcome_rows import ask_of
from training.split import SPLITS, split_of
from training.types import ModelFacts

PROMPTS_FILE, SCORES_FILE = "prompts.parquet", "scores.parquet"
CHARS_PER_TOKEN = 4
"""The usual ratio for English text, as `QueryFacts.prompt_tokens` counts."""
MODELS_FILE = "models.parquet"


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


@dataclass(frozen=True)
class PromptRows:
    """Columns of the kept prompts, and the ids of all."""

    ids: list[str]
    texts: list[str]
    categories: list[str]
    splits: list[str]
    source: str
    all_ids: frozenset[str]


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
    """Text of the last user message. Raises DataError."""
    record = Record(f"{path}: row {row}", {}, "column")
    return ask_of(record, "messages", parse_json(messages, f"{record.place}, column 'messages'"))


def checked_splits(path: Path, splits: list[str], asks: list[str], kept: list[int]) -> list[str]:
    """The splits of a file, or by hash of the text where it names none. Raises DataError on another name."""
    for i, name in zip(kept, splits, strict=True):
        if name and name not in SPLITS:
            raise DataError(f"{path}: row {i + 1}, column 'split': '{name}' is unknown{allowed_values(name, SPLITS)}")
    return [name or split_of(ask) for name, ask in zip(splits, asks, strict=True)]


@dataclass(frozen=True)
class ScoreRows:
    """Rows of the kept prompts and models. `number` is the row in the file, from 1; `prompt` and `expert` are indices;
    unknown numbers are NaN. `models` are all models that have a score on a kept prompt, sorted."""

    models: tuple[str, ...]
    number: IntArray
    prompt: IntArray
    expert: IntArray
    score: Float64Array
    metric: NDArray[np.str_]
    cost_usd: Float64Array
    output_tokens: Float64Array
    output_chars: Float64Array
    latency_ms: Float64Array

    def take(self, keep: BoolArray) -> ScoreRows:
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return ScoreRows(**{name: c if name == "models" else c[keep] for name, c in columns.items()})


def read_scores(path: Path, prompts: PromptRows) -> ScoreRows:
    """Scores of the kept prompts. Raises DataError."""
    table = read_table(path, ("prompt_id", "model", "score"))
    ids, names = texts(path, table, "prompt_id"), texts(path, table, "model")
    score = numbers(path, table, "score")
    require_range(path, "score", score, 1.0, may_miss=False)
    amounts = {name: numbers(path, table, name) for name in ("cost_usd", "output_tokens", "output_chars", "latency_ms")}
    for name, values in amounts.items():
        require_range(path, name, values)
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


def reply_tokens(rows: ScoreRows) -> Float64Array:
    """Tokens of each row's reply, or its characters / 4; NaN where neither was recorded."""
    return np.where(np.isnan(rows.output_tokens), rows.output_chars / CHARS_PER_TOKEN, rows.output_tokens)


def estimated_cost(
    prompts: PromptRows, rows: ScoreRows, tokens_out: Float64Array, facts: Mapping[str, ModelFacts]
) -> Float64Array:
    """USD per row at list prices, from the prompt's characters / 4 and the reply's tokens; NaN where length or price is
    unknown."""
    prices = [facts.get(name, ModelFacts()).price for name in rows.models]
    rates = np.array([(np.nan, np.nan) if price is None else price.of_text for price in prices]).reshape(-1, 2)
    price_in, price_out = rates[rows.expert].T
    tokens_in = np.array([len(text) / CHARS_PER_TOKEN for text in prompts.texts])[rows.prompt]
    return np.asarray((tokens_in * price_in + tokens_out * price_out) / 1e6, dtype=np.float64)


def find_models_file(folder: Path) -> Path | None:
    """`models.parquet` in an outcome table's folder or in the one above it."""
    found = [path for path in (folder / MODELS_FILE, folder.resolve().parent / MODELS_FILE) if path.is_file()]
    return found[0] if found else None


def read_models(path: Path) -> dict[str, ModelFacts]:
    """Facts per model. Only the column `model` is required; a size of 0 is unknown, as in experts.yaml.

    Raises:
        DataError: with file, row and column.
    """
    table = read_table(path, ("model",))
    columns = {}
    for name in ("params_active_b", "price_in_per_m", "price_out_per_m"):
        columns[name] = numbers(path, table, name)
        require_range(path, name, columns[name])
    known = [[None if np.isnan(value) else float(value) for value in column] for column in columns.values()]
    return {
        model: ModelFacts(active or None, None if None in (p_in, p_out) else Price({"input": p_in, "output": p_out}))
        for model, active, p_in, p_out in zip(texts(path, table, "model"), *known, strict=True)
    }


def facts_of_config(config: CoeConfig) -> dict[str, ModelFacts]:
    """Facts per expert of experts.yaml. A size of 0 there means that it is not hosted here: unknown."""
    return {name: ModelFacts(entry.active_b or None, entry.chat_price) for name, entry in config.experts.items()}


def write_models(path: Path, active_params_b: Mapping[str, float]) -> None:
    """Writes sizes in the layout that `read_models` reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"model": list(active_params_b), "params_active_b": list(active_params_b.values())}
    pq.write_table(
        pa.table(columns, schema=pa.schema([("model", pa.string()), ("params_active_b", pa.float64())])), path
    )
