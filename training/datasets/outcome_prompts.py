"""The prompts of an outcome table: `prompts.parquet`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from base.columns import (
    optional_texts,
    read_table,
    texts,
)
from base.errors import DataError, allowed_values
from base.record_files import kind_of, parse_json
from training.split import SPLITS, split_of

PROMPTS_FILE = "prompts.parquet"


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
