"""Records of learning: outcome tables, and a text's split into train, valid or test. Shapes: n prompts, m experts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coe.decision_log.decision_record import DecisionRecord
from coe.router.prices.cost import Price
from coe.router.reading.normalise import normalised_text
from coe.router.types import GENERAL, BoolArray, FloatArray, IntArray

MIN_TABLE_PROMPTS = 5
"""Fewest prompts of a learned category: with one in each fold, every fold's training part has some (ours)."""

ONE_CATEGORY = "all"
"""Category of every prompt if none of the table's own can be learned."""

NO_ANSWER, NOT_COMPARED = -1, -2
COLUMNS = ("prompt_ids", "texts", "categories", "splits")
MATRICES = ("scores", "cost_usd", "output_tokens", "latency_ms", "answers")


def unknown(matrix: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the unknown cells of an outcome table's matrix, by the matrix's name."""
    return np.full(shape, NOT_COMPARED, np.int64) if matrix == "answers" else np.full(shape, np.nan, np.float32)


@dataclass(frozen=True)
class OutcomeTable:
    """Scores of m experts on n prompts.

    `scores` (n, m) lies in [0, 1], NaN if an expert was not run. The other matrices are NaN if unknown. `output_tokens`
    are a quarter of the reply's characters if only those were recorded. `splits` has train, valid or test per prompt.
    `is_cost_estimated`: some cost was computed from list prices and the length of prompt and answer. `answers` (n, m)
    numbers the different answers to each prompt, starting at 0. It is -1 (NO_ANSWER) if a reply states none, -2
    (NOT_COMPARED) if it was not compared. `answers` is None if no answer was.
    """

    prompt_ids: tuple[str, ...]
    texts: tuple[str, ...]
    categories: tuple[str, ...]
    splits: tuple[str, ...]
    experts: tuple[str, ...]
    scores: FloatArray
    cost_usd: FloatArray
    output_tokens: FloatArray
    latency_ms: FloatArray
    metric: str
    source: str
    active_params_b: dict[str, float] = field(default_factory=dict)
    is_cost_estimated: bool = False
    answers: IntArray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.prompt_ids), len(self.experts))
        for name, values in self.matrices.items():
            if values.shape != shape:
                raise ValueError(f"{name} has shape {values.shape}; expected {shape} (prompts, experts)")

    @property
    def matrices(self) -> dict[str, Any]:
        """The matrices (n, m) that the table has, by name."""
        return {name: values for name in MATRICES if (values := getattr(self, name)) is not None}

    def rows(self, keep: BoolArray | IntArray | Sequence[int]) -> OutcomeTable:
        """Select prompts by a boolean mask (n,) or by row numbers."""
        index = np.arange(len(self.prompt_ids))[np.asarray(keep)]
        columns: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in index) for name in COLUMNS}
        return replace(self, **columns, **{name: values[index] for name, values in self.matrices.items()})

    def joined(self, other: OutcomeTable) -> OutcomeTable:
        """Join the prompts of two tables with the same experts. Cells of a matrix that only one table has are
        unknown in the other."""
        found: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in COLUMNS}
        for name in self.matrices | other.matrices:
            parts = [table.matrices.get(name, unknown(name, table.scores.shape)) for table in (self, other)]
            found[name] = np.concatenate(parts)
        return replace(self, **found)

    def learned_categories(self) -> tuple[str, ...]:
        """Return the categories with enough prompts to be learned, sorted."""
        counts = Counter(self.categories)
        return tuple(sorted(name for name in counts if name != GENERAL and counts[name] >= MIN_TABLE_PROMPTS))

    def in_one_category(self) -> OutcomeTable:
        """Return the same prompts, all of `ONE_CATEGORY`."""
        return replace(self, categories=(ONE_CATEGORY,) * len(self.prompt_ids))

    def split(self, name: str) -> OutcomeTable:
        """Select the prompts of one split."""
        return self.rows(np.array([found == name for found in self.splits], dtype=bool))


def no_outcomes(experts: tuple[str, ...], *, source: str) -> OutcomeTable:
    """Return an outcome table without prompts."""
    cells: dict[str, Any] = {name: unknown(name, (0, len(experts))) for name in MATRICES if name != "answers"}
    return OutcomeTable((), (), (), (), experts, **cells, metric="", source=source)


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query whose category is known. `style` is its manner (terse, chatty, long, typos, code ...) and `language`
    is an ISO 639-1 code; both are empty if they were not recorded."""

    text: str
    category: str
    style: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Size and price of one expert; None if unknown."""

    active_params_b: float | None = None
    price: Price | None = None


SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
TEST_PERCENT = 20
VALID_PERCENT = 10


def split_of(text: str) -> SplitName:
    """Assign a text to a split by its hash: 70% train, 10% valid, 20% test of distinct texts."""
    bucket = (
        int.from_bytes(hashlib.sha256(normalised_text(text).encode("utf-8", "surrogatepass")).digest()[:8], "big") % 100
    )
    if bucket < TEST_PERCENT:
        return "test"
    return "valid" if bucket < TEST_PERCENT + VALID_PERCENT else "train"


def question_of(record: DecisionRecord) -> int:
    """Return a number (63 bits) for what was asked: equal for the same words, whatever their case and punctuation.

    A decision without text is identified by its keyed hash of the text, one without a hash by the embedding or its
    keyed hash. At level `none` without embeddings nothing links two asks, so each decision is a question.
    """
    asked: str | bytes = normalised_text(record.text) if record.text else record.text_hash or ""
    asked = asked or record.embedding or (record.inputs.features if record.inputs else "") or record.decision_id
    data = asked if isinstance(asked, bytes) else asked.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(b"question\0" + data).digest()
    return int.from_bytes(digest[:8], "big") >> 1
