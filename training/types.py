"""Records of learning: outcome tables. Shapes: n prompts, m experts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from router.types import GENERAL, FloatArray

MIN_TABLE_PROMPTS = 5
"""Fewest prompts of a category that is learned: with one in each fold, every fold's training part has some (ours)."""

ONE_CATEGORY = "all"
"""Category of every prompt where none of the table's own can be learned."""


NO_ANSWER, NOT_COMPARED = -1, -2


@dataclass(frozen=True)
class OutcomeTable:
    """Scores of m experts on n prompts.

    `scores` (n, m) lies in [0, 1], NaN where an expert was not run. The other matrices are NaN where unknown;
    `output_tokens` are a quarter of the reply's characters where only those were recorded.
    `splits` holds train, valid or test per prompt. `is_cost_estimated`: some cost was not recorded but computed from
    list prices and the length of prompt and answer. `answers` (n, m) numbers the different answers to each prompt from
    0; -1 (NO_ANSWER) where a reply states none, -2 (NOT_COMPARED) where nobody looked. None where nobody ever did.
    `logprobs` (n, m) are mean log-probabilities of the replies' tokens, NaN or None where unknown.
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
    answers: NDArray[np.int64] | None = None
    logprobs: FloatArray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.prompt_ids), len(self.experts))
        for name in ("scores", "cost_usd", "output_tokens", "latency_ms"):
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} has shape {found}; expected {shape} (prompts, experts)")
        if self.answers is not None and self.answers.shape != shape:
            raise ValueError(f"answers have shape {self.answers.shape}; expected {shape} (prompts, experts)")
        if self.logprobs is not None and self.logprobs.shape != shape:
            raise ValueError(f"logprobs have shape {self.logprobs.shape}; expected {shape} (prompts, experts)")

    def rows(self, keep: NDArray[np.bool_] | NDArray[np.int64] | Sequence[int]) -> OutcomeTable:
        """The table of some prompts: a boolean mask (n,) or row numbers."""
        index = np.arange(len(self.prompt_ids))[np.asarray(keep)]
        return replace(
            self,
            prompt_ids=tuple(self.prompt_ids[i] for i in index),
            texts=tuple(self.texts[i] for i in index),
            categories=tuple(self.categories[i] for i in index),
            splits=tuple(self.splits[i] for i in index),
            scores=self.scores[index],
            cost_usd=self.cost_usd[index],
            output_tokens=self.output_tokens[index],
            latency_ms=self.latency_ms[index],
            answers=None if self.answers is None else self.answers[index],
            logprobs=None if self.logprobs is None else self.logprobs[index],
        )

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
    """Size and price of one expert; None where unknown. Prices are USD per million tokens."""

    active_params_b: float | None = None
    price_in_per_m_usd: float | None = None
    price_out_per_m_usd: float | None = None
