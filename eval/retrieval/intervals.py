"""Intervals of means over queries, and of means over collections, paired with base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eval.metrics.bootstrap import DRAWS, bootstrap_means, percentile_interval
from eval.retrieval.retrieval_records import ArmScore
from router.types import FloatArray

Scores = Mapping[str, FloatArray]
"""Arm -> score per query (n,)."""


def arm_scores(parts: Sequence[Scores], rng: np.random.Generator, draws: int = DRAWS) -> dict[str, ArmScore]:
    """Arms that all parts have. The mean over queries of each collection, then over collections; queries are resampled
    within their collection (stratified), so the collections themselves are taken as given."""
    names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    if not names:
        return {}
    columns = [np.stack([part[name] for name in names], axis=1).astype(np.float64) for part in parts]
    sampled = np.mean([bootstrap_means(values, rng, draws) for values in columns], axis=0)
    means = np.mean([values.mean(axis=0) for values in columns], axis=0)
    base = names.index("base")
    return {
        name: ArmScore(
            ndcg_at_10=float(means[i]),
            interval=percentile_interval(sampled[:, i]),
            gain=float(means[i] - means[base]),
            gain_interval=percentile_interval(sampled[:, i] - sampled[:, base]),
        )
        for i, name in enumerate(names)
    }
