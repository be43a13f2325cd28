"""The arms that a router is compared with.

A choice is a matrix (n, m): the probability with which each of m experts answers each of n queries; rows sum to 1. An
arm's score is the expected one, so nothing here is drawn. Scores are complete (no NaN).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray

KNN_NEIGHBOURS = 40
"""Number of neighbours that vote, as in Composition of Experts (Jain et al. 2024), whose k-NN vote is near 40."""


def one_hot(experts: IntArray, m: int) -> Float64Array:
    """Return the choice of one expert number per query (n,), of shape (n, m)."""
    return np.eye(m)[experts]


def best_single(fit_scores: FloatArray, allowed: BoolArray | None = None) -> int:
    """Return the expert of highest mean score on the fit rows, among the allowed ones (m,); the first of equals."""
    means = fit_scores.mean(axis=0, dtype=np.float64)
    return int(np.argmax(means if allowed is None else np.where(allowed, means, -np.inf)))


def best_mixture(
    fit_means: Float64Array, amounts: Float64Array, budget: float, together: BoolArray | None = None
) -> Float64Array | None:
    """Return the best fixed mixture of experts whose mean amount stays within a budget: the best random choice.

    The mixture maximises sum_e p_e mean_e subject to sum_e p_e amount_e <= budget, sum_e p_e = 1, p >= 0. Its optimum
    lies on the upper hull of the experts' (amount, mean), so at most two experts are mixed (ours, after RouterBench).

    Args:
        fit_means: mean scores on the fit rows, of shape (m,).
        amounts: active parameters, cost or latency per query, of shape (m,).
        together: pairs that may be mixed, and on the diagonal experts that may serve alone (m, m); None admits all.

    Returns:
        Probabilities of shape (m,), or None if no admitted expert is within the budget.
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
    """Return the expert (n,) of highest mean score on each query's true category, in hindsight on these scores."""
    experts = np.zeros(len(categories), dtype=np.int64)
    labels = np.asarray(categories)
    for category in np.unique(labels):
        members = labels == category
        experts[members] = best_single(scores[members])
    return experts


def query_oracle(scores: FloatArray, active_params_b: Float64Array) -> IntArray:
    """Return the best expert of each query, in hindsight, of shape (n,). At equal scores the one of fewest active
    parameters (m,) wins; unknown counts as most."""
    order = np.argsort(np.where(np.isnan(active_params_b), np.inf, active_params_b), kind="stable")
    return np.asarray(order[np.argmax(scores[:, order], axis=1)], dtype=np.int64)


def knn(
    fit_scores: FloatArray, fit_embeddings: FloatArray, embeddings: FloatArray, k: int = KNN_NEIGHBOURS
) -> IntArray:
    """Return the expert (n,) of highest mean score on the k nearest fit queries, weighted by cosine similarity (at
    least 0).

    Args:
        fit_embeddings: rows L2-normalised, of shape (f, d), as are those of `embeddings` (n, d).
    """
    from sklearn.neighbors import KNeighborsRegressor

    model = KNeighborsRegressor(
        n_neighbors=min(k, len(fit_embeddings)),
        metric="cosine",
        weights=lambda distances: np.maximum(1 - distances, 0) + 1e-9,  # of equal use where none is similar
    )
    return np.asarray(model.fit(fit_embeddings, fit_scores).predict(embeddings).argmax(axis=1), dtype=np.int64)
