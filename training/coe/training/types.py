"""Records of learning: outcome tables, and which of train, valid and test a text belongs to. Shapes: n prompts, m
experts.
"""

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
"""Fewest prompts of a category that is learned: with one in each fold, every fold's training part has some (ours)."""

ONE_CATEGORY = "all"
"""Category of every prompt where none of the table's own can be learned."""

NO_ANSWER, NOT_COMPARED = -1, -2
COLUMNS = ("prompt_ids", "texts", "categories", "splits")
MATRICES = ("scores", "cost_usd", "output_tokens", "latency_ms", "answers")


def unknown(matrix: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Cells of a matrix of an outcome table, by its name, of which nothing is known."""
    return np.full(shape, NOT_COMPARED, np.int64) if matrix == "answers" else np.full(shape, np.nan, np.float32)


@dataclass(frozen=True)
class OutcomeTable:
    """Scores of m experts on n prompts.

    `scores` (n, m) lies in [0, 1], NaN where an expert was not run. The other matrices are NaN where unknown;
    `output_tokens` are a quarter of the reply's characters where only those were recorded.
    `splits` holds train, valid or test per prompt. `is_cost_estimated`: some cost was not recorded but computed from
    list prices and the length of prompt and answer. `answers` (n, m) numbers the different answers to each prompt from
    0; -1 (NO_ANSWER) where a reply states none, -2 (NOT_COMPARED) where nobody looked. None where nobody ever did.
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
        """Those (n, m) that the table has, by name."""
        return {name: values for name in MATRICES if (values := getattr(self, name)) is not None}

    def rows(self, keep: BoolArray | IntArray | Sequence[int]) -> OutcomeTable:
        """The table of some prompts: a boolean mask (n,) or row numbers."""
        index = np.arange(len(self.prompt_ids))[np.asarray(keep)]
        columns: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in index) for name in COLUMNS}
        return replace(self, **columns, **{name: values[index] for name, values in self.matrices.items()})

    def joined(self, other: OutcomeTable) -> OutcomeTable:
        """The prompts of both tables, whose experts are the same. A matrix of one table says nothing of the other's
        prompts."""
        found: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in COLUMNS}
        for name in self.matrices | other.matrices:
            parts = [table.matrices.get(name, unknown(name, table.scores.shape)) for table in (self, other)]
            found[name] = np.concatenate(parts)
        return replace(self, **found)

    def learned_categories(self) -> tuple[str, ...]:
        """Categories with enough prompts to be learned, sorted."""
        counts = Counter(self.categories)
        return tuple(sorted(name for name in counts if name != GENERAL and counts[name] >= MIN_TABLE_PROMPTS))

    def in_one_category(self) -> OutcomeTable:
        """The same prompts, all of `ONE_CATEGORY`."""
        return replace(self, categories=(ONE_CATEGORY,) * len(self.prompt_ids))

    def split(self, name: str) -> OutcomeTable:
        """The prompts of one split."""
        return self.rows(np.array([found == name for found in self.splits], dtype=bool))


def no_outcomes(experts: tuple[str, ...], *, source: str) -> OutcomeTable:
    """Return an outcome table without prompts."""
    cells: dict[str, Any] = {name: unknown(name, (0, len(experts))) for name in MATRICES if name != "answers"}
    return OutcomeTable((), (), (), (), experts, **cells, metric="", source=source)


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query whose category is known. `style` says how it is put (terse, chatty, long, typos, code ...) and `language`
    is an ISO 639-1 code; both are empty where they were not noted."""

    text: str
    category: str
    style: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Size and price of one expert; None where unknown."""

    active_params_b: float | None = None
    price: Price | None = None


SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
TEST_PERCENT = 20
VALID_PERCENT = 10


def split_of(text: str) -> SplitName:
    """70% train, 10% valid, 20% test of distinct texts."""
    bucket = (
        int.from_bytes(hashlib.sha256(normalised_text(text).encode("utf-8", "surrogatepass")).digest()[:8], "big") % 100
    )
    if bucket < TEST_PERCENT:
        return "test"
    return "valid" if bucket < TEST_PERCENT + VALID_PERCENT else "train"


def question_of(record: DecisionRecord) -> int:
    """A number (63 bits) for what was asked: equal for the same words, whatever their case and punctuation.

    A decision without text is identified by its keyed hash of the text, one without a hash by the embedding or
    its keyed hash. At level `none` without embeddings nothing links two asks, so each decision is a question.
    """
    asked: str | bytes = normalised_text(record.text) if record.text else record.text_hash or ""
    asked = asked or record.embedding or (record.inputs.features if record.inputs else "") or record.decision_id
    data = asked if isinstance(asked, bytes) else asked.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(b"question\0" + data).digest()
    return int.from_bytes(digest[:8], "big") >> 1
