"""Walking trees in numpy gives what scikit-learn predicts, and damaged trees are refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from router.errors import ArtifactError
from router.protocols import ArrayState
from router.scorers.trees import Forest, forest_of
from training.scorers.trees import flattened


def grown(seed: int, experts: int) -> tuple[ArrayState, list[HistGradientBoostingRegressor], np.ndarray]:
    """Models of 25 trees each on 4 features, and their nodes as arrays."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((400, 4)).astype(np.float32)
    models, trees, owners = [], [], []
    for e in range(experts):
        target = np.sin(features[:, e % 4]) + features[:, 3] * (features[:, 0] > 0)
        model = HistGradientBoostingRegressor(max_iter=25, max_leaf_nodes=3 + 6 * e, random_state=e)
        models.append(model.fit(features, target))
        trees += [stage[0].nodes for stage in model._predictors]
        owners += [e] * len(model._predictors)
    return {"base": np.zeros(experts, np.float32), **flattened(trees, owners)}, models, features


def predicted(model: HistGradientBoostingRegressor, features: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(features) - model._baseline_prediction.ravel()[0])


@pytest.mark.parametrize("columns", [[0, 1, 2], [2, 0], [1]])
def test_sums_of_leaves_are_scikit_learn_s(columns: list[int]) -> None:
    state, models, features = grown(seed=1, experts=3)
    found = forest_of(state, columns).sums(features)
    wanted = np.column_stack([predicted(models[e], features) for e in columns])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(forest_of(state, columns).sums(features[:1]), wanted[:1], atol=1e-5)


def test_an_expert_without_trees_adds_nothing() -> None:
    state, _, features = grown(seed=2, experts=1)
    two = {**state, "base": np.zeros(2, np.float32)}
    assert (forest_of(two, [0, 1]).sums(features)[:, 1] == 0).all()
    none: Forest = forest_of(two, [1])
    assert none.depth == 0
    assert (none.sums(features) == 0).all()


@pytest.mark.parametrize(("name", "child"), [("left", 0), ("right", 0), ("right", 10**6)])
def test_a_node_that_leads_back_or_nowhere_is_refused(name: str, child: int) -> None:
    state, _, _ = grown(seed=3, experts=1)
    at = int(np.flatnonzero(state["feature"] >= 0)[-1])
    broken = np.array(state[name])
    broken[at] = child
    with pytest.raises(ArtifactError, match="leads back or nowhere"):
        forest_of({**state, name: broken}, [0])
