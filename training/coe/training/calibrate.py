"""Calibration of stage 1 on queries it was not fitted on. Shapes: n queries, d dimensions, k categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray

from coe.router.reading.features import unit_rows
from coe.router.reading.uncertainty import (
    LEAST,
    MAX_REFERENCE,
    NEIGHBOURS,
    apply_temperature,
    combine,
    neighbour_distance,
    normalised_entropy,
    outside_probability,
    quantile_of,
)
from coe.router.types import BoolArray, FloatArray, IntArray

TEMPERATURE_RANGE = (0.05, 20.0)
OOD_WEIGHTS = (0.0, 0.25, 0.5, 1.0)
BLOCK_ROWS = 1024

MIN_OUTSIDE = 20
"""Number of queries of `general` below which no discriminant is learned (ours)."""

SHRINKAGE = 0.3
"""Share of an even covariance in the discriminant's, because queries hardly outnumber dimensions (ours; 0.02 to 0.3
made little difference, benchmarks/LOG.md)."""

FOLDS = 5


def fit_temperature(probs: FloatArray, labels: IntArray) -> float:
    """Return the T with the least negative log-likelihood of softmax(log p / T) on held-out (n, k) (Guo et al.
    2017)."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        calibrated = apply_temperature(probs, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(calibrated[rows, labels], 1e-12)).mean())

    bounds = (float(np.log(TEMPERATURE_RANGE[0])), float(np.log(TEMPERATURE_RANGE[1])))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def error_auroc(uncertainty: FloatArray, is_correct: BoolArray) -> float:
    """Return the probability that a wrong query is more uncertain than a right one (ties count half); 0.5 without
    both."""
    from sklearn.metrics import roc_auc_score

    return 0.5 if is_correct.all() or not is_correct.any() else float(roc_auc_score(~is_correct, uncertainty))


def distance_to_others(embeddings: FloatArray, kept: FloatArray) -> FloatArray:
    """Return each row's `neighbour_distance` (n,) to its nearest kept rows except itself.

    A kept row finds itself at distance 0, so its nearest row is left out; repeated texts still count once.
    """
    keys = {row.tobytes() for row in kept}
    distances = np.zeros(len(embeddings), dtype=np.float32)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS]
        nearest = -np.sort(-(block @ kept.T), axis=1)[:, : NEIGHBOURS + 1]
        is_kept = np.array([row.tobytes() in keys for row in block])
        without_self = nearest[:, 1:] if nearest.shape[1] > 1 else nearest
        mean = np.where(is_kept, without_self.mean(axis=1), nearest[:, :NEIGHBOURS].mean(axis=1))
        distances[start : start + BLOCK_ROWS] = 1.0 - mean
    return distances


def fit_outside(inside: FloatArray, others: FloatArray) -> FloatArray:
    """Fit a linear discriminant (d + 1,), offset last, of queries of no category (o, d) against those of one (r, d),
    for equal priors. The covariance is the latter's, shrunk towards an even one (Friedman 1989)."""
    centre, beyond = inside.mean(axis=0, dtype=np.float64), others.mean(axis=0, dtype=np.float64)
    deviations = inside - centre.astype(np.float32)
    scatter = (deviations.T @ deviations).astype(np.float64) / len(inside)
    even = max(float(np.trace(scatter)) / len(scatter), 1e-12) * np.eye(len(scatter))
    direction = np.linalg.solve((1 - SHRINKAGE) * scatter + SHRINKAGE * even, beyond - centre)
    return np.append(direction, -direction @ (centre + beyond) / 2).astype(np.float32)


def outside_out_of_fold(inside: FloatArray, others: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return probabilities (r + o,) of belonging to no category, by discriminants not fitted on the query."""
    folds = [rng.permutation(len(rows)) % FOLDS for rows in (inside, others)]
    found = np.zeros(len(inside) + len(others), dtype=np.float32)
    rows, fold_of = np.concatenate([inside, others]), np.concatenate(folds)
    for fold in range(FOLDS):
        taught = np.flatnonzero(folds[0] != fold)
        kept = inside[rng.choice(taught, min(len(taught), MAX_REFERENCE), replace=False)]
        outside = fit_outside(kept, others[folds[1] != fold])
        found[fold_of == fold] = outside_probability(rows[fold_of == fold], outside)
    return found


def fit_uncertainty(
    *,
    reference: FloatArray,
    others: FloatArray,
    probs: FloatArray,
    is_correct: BoolArray,
    temperature: float,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.generic]]:
    """Fit the arrays of `router.uncertainty.Uncertainty`.

    Args:
        reference: training queries of known categories (r, d); the first r rows of `probs` are theirs, out of fold.
        others: queries of `general` (o, d); the last o rows of `probs` are theirs.
        probs: probabilities before calibration (r + o, k); `is_correct` (r + o,).

    Kind and weight of the OOD score are those that best separate wrong from right (area under the ROC curve).
    """
    kept = reference
    if len(reference) > MAX_REFERENCE:
        kept = reference[np.sort(rng.choice(len(reference), MAX_REFERENCE, replace=False))]
    own = distance_to_others(reference, kept)
    distances = np.sort(own)
    beyond = neighbour_distance(others, kept) if len(others) else np.zeros(0, dtype=np.float32)
    kinds = {"distance": quantile_of(np.concatenate([own, beyond]), distances)}
    if len(others) >= MIN_OUTSIDE:
        kinds["outside"] = outside_out_of_fold(reference, others, rng)
    entropy = normalised_entropy(apply_temperature(probs, temperature))
    kind, weight = max(
        product(kinds, OOD_WEIGHTS),
        key=lambda pair: error_auroc(combine(entropy, kinds[pair[0]], pair[1]), is_correct),
    )
    found: dict[str, NDArray[np.generic]] = {
        "reference": kept.astype(np.float16),
        "held_out_distances": distances.astype(np.float32),
        "held_out_scores": combine(entropy, kinds[kind], weight),
        "held_out_correct": is_correct.astype(np.uint8),
        "weight": np.array([weight], dtype=np.float32),
    }
    if kind == "outside":
        found["outside"] = fit_outside(kept, others)
    return found


FEW_EXAMPLES = 30
"""Number of labelled queries below which a category is new (ours)."""

MIN_EXAMPLE_PROBABILITY = 0.5
"""Probability above which a logged query is an example of a new category (ours; benchmarks/LOG.md)."""

MAX_GROWN_EXAMPLES = 100
MAX_EXAMPLES_PER_KEY = 5
"""Most logged queries that become a new category's examples, of one key or question; MAX_GROWN_EXAMPLES: of all."""

RECOGNISED = "recognised_"
"""Prefix of the metric that gives how surely a new category is recognised."""


def is_new(labels: IntArray, k: int) -> BoolArray:
    """Return which categories (k,) occur, but less often than `FEW_EXAMPLES` and than the median category."""
    own = np.bincount(labels, minlength=k)
    return np.asarray((own > 0) & (own < min(FEW_EXAMPLES, median_size(labels))))


def median_size(labels: IntArray) -> int:
    """Return the median number of queries of the categories that occur; 0 without any."""
    own = np.bincount(labels)
    return int(np.median(own[own > 0])) if len(labels) else 0


def augment_new_categories(
    embeddings: FloatArray, labels: IntArray, new: BoolArray, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Generate queries of new categories until each has median size. Each is one of the category's queries, moved by
    another query's offset from the mean of its own category.

    A few points far apart teach a linear classifier next to nothing, however often they count. The spread of a category
    resembles that of others (Yang, Liu & Xu, ICLR 2021).

    Args:
        embeddings: unit rows, of shape (n, d).
        new: which categories are new, of shape (k,).
    """
    others = np.flatnonzero(~new[labels])
    sums = np.zeros((len(new), embeddings.shape[1]))
    np.add.at(sums, labels, embeddings)
    means = sums / np.maximum(np.bincount(labels, minlength=len(new)), 1)[:, None]
    rows, found = [embeddings[:0]], [labels[:0]]
    for category in np.flatnonzero(new) if len(others) else []:
        own = embeddings[labels == category]
        missing = max(median_size(labels) - len(own), 0)
        far = rng.choice(others, missing)
        moved = own[rng.integers(0, len(own), missing)] + embeddings[far] - means[labels[far]]
        rows.append(unit_rows(moved))
        found.append(np.full(missing, category, dtype=np.int64))
    return np.concatenate(rows).astype(np.float32), np.concatenate(found)


def with_ood_queries(
    uncertainty: Mapping[str, NDArray[np.generic]],
    unseen: FloatArray,
    labels: IntArray,
    new: BoolArray,
    ratio: FloatArray | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of an uncertainty, with OOD queries in place of the queries that new categories lack.

    A few examples cannot show how often other queries of their category are surely taken for those of another one. An
    OOD query is one of a known category without the probability of that category, as if the classifier had never
    learned it. It counts as misclassified (ours). Each new category has as many of them as it lacks to be of median
    size, times the share of its examples that are misclassified.

    Args:
        unseen: calibrated probabilities of the labelled queries, by classifiers not fitted on them, of shape (n, k).
        labels: k for queries of no category (n,); the first held-out queries are the others, in their order.
        new: which categories are new (k,); `ratio` (k,) is how much more often each is asked than it is labelled.
    """
    inside = labels < len(new)
    own, probs = labels[inside], unseen[inside]
    known = np.flatnonzero(~new[own])
    counts = np.bincount(own, minlength=len(new))
    found = np.bincount(own[probs.argmax(axis=1) == own], minlength=len(new))
    unfound = 1 - found / np.maximum(counts, 1)
    lacking = np.where(new, (median_size(own) - counts) * unfound, 0).round().astype(np.int64)
    if not lacking.any() or len(np.unique(own[known])) < 2:
        return dict(uncertainty)
    drawn = np.random.default_rng(0).choice(known, int(lacking.sum()))
    left = probs[drawn]
    left[np.arange(len(drawn)), own[drawn]] = LEAST
    left /= left.sum(axis=1, keepdims=True)
    scores = np.asarray(uncertainty["held_out_scores"], dtype=np.float32)[drawn]
    scores += normalised_entropy(left) - normalised_entropy(probs[drawn])
    added = {"held_out_scores": scores, "held_out_correct": np.zeros(len(drawn), dtype=np.uint8)}
    if ratio is not None:
        added["held_out_weight"] = np.repeat(ratio, lacking)
    return {**uncertainty, **{name: np.concatenate([uncertainty[name], rows]) for name, rows in added.items()}}


def select_new_examples(probs: FloatArray, new: BoolArray, cluster: IntArray) -> tuple[IntArray, IntArray]:
    """Return the rows and the categories of queries (n, k) that are surely of a new category, the surest first.

    Args:
        new: which categories are new (k,); `cluster` (n,) groups queries of one key or question; `MAX_EXAMPLES_PER_KEY`
            count.
    """
    likely, surety = probs.argmax(axis=1), probs.max(axis=1)
    rows: list[int] = []
    for category in np.flatnonzero(new):
        own = np.flatnonzero((likely == category) & (surety > MIN_EXAMPLE_PROBABILITY))
        rows += limit_per_cluster(own[np.argsort(-surety[own], kind="stable")], cluster)[:MAX_GROWN_EXAMPLES]
    found = np.array(rows, dtype=np.int64)
    return found, likely[found]


def limit_per_cluster(rows: IntArray, cluster: IntArray) -> list[int]:
    """Return the rows in order, without those of a cluster beyond `MAX_EXAMPLES_PER_KEY`."""
    given: Counter[int] = Counter()
    kept = []
    for row in rows.tolist():
        given[int(cluster[row])] += 1
        if given[int(cluster[row])] <= MAX_EXAMPLES_PER_KEY:
            kept.append(row)
    return kept
