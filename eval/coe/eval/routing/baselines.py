"""The arms that a router is compared with.

A choice is a matrix (n, m): the probability with which each of m experts answers each of n queries; rows sum to 1. An
arm's score is the expected one, so nothing here is drawn. Scores are complete (no NaN).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray

KNN_NEIGHBOURS = 40
"""As in Composition of Experts (Jain et al. 2024), whose k-NN vote is near 40."""


def one_hot(experts: IntArray, m: int) -> Float64Array:
    """The choice (n, m) of one expert number per query (n,)."""
    return np.eye(m)[experts]


def best_single(fit_scores: FloatArray, allowed: BoolArray | None = None) -> int:
    """The expert of highest mean score on the fit rows, among the allowed ones (m,); the first of equals."""
    means = fit_scores.mean(axis=0, dtype=np.float64)
    return int(np.argmax(means if allowed is None else np.where(allowed, means, -np.inf)))


def best_mixture(
    fit_means: Float64Array, amounts: Float64Array, budget: float, together: BoolArray | None = None
) -> Float64Array | None:
    """The best fixed mixture of experts whose mean amount keeps within a budget: what a coin could do.

    Maximises sum_e p_e mean_e subject to sum_e p_e amount_e <= budget, sum_e p_e = 1, p >= 0: a point on the upper hull
    of the experts' (amount, mean), so at most two experts are mixed (ours, after RouterBench's interpolation).

    Args:
        fit_means: (m,) mean scores on the fit rows.
        amounts: (m,) active parameters, cost or latency per query.
        together: (m, m) which two experts may be mixed, on the diagonal which may serve alone; None admits all.

    Returns:
        (m,) probabilities, or None when no admitted expert is within the budget.
    """
    best: tuple[float, Float64Array] | None = None
    inside = np.flatnonzero(amounts <= budget)
    for low in inside:
        for high in range(len(amounts)) if together is None else np.flatnonzero(together[low]):
            above = amounts[high] > budget
            share = (budget - amounts[low]) / (amounts[high] - amounts[low]) if above else float(high == low)
            probs = np.zeros(len(amounts))
            probs[low] += 1 - share
            probs[high] += share
            value = float(probs @ fit_means)
            if best is None or value > best[0]:
                best = value, probs
    return best[1] if best else None


def category_oracle(scores: FloatArray, categories: Sequence[str]) -> IntArray:
    """(n,) the expert of highest mean score on each query's true category, chosen in hindsight on these very scores."""
    experts = np.zeros(len(categories), dtype=np.int64)
    labels = np.asarray(categories)
    for category in np.unique(labels):
        members = labels == category
        experts[members] = best_single(scores[members])
    return experts


def query_oracle(scores: FloatArray, active_params_b: Float64Array) -> IntArray:
    """(n,) the best expert of each query, in hindsight; among equals the one of fewest active parameters (m,), where
    unknown counts as most."""
    order = np.argsort(np.where(np.isnan(active_params_b), np.inf, active_params_b), kind="stable")
    return np.asarray(order[np.argmax(scores[:, order], axis=1)], dtype=np.int64)


def knn(
    fit_scores: FloatArray, fit_embeddings: FloatArray, embeddings: FloatArray, k: int = KNN_NEIGHBOURS
) -> IntArray:
    """(n,) the expert of highest mean score on the k nearest fit queries, weighted by cosine similarity (at least 0).

    Args:
        fit_embeddings: (f, d), rows L2-normalised, as are those of `embeddings` (n, d).
    """
    from sklearn.neighbors import KNeighborsRegressor

    model = KNeighborsRegressor(
        n_neighbors=min(k, len(fit_embeddings)),
        metric="cosine",
        weights=lambda distances: np.maximum(1 - distances, 0) + 1e-9,  # of equal use where none is similar
    )
    return np.asarray(model.fit(fit_embeddings, fit_scores).predict(embeddings).argmax(axis=1), dtype=np.int64)
