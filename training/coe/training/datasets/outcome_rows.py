"""Prompts and scores as rows, and the outcome table built from them. Shapes: n prompts, m experts."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator

from coe.base.errors import DataError, allowed_values
from coe.base.record_files import Amount, Number, OptionalText, Row, Text
from coe.router.types import FloatArray
from coe.training.types import NO_ANSWER, NOT_COMPARED, ModelFacts, OutcomeTable, SplitName, split_of

PROMPTS_FILE, SCORES_FILE, ANSWERS_FILE, MODELS_FILE = (
    f"{name}.parquet" for name in ("prompts", "scores", "answers", "models")
)

CHARS_PER_TOKEN = 4
"""Characters per token of typical English text, as in `QueryFacts.prompt_tokens`."""
NO_FACTS = ModelFacts()


def ask_of(value: Any) -> str:
    """Extract the ask of a prompt: the text itself, or the last user message of a chat (all text parts of it).

    Raises:
        ValueError: the value is neither, or has no text.
    """
    if isinstance(value, list):
        turns = [turn for turn in value if isinstance(turn, dict)]
        asks = [turn.get("content") for turn in turns if turn.get("role") == "user"]
        if not asks:
            raise ValueError("holds no message of role 'user'")
        value = asks[-1]
        if isinstance(value, list):
            value = "\n".join(str(part["text"]) for part in value if isinstance(part, dict) and "text" in part)
    if not isinstance(value, str):
        raise ValueError("must be a text or a list of messages")  # noqa: TRY004, for pydantic
    if not value.strip():
        raise ValueError("must not be blank")
    return value.strip()


class PromptRow(Row):
    """A prompt. Without a split it has that of its hash."""

    prompt_id: OptionalText = ""
    text: Annotated[str, BeforeValidator(ask_of)]
    category: Text
    split: Annotated[Literal[SplitName, ""], BeforeValidator(lambda value: value or "")] = ""


class ScoreRow(Row):
    """A score of one model on one prompt; None if there is none."""

    prompt_id: OptionalText = ""
    model: Text
    score: Number
    metric: Annotated[str, BeforeValidator(lambda value: value or "score")] = "score"
    cost_usd: Amount = None
    output_tokens: Amount = None
    output_chars: Amount = None
    latency_ms: Amount = None

    @property
    def tokens(self) -> float:
        """The tokens of the reply, or its characters / 4; NaN if neither was recorded."""
        chars = np.nan if self.output_chars is None else self.output_chars
        return chars / CHARS_PER_TOKEN if self.output_tokens is None else self.output_tokens


Scored = tuple[str, ScoreRow]
"""A place (file and row) and the score there."""


def table_of(
    prompts: Mapping[str, PromptRow],
    scores: Sequence[Scored],
    source: str,
    experts: Sequence[str] | None = None,
    metric: str | None = None,
    facts: Mapping[str, ModelFacts] = MappingProxyType({}),
) -> OutcomeTable:
    """Build an outcome table of prompts by id, in their order. Unrecorded costs are computed from list prices, the
    prompt's characters / 4 and the reply's tokens.

    Raises:
        DataError: an expert or metric is unknown, a prompt has several metrics, or a pair is scored twice.
    """
    names = select_experts(source, sorted({row.model for _, row in scores}), experts)
    number, column = {name: i for i, name in enumerate(prompts)}, {name: e for e, name in enumerate(names)}
    texts = tuple(prompt.text for prompt in prompts.values())
    cells = {name: unknown_cells(len(prompts), len(names)) for name in ("score", "cost", "tokens", "latency")}
    metrics, places, is_estimated = set[str](), dict[tuple[int, int], str](), False
    for place, row in select_metric(source, [each for each in scores if each[1].model in column], metric):
        at = number[row.prompt_id], column[row.model]
        if (earlier := places.setdefault(at, place)) is not place:
            raise DataError(f"{place}: '{row.prompt_id}' and '{row.model}' were scored already at {earlier}")
        metrics.add(row.metric)
        cost = row.cost_usd
        if cost is None:
            cost = list_cost(facts.get(row.model, NO_FACTS), texts[at[0]], row.tokens)
            is_estimated |= cost == cost
        known = (row.score, cost, row.tokens, row.latency_ms)
        for matrix, value in zip(cells.values(), known, strict=True):
            matrix[at] = np.nan if value is None else value
    return OutcomeTable(
        prompt_ids=tuple(prompts),
        texts=texts,
        categories=tuple(prompt.category for prompt in prompts.values()),
        splits=tuple(prompt.split or split_of(prompt.text) for prompt in prompts.values()),
        experts=names,
        scores=cells["score"],
        cost_usd=cells["cost"],
        output_tokens=cells["tokens"],
        latency_ms=cells["latency"],
        metric=" + ".join(sorted(metrics)),
        source=source,
        active_params_b={name: size for name in names if (size := facts.get(name, NO_FACTS).active_params_b)},
        is_cost_estimated=is_estimated,
    )


def unknown_cells(n: int, m: int) -> FloatArray:
    return np.full((n, m), np.nan, dtype=np.float32)


def list_cost(facts: ModelFacts, prompt: str, tokens: float) -> float:
    """Return the USD of an answer by list price; NaN if length or price is unknown."""
    price_in, price_out = (np.nan, np.nan) if facts.price is None else facts.price.of_text
    return (len(prompt) / CHARS_PER_TOKEN * price_in + tokens * price_out) / 1e6


def select_experts(source: str, models: Sequence[str], experts: Sequence[str] | None) -> tuple[str, ...]:
    """Return the named models, or all; raise DataError if a name is unknown or appears twice."""
    for name, count in Counter(experts).items():
        if name not in models:
            raise DataError(f"{source}: unknown expert '{name}'{allowed_values(name, models)}")
        if count > 1:
            raise DataError(f"expert '{name}' is named {count} times")
    return tuple(models if experts is None else experts)


def select_metric(source: str, scores: Sequence[Scored], metric: str | None) -> Sequence[Scored]:
    """Select the scores by one metric; a prompt may only have one. Raise DataError if it has several, or none is
    known."""
    used = defaultdict[str, set[str]](set)
    for _, row in scores:
        used[row.prompt_id].add(row.metric)
    if metric is None:
        mixed = sorted(set[str]().union(*(found for found in used.values() if len(found) > 1)))
        if mixed:
            raise DataError(f"{source}: prompts are scored by several metrics; import one of: {', '.join(mixed)}")
        return scores
    found = set[str]().union(*used.values())
    if metric not in found:
        raise DataError(f"{source}: unknown metric '{metric}'{allowed_values(metric, found)}")
    return [each for each in scores if each[1].metric == metric]


def write_outcomes(table: OutcomeTable, folder: Path) -> None:
    """Write a table so that `read_outcomes` returns it; cells without a score are left out.

    Raises:
        DataError: a name is not UTF-8, as in names of files and words of a command line; nothing is written then.
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
    """Return a row for each score, with its known amounts."""
    amounts = {"output_tokens": table.output_tokens, "cost_usd": table.cost_usd, "latency_ms": table.latency_ms}
    return [
        cell_of(table, at) | {"source": table.source, "score": float(table.scores[at]), "metric": table.metric}
        | {name: float(cells[at]) if np.isfinite(cells[at]) else None for name, cells in amounts.items()}
        for at in zip(*np.nonzero(np.isfinite(table.scores)), strict=True)
    ]  # fmt: skip


def answer_rows(table: OutcomeTable) -> list[dict[str, Any]]:
    """Return a row for each answer that was compared, by its number."""
    if table.answers is None:
        return []
    return [
        cell_of(table, at) | {"answer": str(table.answers[at]) if table.answers[at] > NO_ANSWER else None}
        for at in zip(*np.nonzero(table.answers > NOT_COMPARED), strict=True)
    ]  # fmt: skip


def cell_of(table: OutcomeTable, at: tuple[Any, ...]) -> dict[str, Any]:
    return {"prompt_id": table.prompt_ids[at[0]], "model": table.experts[at[1]]}
