"""Prompts and scores as rows, and the outcome table that they make. Shapes: n prompts, m experts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator

from coe.base.errors import DataError, allowed_values
from coe.base.record_files import Amount, Number, OptionalText, Record, Row, Text
from coe.router.types import FloatArray
from coe.training.types import ModelFacts, OutcomeTable, SplitName, split_of

UNIT_RANGE = (0.0, 1.0)
ROUNDING = 1e-6
"""Share of the range by which a score may leave it: scores of 1 / 3 were rounded."""
CHARS_PER_TOKEN = 4
"""The usual ratio for English text, as `QueryFacts.prompt_tokens` counts."""
NO_FACTS = ModelFacts()


def ask_of(value: Any) -> str:
    """Extracts what is asked in a prompt: a text, or a chat whose last user message counts (the text parts of one with
    several).

    Raises:
        ValueError: it is neither, or holds no text.
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
    """A score of one model on one prompt; None where there is none."""

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
        """Tokens of the reply, or its characters / 4; NaN where neither was recorded."""
        chars = np.nan if self.output_chars is None else self.output_chars
        return chars / CHARS_PER_TOKEN if self.output_tokens is None else self.output_tokens


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """Contents of a row of a file. `score_field` is its name of the score."""

    record: Record
    prompt: PromptRow
    score: ScoreRow
    score_field: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of a file that is not in the table, and why."""

    place: str
    reason: str


Scored = tuple[str, ScoreRow]
"""A score with its place."""

Reasons = Mapping[str, tuple[int, str]]
"""Reasons to leave something out, each with how often and the first place."""


def told(left_out: Reasons) -> list[str]:
    """One line a reason, for a person."""
    return [f"left out: {n} x {reason} (first: {first})" for reason, (n, first) in left_out.items()]


def table_of_rows(
    rows: Iterable[OutcomeRow | LeftOut], source: str, score_range: tuple[float, float] | None
) -> tuple[OutcomeTable, Reasons]:
    """An outcome table with the prompts in the order of the rows and the models sorted, and why others are not in it.

    Args:
        score_range: lowest and highest possible score, which become 0 and 1; None: scores are in [0, 1] already.

    Raises:
        DataError: as the rows do; a score out of range, a pair scored twice, rows that differ about a prompt, no row.
    """
    prompts: dict[str, tuple[str, PromptRow]] = {}
    scores: list[Scored] = []
    left_out: dict[str, tuple[int, str]] = {}  # not the rows: a metric or filter may leave out nearly all of a file
    for row in rows:
        if isinstance(row, LeftOut):
            n, first = left_out.get(row.reason, (0, row.place))
            left_out[row.reason] = n + 1, first
            continue
        place, prompt = row.record.place, row.prompt
        score = scaled(row, score_range or UNIT_RANGE)
        prompt_id = prompt.prompt_id or hashlib.sha256(json.dumps([prompt.text]).encode()).hexdigest()[:16]
        first_place, known = prompts.setdefault(prompt_id, (place, prompt))
        for name in ("text", "category", "split"):
            if getattr(known, name) != getattr(prompt, name):
                raise DataError(f"{place}: prompt '{prompt_id}' has another {name} than at {first_place}")
        scores.append((place, row.score.model_copy(update={"score": score, "prompt_id": prompt_id})))
    if not prompts:
        raise DataError("; ".join([f"{source}: no score was found", *told(left_out)]))
    return table_of({name: prompt for name, (_, prompt) in prompts.items()}, scores, source), left_out


def scaled(row: OutcomeRow, score_range: tuple[float, float]) -> float:
    """The score in [0, 1]. Raises DataError when it is out of range."""
    (low, high), score = score_range, row.score.score or 0.0
    slack = ROUNDING * (high - low)
    if not low - slack <= score <= high + slack:
        hint = "" if score_range != UNIT_RANGE else "; name the range of these scores with --score-range LOW:HIGH"
        raise row.record.fault(row.score_field, f"{score:g} is not allowed; expected {low:g} to {high:g}{hint}")
    return min(1.0, max(0.0, (score - low) / (high - low)))


def table_of(
    prompts: Mapping[str, PromptRow],
    scores: Sequence[Scored],
    source: str,
    experts: Sequence[str] | None = None,
    metric: str | None = None,
    facts: Mapping[str, ModelFacts] = MappingProxyType({}),
) -> OutcomeTable:
    """An outcome table of prompts by id, in their order. Costs that were not recorded are at list prices, from the
    prompt's characters / 4 and the reply's tokens.

    Raises:
        DataError: an unknown expert or metric, several metrics on one prompt, a pair scored twice.
    """
    names = chosen_experts(source, sorted({row.model for _, row in scores}), experts)
    number, column = {name: i for i, name in enumerate(prompts)}, {name: e for e, name in enumerate(names)}
    texts = tuple(prompt.text for prompt in prompts.values())
    cells = {name: unknown_cells(len(prompts), len(names)) for name in ("score", "cost", "tokens", "latency")}
    metrics, places, is_estimated = set[str](), dict[tuple[int, int], str](), False
    for place, row in of_metric(source, [each for each in scores if each[1].model in column], metric):
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
    """USD of an answer; NaN where length or price is unknown."""
    price_in, price_out = (np.nan, np.nan) if facts.price is None else facts.price.of_text
    return (len(prompt) / CHARS_PER_TOKEN * price_in + tokens * price_out) / 1e6


def chosen_experts(source: str, models: Sequence[str], experts: Sequence[str] | None) -> tuple[str, ...]:
    """The chosen of the models, or all. Raises DataError on an unknown one."""
    for name, count in Counter(experts).items():
        if name not in models:
            raise DataError(f"{source}: unknown expert '{name}'{allowed_values(name, models)}")
        if count > 1:
            raise DataError(f"expert '{name}' is named {count} times")
    return tuple(models if experts is None else experts)


def of_metric(source: str, scores: Sequence[Scored], metric: str | None) -> Sequence[Scored]:
    """Scores by one metric. Different prompts may have different metrics, as benchmarks do; one prompt may not."""
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
