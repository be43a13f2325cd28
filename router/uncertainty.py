"""When stage 1 is unsure, and how sure its probabilities are. Pure.

Shapes: n queries, d dimensions, k categories, r reference embeddings, h held-out queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.artifact import require_array, require_finite
from router.errors import ArtifactError
from router.protocols import ArrayState
from router.types import FloatArray

NEIGHBOURS = 5
MAX_REFERENCE = 4096
"""Reference rows kept in an artifact: 4096 x 384 in float16 are 3 MB, and distances to more hardly change (ours)."""

ECE_BINS = 15

CONFIDENCE = 0.9
"""Probability with which the promise behind the threshold holds."""

SEQUENCE_STARTS = (0.125, 0.25, 0.5, 0.75)
"""Shares of the held-out queries at which the tests for the threshold begin (ours): one unlucky error among the most
certain few then does not end the search."""


def apply_temperature(probs: FloatArray, temperature: float) -> FloatArray:
    """softmax(log p / T) (n, k); temperature scaling of Guo et al. 2017. T > 1 softens."""
    logits = np.log(np.maximum(probs, 1e-12)) / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float32)


def normalised_entropy(probs: FloatArray) -> FloatArray:
    """H(p) / log k (n,): 0 when certain, 1 when uniform."""
    if probs.shape[1] < 2:
        return np.zeros(len(probs), dtype=np.float32)
    entropy = -(probs * np.log(np.maximum(probs, 1e-12))).sum(axis=1)
    return np.asarray(entropy / np.log(probs.shape[1]), dtype=np.float32)


def neighbour_distance(embeddings: FloatArray, reference: FloatArray) -> FloatArray:
    """Mean cosine distance (n,) to the nearest reference embeddings (r, d)."""
    cosine = embeddings @ reference.T
    count = min(NEIGHBOURS, cosine.shape[1])
    nearest = -np.partition(-cosine, count - 1, axis=1)[:, :count]
    return np.asarray(1.0 - nearest.mean(axis=1), dtype=np.float32)


def quantile_of(values: FloatArray, sorted_sample: FloatArray) -> FloatArray:
    """Share of a sorted sample (h,) that lies below each value, in [0, 1]."""
    return np.asarray(np.searchsorted(sorted_sample, values) / max(len(sorted_sample), 1), dtype=np.float32)


def combine(entropy: FloatArray, distance_quantile: FloatArray, weight: float) -> FloatArray:
    """Uncertainty u = H(p) / log k + w q(d): unsure between categories, or unlike anything seen (ours, after CoE)."""
    return np.asarray(entropy + weight * distance_quantile, dtype=np.float32)


def risk_threshold(
    uncertainty: FloatArray, is_correct: NDArray[np.bool_], alpha: float, confidence: float = CONFIDENCE
) -> float:
    """Largest threshold t found safe: of queries with u <= t, at most alpha are wrong.

    The promise: over the draw of the h held-out queries, with probability `confidence` or more the share of wrong ones
    among all future accepted queries is at most alpha, when future queries are drawn like the held-out ones and the
    risk of what is accepted, once above alpha, stays there as t grows. Choosing the temperature and the weight on the
    same queries is not accounted for: two numbers against hundreds of queries.

    Selective classification (Geifman & El-Yaniv 2017) by fixed-sequence testing (Bauer 1991; Angelopoulos et al. 2021,
    "Learn then Test"). A prefix of n queries in order of uncertainty with w wrong is safe when the exact binomial
    (Clopper & Pearson 1934) upper bound of its risk is at most alpha, that is P(Binomial(n, alpha) <= w) <= delta.
    From each of `SEQUENCE_STARTS`, which share 1 - confidence evenly, prefixes grow until one is not safe; the longest
    safe one gives t. Let t* be where the risk crosses alpha: the queries below t* are a binomial sample of risk alpha
    whatever their number, so no sequence gets past t* with more than its share of probability. Minus infinity (accept
    nothing) when no prefix is safe: at alpha 0.1 and confidence 0.9 it takes 35 accepted queries without an error.
    """
    from scipy.special import bdtr

    order = np.argsort(uncertainty, kind="stable")
    ranked = uncertainty[order]
    n = np.arange(1, len(order) + 1)
    wrong = np.cumsum(~is_correct[order])
    delta = (1.0 - confidence) / len(SEQUENCE_STARTS)
    is_safe = bdtr(wrong.astype(np.float64), n, alpha) <= delta
    # Equal scores are accepted or refused together, so a prefix ends only where the next score is larger.
    ends = np.flatnonzero(np.append(np.diff(ranked) > 0, True)) if len(order) else np.zeros(0, dtype=np.int64)
    fewest = int(np.ceil(np.log(delta) / np.log1p(-alpha)))
    longest = -1
    for start in SEQUENCE_STARTS:
        tested = ends[ends + 1 >= max(fewest, int(np.ceil(start * len(order))))]
        safe = is_safe[tested]
        passed = len(safe) if safe.all() else int(safe.argmin())
        if passed > 0:
            longest = max(longest, int(tested[passed - 1]))
    return float(ranked[longest]) if longest >= 0 else float("-inf")


def expected_calibration_error(probs: FloatArray, labels: NDArray[np.int64]) -> float:
    """Mean gap between confidence and accuracy over 15 equal bins, weighted by their size (Guo et al. 2017)."""
    if len(labels) == 0:
        return 0.0
    confidence = probs.max(axis=1)
    is_correct = probs.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gap = sum(
        abs(float(is_correct[bins == b].sum()) - float(confidence[bins == b].sum())) for b in np.unique(bins).tolist()
    )
    return gap / len(labels)


@dataclass(frozen=True)
class Uncertainty:
    """Fitted: `reference` (r, d), `held_out_distances` (h,) sorted, the distance weight, the threshold for alpha."""

    reference: FloatArray
    held_out_distances: FloatArray
    weight: float
    threshold: float

    @classmethod
    def from_state(cls, state: ArrayState, *, alpha: float) -> Uncertainty:
        """From an artifact's arrays; the threshold is found for the alpha of experts.yaml. Raises ArtifactError."""
        scores = require_finite(state, "held_out_scores", (None,))
        correct = np.asarray(require_array(state, "held_out_correct", scores.shape), dtype=bool)
        reference = require_finite(state, "reference", (None, None))
        weight = float(require_finite(state, "weight", (1,))[0])
        if len(reference) == 0 or weight < 0:
            raise ArtifactError(f"uncertainty has {len(reference)} reference rows and weight {weight:g}")
        return cls(
            reference=reference,
            held_out_distances=np.sort(require_finite(state, "held_out_distances", (None,))),
            weight=weight,
            threshold=risk_threshold(scores, correct, alpha),
        )

    def score(self, embeddings: FloatArray, probs: FloatArray) -> FloatArray:
        """Uncertainty (n,) of queries with calibrated probabilities (n, k); larger is less sure."""
        entropy = normalised_entropy(probs)
        if self.weight == 0:
            return entropy
        if embeddings.shape[1] != self.reference.shape[1]:
            raise ArtifactError(f"embeddings have {embeddings.shape[1]} dimensions; expected {self.reference.shape[1]}")
        distance = neighbour_distance(embeddings, self.reference)
        return combine(entropy, quantile_of(distance, self.held_out_distances), self.weight)
