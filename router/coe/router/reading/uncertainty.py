"""Doubt of stage 1, and the calibration of its probabilities. Pure. Shapes: n queries, d dimensions, k categories, r
reference embeddings, h held-out queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log, tanh

import numpy as np

from coe.base.errors import ArtifactError
from coe.router.model_files.artifact import require_array, require_finite
from coe.router.protocols import ArrayState
from coe.router.types import BoolArray, Float64Array, FloatArray, View

NEIGHBOURS = 5
MAX_REFERENCE = 4096
"""Reference rows kept in an artifact: 4096 x 384 in float16 are 3 MB, and distances to more hardly change (ours)."""

PART_SHARE = 0.2
"""Share of the OOD score's weight if a part of a request was read (ours). A query without its material, such as
"Translate this into French.", belongs to no category; beside pasted material it does."""

LEAST = 1e-12
"""A smaller probability counts as this one where its logarithm is taken."""


def apply_temperature(probs: FloatArray, temperature: float) -> FloatArray:
    """Return softmax(log p / T), (n, k): temperature scaling of Guo et al. 2017. T > 1 softens."""
    odds = (np.maximum(probs, LEAST) / probs.max(axis=1, keepdims=True)) ** (1 / temperature)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float32)


def apply_mix(probs: FloatArray, ratio: FloatArray) -> FloatArray:
    """Return probabilities (n, k) for traffic with `ratio` (k,) times as many queries of each category. The ratio is to
    the labelled queries. Queries of a category are taken to be the same as there (label shift; Saerens, Latinne &
    Decaestecker 2002)."""
    shifted = probs * ratio
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def calibrated(probs: FloatArray, temperature: float, mix: FloatArray | None) -> FloatArray:
    """Return a classifier's probabilities (n, k) after temperature, and for the traffic's mix if it is known."""
    found = apply_temperature(probs, temperature)
    return found if mix is None else apply_mix(found, mix)


def calibrated_row(probs: Sequence[float], temperature: float, mix: FloatArray | None) -> list[float]:
    """Return what `calibrated` does for one query's probabilities (k,), in a fifth of the time of NumPy's calls."""
    top, power = max(probs), 1 / temperature
    odds = [((p if p > LEAST else LEAST) / top) ** power for p in probs]
    if mix is not None:
        odds = [each * ratio for each, ratio in zip(odds, mix.tolist(), strict=True)]
    total = sum(odds)
    return [each / total for each in odds]


def normalised_entropy(probs: FloatArray) -> FloatArray:
    """Return H(p) / log k, (n,): 0 if certain, 1 if uniform."""
    if probs.shape[1] < 2:
        return np.zeros(len(probs), dtype=np.float32)
    return np.asarray(np.vecdot(probs, np.log(np.maximum(probs, LEAST))) / -log(probs.shape[1]), dtype=np.float32)


def neighbour_distance(embeddings: FloatArray, reference: FloatArray) -> FloatArray:
    """Mean cosine distance (n,) to the nearest reference embeddings (r, d)."""
    cosine = embeddings @ reference.T
    count = min(NEIGHBOURS, cosine.shape[1])
    nearest = -np.partition(-cosine, count - 1, axis=1)[:, :count]
    return np.asarray(1.0 - nearest.mean(axis=1), dtype=np.float32)


def quantile_of(values: FloatArray, sorted_sample: FloatArray) -> FloatArray:
    """Return the share of a sorted sample (h,) that lies below each value, in [0, 1]."""
    return np.asarray(np.searchsorted(sorted_sample, values) / max(len(sorted_sample), 1), dtype=np.float32)


def outside_probability(embeddings: FloatArray, outside: FloatArray) -> FloatArray:
    """Return the probability (n,) of belonging to no category, by a linear discriminant (d + 1,), its offset last."""
    odds = embeddings @ outside[:-1] + outside[-1]
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * odds), dtype=np.float32)


def combine(entropy: FloatArray, strangeness: FloatArray, weight: float | FloatArray) -> FloatArray:
    """Return entropy + weight * OOD score, (n,) (ours, after CoE). A query is uncertain if it lies between categories
    or belongs to none of them."""
    return np.asarray(entropy + weight * strangeness, dtype=np.float32)


def share_of(view: View) -> float:
    """Return the share of the OOD score's weight in the uncertainty of a view."""
    return 1.0 if view is View.WHOLE else PART_SHARE


def risk_threshold(
    uncertainty: FloatArray, is_correct: BoolArray, alpha: float, weight: FloatArray | None = None
) -> float:
    """Return the largest threshold t that keeps the promise: among queries with u <= t, at most alpha are wrong.

    The longest prefix of the h held-out queries in order of uncertainty is accepted for which (w + 1 + sqrt(w + 1)) /
    (a + 1) <= alpha, if w of its a queries are wrong.

    The extra one is that of conformal risk control (Angelopoulos et al. 2022) and of selection with a bounded false
    discovery rate (Barber & Candes 2015, Jin & Candes 2023). With it alone, for a future query drawn like the h, E[1{u
    <= t, wrong} (h + 1) / (a + 1)] <= alpha. So the wrong ones among what is accepted, in units of the held-out
    coverage, are at most alpha on average over draws of the held-out queries. This holds for every distribution and for
    few queries.

    Proof: going down from the largest score, (h + 1) 1{wrong, u <= s} / (1 + w(s)) is a supermartingale, since each of
    the wrong queries below s is as likely as any other to be the future one. It starts at most at 1 in expectation, t
    is a stopping time, and 1 + w <= alpha (1 + a) there.

    The square root, one standard error of a count, covers what the theorem does not. Temperature and weight are fitted
    on the same queries, and the scores come from classifiers fitted on four fifths of them. Without it the share lay up
    to 0.004 above alpha (benchmarks/LOG.md). It also lets a single router exceed alpha in about one case of five; a
    bound for nine routers in ten accepted far less.

    With weights (h,) of mean 1, held-out query i counts as weight_i of the traffic, and the future one for at most the
    largest weight m (Tibshirani et al. 2019). Sums of weights then replace w and a, m replaces the one, and the sum of
    squares replaces w + 1 under the root.

    The threshold is minus infinity (accept nothing) if no prefix qualifies; at alpha 0.1 that takes 19 right answers in
    a row.
    """
    scores, bounds = prefix_bounds(uncertainty, is_correct, weight)
    kept = np.flatnonzero(bounds <= alpha)
    return float(scores[kept[-1]]) if len(kept) else float("-inf")


def least_alpha(uncertainty: FloatArray, is_correct: BoolArray) -> float:
    """Return the smallest alpha at which `risk_threshold` accepts any of h held-out queries; infinity without any."""
    return float(prefix_bounds(uncertainty, is_correct)[1].min(initial=np.inf))


def prefix_bounds(
    uncertainty: FloatArray, is_correct: BoolArray, weight: FloatArray | None = None
) -> tuple[FloatArray, Float64Array]:
    """Return scores (h,) in order, and the alpha that accepting each and all below it requires. It is infinite if the
    next score is equal, because equal scores are accepted or refused together."""
    order = np.argsort(uncertainty, kind="stable")
    mass = np.ones(len(order)) if weight is None else weight[order].astype(np.float64)
    is_wrong, most = ~is_correct[order], float(mass.max(initial=0.0))
    wrong, squares = np.cumsum(mass * is_wrong), np.cumsum(mass**2 * is_wrong)
    bounds = (wrong + most + np.sqrt(squares + most**2)) / (np.cumsum(mass) + most)
    ends = np.append(np.diff(uncertainty[order]) > 0, True)[: len(order)]
    return uncertainty[order], np.where(ends, bounds, np.inf)


def held_out_weight(state: ArrayState, n: int) -> FloatArray | None:
    """Return how much of the traffic each held-out query represents, (n,); None if all count alike. It raises
    ArtifactError if the array has the wrong shape or a number that is not positive."""
    if "held_out_weight" not in state:
        return None
    weight = require_finite(state, "held_out_weight", (n,))
    if (weight <= 0).any():
        raise ArtifactError("array 'held_out_weight' must hold positive numbers")
    return weight


def view_threshold(state: ArrayState, view: View, alpha: float) -> float:
    """Return the threshold of requests that were read from a part, from the scores that training stored. It raises
    ArtifactError if an array is missing or has the wrong shape."""
    scores = require_finite(state, f"{view}_scores", (None,))
    correct = np.asarray(require_array(state, f"{view}_correct", scores.shape), dtype=bool)
    return risk_threshold(scores, correct, alpha)


@dataclass(frozen=True)
class Uncertainty:
    """The fitted uncertainty of stage 1, and its threshold for alpha.

    `reference` is (r, d), `held_out_distances` (h,) sorted, `weight` that of the OOD score. The OOD score is the
    probability of the discriminant `outside` (d + 1,). Without one it is the share of held-out queries that lie nearer
    to the reference. With it no query needs the reference, the largest part of a router, which is then empty (0, d).
    """

    reference: FloatArray
    held_out_distances: FloatArray
    weight: float
    threshold: float
    outside: FloatArray | None = None
    thresholds: Mapping[View, float] = field(default_factory=dict)
    """Thresholds of requests that were read from a part; the others have `threshold`."""

    @classmethod
    def from_state(cls, state: ArrayState, *, alpha: float) -> Uncertainty:
        """Build it from an artifact's arrays; the threshold follows from the alpha of experts.yaml. It raises
        ArtifactError if an array is missing or has the wrong shape."""
        scores = require_finite(state, "held_out_scores", (None,))
        correct = np.asarray(require_array(state, "held_out_correct", scores.shape), dtype=bool)
        reference = require_finite(state, "reference", (None, None))
        outside = require_finite(state, "outside", (reference.shape[1] + 1,)) if "outside" in state else None
        weight = float(require_finite(state, "weight", (1,))[0])
        if len(reference) == 0 or weight < 0:
            raise ArtifactError(f"uncertainty has {len(reference)} reference rows and weight {weight:g}")
        return cls(
            reference=reference if outside is None else reference[:0].copy(),
            held_out_distances=np.sort(require_finite(state, "held_out_distances", (None,))),
            weight=weight,
            threshold=risk_threshold(scores, correct, alpha, held_out_weight(state, len(scores))),
            outside=outside,
            thresholds={view: view_threshold(state, view, alpha) for view in View if f"{view}_scores" in state},
        )

    def threshold_of(self, view: View) -> float:
        """Return the uncertainty above which a request is sent to `general`."""
        return self.thresholds.get(view, self.threshold)

    def score_row(self, embedding: FloatArray, probs: Sequence[float], view: View = View.WHOLE) -> float:
        """Return the `score` of one query with an embedding (1, d) and probabilities (k,)."""
        if len(probs) < 2 or (self.weight and self.outside is None):
            return float(self.score(embedding, np.array([probs], dtype=np.float32), [view])[0])
        entropy = -sum([p * log(p) for p in probs if p > 0]) / log(len(probs))
        if self.weight == 0 or self.outside is None:
            return entropy
        odds = float(embedding[0] @ self.outside[:-1]) + float(self.outside[-1])
        return entropy + self.weight * share_of(view) * (0.5 + 0.5 * tanh(0.5 * odds))

    def score(self, embeddings: FloatArray, probs: FloatArray, views: Sequence[View] | None = None) -> FloatArray:
        """Return the uncertainty (n,) of queries with calibrated probabilities (n, k); larger is less sure.

        Args:
            views: (n,) what the embeddings were read from; None: whole messages.
        """
        entropy = normalised_entropy(probs)
        if self.weight == 0:
            return entropy
        if embeddings.shape[1] != self.reference.shape[1]:
            raise ArtifactError(f"embeddings have {embeddings.shape[1]} dimensions; expected {self.reference.shape[1]}")
        weight = self.weight * (1.0 if views is None else np.array([*map(share_of, views)], dtype=np.float32))
        if self.outside is not None:
            return combine(entropy, outside_probability(embeddings, self.outside), weight)
        distance = neighbour_distance(embeddings, self.reference)
        return combine(entropy, quantile_of(distance, self.held_out_distances), weight)
