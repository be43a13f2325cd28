"""Fusion weights learned from a data set's labelled queries (ListNet, Cao et al. 2007).

A query's documents are those that a member found; each has its scores as in a plain fusion, and the `EVIDENCE` of its
words. The weights minimise the cross entropy between the documents' grades and the softmax of their weighted sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from coe.retrieval.routing.fusion import Evidence, Ranking, features
from coe.retrieval.training.ndcg import CUT, ndcg
from coe.retrieval.types import EVIDENCE, Arm
from coe.router.types import FloatArray, IntArray

MIN_QUERIES = 15
"""Smallest number of labelled queries with a relevant document among the hits; with fewer, nothing is learned."""

RIDGE = 3.0
"""Pull of each weight, in standard deviations of its feature, towards 0, relative to the summed loss of the queries."""

FOLDS = 10
"""Number of parts of the labelled queries, each scored by weights that the others taught."""


@dataclass(frozen=True)
class Candidates:
    """The input of one query's ranking: document rows (k,), features (k, f), and the grades of relevant rows."""

    rows: IntArray
    features: FloatArray
    grades: Mapping[int, int]

    @property
    def targets(self) -> FloatArray:
        """The share (k,) of each document in the grades of all hits; all 0 if none is relevant."""
        found = np.array([self.grades.get(int(row), 0) for row in self.rows], dtype=np.float64)
        return np.asarray(found / max(found.sum(), 1e-12))


def candidates(rankings: Sequence[Ranking], evidence: Evidence, grades: Mapping[int, int]) -> Candidates:
    """Return the documents in the order in which a fusion breaks ties."""
    rows, first, found = features(rankings, evidence)
    order = np.argsort(first)
    return Candidates(rows[order], found[order].astype(np.float64), grades)


def learn_weights(queries: Sequence[Candidates]) -> FloatArray | None:
    """Learn weights (f,) of absolute sum 1, at least 0 for the members; None if too few queries teach."""
    taught = [query for query in queries if query.targets.any()]
    if len(taught) < MIN_QUERIES:
        return None
    stacked = np.concatenate([query.features for query in taught])
    spread = np.maximum(stacked.std(axis=0), 1e-9)
    scaled, targets = stacked / spread, np.concatenate([query.targets for query in taught])
    sizes = [len(query.rows) for query in taught]
    starts, query_of = np.cumsum([0, *sizes[:-1]]), np.repeat(np.arange(len(sizes)), sizes)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        sums = scaled @ weights
        highest = np.maximum.reduceat(sums, starts)
        odds = np.exp(sums - highest[query_of])
        totals = np.add.reduceat(odds, starts)
        value = float((np.log(totals) + highest).sum() - targets @ sums) + RIDGE / 2 * float(weights @ weights)
        return value, scaled.T @ (odds / totals[query_of] - targets) + RIDGE * weights

    members = stacked.shape[1] - len(EVIDENCE)
    bounds = [(0.0, None)] * members + [(None, None)] * len(EVIDENCE)
    found = minimize(loss, np.zeros(len(spread)), jac=True, method="L-BFGS-B", bounds=bounds).x / spread
    size = float(np.abs(found).sum())
    return np.asarray(found / size) if size > 0 else None


def scores_by(weights: FloatArray, queries: Sequence[Candidates]) -> FloatArray:
    """Return nDCG@10 (n,) of queries by these weights."""
    found = [query.rows[np.argsort(-(query.features @ weights), kind="stable")[:CUT]] for query in queries]
    return ndcg([rows.tolist() for rows in found], [query.grades for query in queries]).astype(np.float32)


def cross_scores(queries: Sequence[Candidates]) -> FloatArray | None:
    """Return nDCG@10 (n,) of each query by weights that it did not teach; None if a part teaches nothing."""
    scores = np.zeros(len(queries), dtype=np.float32)
    for fold in range(FOLDS):
        weights = learn_weights([query for place, query in enumerate(queries) if place % FOLDS != fold])
        if weights is None:
            return None
        scores[fold::FOLDS] = scores_by(weights, queries[fold::FOLDS])
    return scores


def learned_arm(members: Sequence[str], data_set: str, weights: FloatArray) -> Arm:
    rounded = tuple(round(float(weight), 6) for weight in weights)
    count = len(members)
    return Arm(members=tuple(members), weights=rounded[:count], evidence=rounded[count:], learned_on=data_set)
