"""A real router over three experts whose classifier looks for colour words: decisions a reader can foresee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from coe.router.capabilities import Capabilities
from coe.router.pipeline import Router
from coe.router.policy.map_solver import MapSolution
from coe.router.policy.solved_policy import SolvedPolicy
from coe.router.quality import Measured, QualityMatrix
from coe.router.scorers.map import MapScorer
from coe.router.types import CategoryProbs, FloatArray, View
from tests.router.exploring import explored

MANIFEST: Mapping[str, object] = {
    "created_at": "2026-01-01T00:00:00+00:00",
    "encoder": {"kind": "hashing", "fingerprint": "f", "dim": 4},
    "classifier": {"kind": "logistic"},
    "scorer": {"kind": "map"},
    "categories": ("red", "green"),
    "experts": ("ruby",),
    "temperature": 1.0,
}
"""Of an artifact that a small router stands for."""

CATEGORIES = ("red", "green")
EXPERTS = ("ruby", "emerald", "plain")
QUALITY = ((0.9, 0.2, 0.5), (0.2, 0.9, 0.5), (0.3, 0.4, 0.5))  # rows: red, green, general


@dataclass(frozen=True)
class ColourEncoder:
    """Counts colour words."""

    is_inline: bool = True
    dim: int = 2
    fingerprint: str = "colours"

    def encode(self, texts: Sequence[str]) -> FloatArray:
        counts = np.array([[text.lower().count(word) for word in CATEGORIES] for text in texts], dtype=np.float32)
        norms = np.linalg.norm(counts, axis=1, keepdims=True)
        return np.divide(counts, norms, out=np.zeros_like(counts), where=norms > 0)


@dataclass(frozen=True)
class ColourClassifier:
    """Softmax of the counts."""

    categories_: tuple[str, ...] = CATEGORIES

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        odds = np.exp(4 * embeddings)
        return CategoryProbs(self.categories_, np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float32))


@dataclass(frozen=True)
class MarginUncertainty:
    """1 - the largest probability."""

    threshold: float = 0.2
    thresholds: Mapping[View, float] = field(default_factory=dict)

    def threshold_of(self, view: View) -> float:
        return self.thresholds.get(view, self.threshold)

    def score(self, embeddings: FloatArray, probs: FloatArray, views: Sequence[View] | None = None) -> FloatArray:
        return np.asarray(1 - probs.max(axis=1), dtype=np.float32)

    def score_row(self, embedding: FloatArray, probs: Sequence[float], view: View = View.WHOLE) -> float:
        return 1 - max(probs)


def small_router(
    *, version: str = "0123456789abcdef", is_inline: bool = True, capabilities: Mapping[str, Capabilities] | None = None
) -> Router:
    """Red asks go to ruby, green ones to emerald, others to plain. Policy `wild` explores most of them."""
    quality = np.array(QUALITY, dtype=np.float32)
    zeros, ones = np.zeros((3, 3), dtype=np.float32), np.ones(3, dtype=np.float32)
    evidence = QualityMatrix(quality, zeros, zeros, ones, ones, zeros, zeros)
    solution = MapSolution(expert_of=quality.argmax(axis=1), quality=0.0, used={}, binding=())
    return Router(
        version=version,
        encoder=ColourEncoder(is_inline),
        classifier=ColourClassifier(),
        temperature=1.0,
        uncertainty=MarginUncertainty(),
        scorer=MapScorer(Measured(EXPERTS, evidence)),
        experts=EXPERTS,
        policies={"default": SolvedPolicy(solution), "wild": SolvedPolicy(solution, exploration=explored(2 / 3))},
        capabilities=capabilities
        or {name: Capabilities(context_tokens=4096, supports=frozenset({"tools", "json"})) for name in EXPERTS},
    )
