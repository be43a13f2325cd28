"""The bars that a new expert's probes have to exceed, and what is held back of an expert that proved nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from router.build import expert_costs
from router.config import CoeConfig
from router.map_solver import solve_map
from router.pipeline import Router
from router.quality import BROAD, QualityMatrix, cautious_quality
from router.types import Float64Array
from training.new_experts import BELOW_REFERENCE
from training.probe_plan import Bars


def bars_of(config: CoeConfig, router: Router, evidence: QualityMatrix, expert: str, n_probes: Sequence[int]) -> Bars:
    """Quality that the new expert has to exceed in every category under the default policy.

    Args:
        evidence: (k, m) of the router's experts, in their order.
        n_probes: (k,) how many there are of each row of the map.
    """
    rows, policy = np.arange(len(evidence.quality)), router.policy("default")
    now = np.array([policy.expert_of(row)[0] for row in rows.tolist()])
    room = np.array([0 if row in policy.pins else n for row, n in enumerate(n_probes)], dtype=np.float64)
    level = evidence.quality[rows, now].astype(np.float64) + dearer(config, router, evidence, expert, now)
    return Bars(level, evidence.stderr[rows, now].astype(np.float64), room)


def dearer(
    config: CoeConfig, router: Router, evidence: QualityMatrix, expert: str, now: NDArray[np.int64]
) -> Float64Array:
    """(k,) extra cost of the expert over the one that serves, in quality at the prices of the default policy's budgets.

    Its answers are taken to be as long and as slow as those of the others: none was seen yet.
    """
    columns = {
        name: array if array.ndim == 1 else np.column_stack([array, array.mean(axis=1)])
        for name, array in evidence.arrays().items()
    }
    joined = QualityMatrix(**columns)
    costs = expert_costs([config.experts[name] for name in (*router.experts, expert)], joined)
    policy = router.policy("default")
    solved = solve_map(
        cautious_quality(joined), joined.mass, costs, config.policies["default"].budgets, dict(policy.pins)
    )
    if solved.stand_ins is None:
        return np.zeros(len(now))
    tolls = solved.stand_ins.tolls
    return np.asarray(tolls[:, -1] - tolls[np.arange(len(now)), now])


def held_back(joined: QualityMatrix, reference: int, is_proven: NDArray[np.bool_]) -> QualityMatrix:
    """The matrix with its last column held below the reference by more than the error where nothing is proven (k,).

    So a map without budgets gives it none of those categories, even where it becomes the reference itself: the others
    lead by more than the error there. Its counts are the fewest of the others', so that a category that was asked more
    does not decide who is the reference.
    """
    error = np.hypot(joined.stderr[:, -1], joined.stderr[:, reference])
    ceiling = np.clip(joined.quality[:, reference] - error - BELOW_REFERENCE, 0.0, 1.0)
    quality, count = joined.quality.copy(), joined.count.copy()
    quality[:, -1] = np.where(is_proven, quality[:, -1], np.minimum(quality[:, -1], ceiling))
    count[:, -1] = np.maximum(count[:, :-1].min(axis=1), BROAD * is_proven)
    return replace(joined, quality=quality, count=count)
