"""From single scores, as other tools write them, to an outcome table. Shapes: n prompts, m experts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from base.errors import DataError, allowed_values
from base.record_files import ABSENT, Record
from router.types import Float64Array
from training.split import SPLITS, split_of
from training.types import OutcomeTable

ROUNDING: Final = 1e-6
"""A score that leaves [0, 1] by no more than this is put back: judges' weights do so in the last digits."""
UNIT_RANGE: Final = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """The score of one model on one prompt. `place` and `score_field` say where it was read, for errors; `score` is as
    the file has it. `prompt_id` "" makes one of the text, `split` "" one of the text's hash. None means unknown."""

    place: str
    text: str
    category: str
    model: str
    score: float
    score_field: str
    prompt_id: str = ""
    split: str = ""
    metric: str = "score"
    cost_usd: float | None = None
    output_tokens: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of a file that is not in the table, and why."""

    place: str
    reason: str


Rows = Iterable[OutcomeRow | LeftOut]


Reasons = Mapping[str, tuple[int, str]]
"""Reasons to leave something out, each with how often and the first place."""


def told(left_out: Reasons) -> list[str]:
    """One line a reason, for a person."""
    return [f"left out: {n} x {reason} (first: {first})" for reason, (n, first) in left_out.items()]


def ask_of(record: Record, name: str, value: Any) -> str:
    """Extracts what is asked in a prompt: a text, or a chat whose last user message counts (the text parts of one with
    several).

    Raises:
        DataError: it is neither, or holds no text.
    """
    if isinstance(value, list):
        turns = [turn for turn in value if isinstance(turn, dict)]
        asks = [turn.get("content") for turn in turns if turn.get("role") == "user"]
        if not asks:
            raise record.fault(name, "holds no message of role 'user'")
        value = asks[-1]
        if isinstance(value, list):
            value = "\n".join(str(part["text"]) for part in value if isinstance(part, dict) and "text" in part)
    if value is ABSENT:
        raise record.missing(name)
    if not isinstance(value, str):
        raise record.fault(name, "expected a text or a list of messages")
    if not value.strip():
        raise record.fault(name, "is empty")
    return value.strip()


def category_of(record: Record, name: str, constant: str | None) -> str:
    """The label of a prompt: its own field, or one for all. Raises DataError."""
    if constant is not None:
        return constant
    if record.get(name) is ABSENT:
        raise record.missing(name, "name another with --category-field, or give all one with --category")
    return record.text(name)


@dataclass
class Prompt:
    """Facts that all rows of one prompt must agree on."""

    row: OutcomeRow
    scores: dict[str, OutcomeRow] = field(default_factory=dict)

    def add(self, prompt_id: str, row: OutcomeRow) -> None:
        """Raises DataError when the row says something else of the prompt, or scores a model again."""
        for name in ("text", "category", "split"):
            if getattr(row, name) != getattr(self.row, name):
                raise DataError(f"{row.place}: prompt '{prompt_id}' has another {name} than at {self.row.place}")
        if row.metric != self.row.metric:
            raise DataError(
                f"{row.place}: prompt '{prompt_id}' is scored by '{row.metric}', and by '{self.row.metric}' at "
                f"{self.row.place}; choose one with --metric"
            )
        earlier = self.scores.setdefault(row.model, row)
        if earlier is not row:
            raise DataError(f"{row.place}: '{prompt_id}' and '{row.model}' were scored already at {earlier.place}")


def table_of_rows(rows: Rows, source: str, score_range: tuple[float, float] | None) -> tuple[OutcomeTable, Reasons]:
    """An outcome table with the prompts in the order of the rows and the models sorted, and why others are not in it.

    Args:
        score_range: lowest and highest possible score, which become 0 and 1; None: scores are in [0, 1] already.

    Raises:
        DataError: as the rows do; a score out of range, a pair scored twice, rows that differ about a prompt, no row.
    """
    prompts: dict[str, Prompt] = {}
    left_out: dict[str, tuple[int, str]] = {}  # not the rows: a metric or filter may leave out nearly all of a file
    for row in rows:
        if isinstance(row, LeftOut):
            n, first = left_out.get(row.reason, (0, row.place))
            left_out[row.reason] = n + 1, first
            continue
        check_row(row, score_range or UNIT_RANGE)
        prompt_id = row.prompt_id or hashlib.sha256(json.dumps([row.text]).encode()).hexdigest()[:16]
        prompts.setdefault(prompt_id, Prompt(row)).add(prompt_id, row)
    if not prompts:
        raise DataError("; ".join([f"{source}: no score was found", *told(left_out)]))
    return assemble(prompts, source, score_range or UNIT_RANGE), left_out


def check_row(row: OutcomeRow, score_range: tuple[float, float]) -> None:
    """Raises DataError when the score is out of range, or the split unknown."""
    low, high = score_range
    slack = ROUNDING * (high - low)
    if not low - slack <= row.score <= high + slack:
        hint = "" if score_range != UNIT_RANGE else "; name the range of these scores with --score-range LOW:HIGH"
        raise DataError(
            f"{row.place}, '{row.score_field}': {row.score:g} is not allowed; expected {low:g} to {high:g}{hint}"
        )
    if row.split and row.split not in SPLITS:
        raise DataError(f"{row.place}, 'split': '{row.split}' is unknown{allowed_values(row.split, SPLITS)}")


def assemble(prompts: Mapping[str, Prompt], source: str, score_range: tuple[float, float]) -> OutcomeTable:
    models = tuple(sorted({model for prompt in prompts.values() for model in prompt.scores}))
    entries = [prompt.row for prompt in prompts.values()]

    def matrix(name: str) -> Float64Array:
        return np.array([[amount(prompt.scores.get(model), name) for model in models] for prompt in prompts.values()])

    low, high = score_range
    return OutcomeTable(
        prompt_ids=tuple(prompts),
        texts=tuple(row.text for row in entries),
        categories=tuple(row.category for row in entries),
        splits=tuple(row.split or split_of(row.text) for row in entries),
        experts=models,
        scores=np.clip((matrix("score") - low) / (high - low), 0.0, 1.0).astype(np.float32),
        cost_usd=matrix("cost_usd").astype(np.float32),
        output_tokens=matrix("output_tokens").astype(np.float32),
        latency_ms=matrix("latency_ms").astype(np.float32),
        metric=" + ".join(sorted({row.metric for row in entries})),
        source=source,
    )


def amount(row: OutcomeRow | None, name: str) -> float:
    value = None if row is None else getattr(row, name)
    return np.nan if value is None else float(value)
