"""Fits router.scorers.trees with scikit-learn's histogram gradient boosting, and flattens the trees to arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router.protocols import ArrayState
from router.scorers.trees import LEAF, Options, tree_features
from training.scored import ScoredQueries, principal_directions

MAX_FEATURES = 0.3
"""Share of the features that a split may choose from: faster, and trees that differ."""


def fit(options: Options, data: ScoredQueries, rng: np.random.Generator) -> ArrayState:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    projection = principal_directions(data.embeddings, options.dimensions)
    features = tree_features(data.batch, data.probs, projection)
    base = data.means()
    trees, owners = [], []
    for e in range(len(base)):
        seen = np.isfinite(data.table.scores[:, e])
        if seen.sum() < 2 * options.min_leaf:
            continue  # too few to split: the expert's mean is all that is known
        model = HistGradientBoostingRegressor(
            max_iter=options.rounds,
            learning_rate=options.learning_rate,
            max_leaf_nodes=options.leaves,
            min_samples_leaf=options.min_leaf,
            l2_regularization=options.l2,
            max_features=MAX_FEATURES,
            early_stopping=False,
            random_state=int(rng.integers(2**31)),
        )
        with threadpool_limits(1):  # two OpenMP threads on busy cores wait for each other at every split
            model.fit(features[seen], data.table.scores[seen, e] - base[e])
        base[e] += float(model._baseline_prediction.ravel()[0])
        trees += [stage[0].nodes for stage in model._predictors]
        owners += [e] * len(model._predictors)
    return {"projection": projection, "base": base, **flattened(trees, owners)}


def flattened(trees: list[NDArray[np.void]], owners: list[int]) -> ArrayState:
    """The nodes of all trees in one row, children numbered in it."""
    sizes = [len(nodes) for nodes in trees]
    roots = np.concatenate([[0], np.cumsum(sizes)])[:-1] if sizes else np.zeros(0)
    shift = np.repeat(roots, sizes).astype(np.int64)

    def column(name: str, dtype: type[np.generic]) -> NDArray[np.generic]:
        parts = [nodes[name] for nodes in trees]
        return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype=dtype)

    is_leaf = column("is_leaf", np.bool_)
    return {
        "feature": np.where(is_leaf, LEAF, column("feature_idx", np.int32)).astype(np.int32),
        "threshold": np.where(is_leaf, np.float32(0), rounded_down(column("num_threshold", np.float64))),
        "left": (column("left", np.int64).astype(np.int64) + shift).astype(np.int32),
        "right": (column("right", np.int64).astype(np.int64) + shift).astype(np.int32),
        "value": column("value", np.float32),
        "roots": roots.astype(np.int32),
        "expert": np.array(owners, dtype=np.int32),
    }


def rounded_down(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """The largest float32 not above each float64, so that x <= threshold says the same of every float32 x."""
    exact = values.astype(np.float64)
    near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)
