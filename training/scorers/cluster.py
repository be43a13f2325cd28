"""Fits router.scorers.cluster with scikit-learn's k-means."""

from __future__ import annotations

import numpy as np

from router.protocols import ArrayState
from router.scorers.cluster import Options
from training.scored import ScoredQueries

QUERIES_PER_CLUSTER = 20
PRIOR_COUNT = 5.0
"""Weight of the expert's overall mean in a cluster's, in queries (ours; the paper takes the plain mean)."""


def fit(options: Options, data: ScoredQueries, rng: np.random.Generator) -> ArrayState:
    from sklearn.cluster import KMeans

    clusters = max(1, min(options.clusters, len(data.embeddings) // QUERIES_PER_CLUSTER))
    found = KMeans(clusters, n_init=3, random_state=int(rng.integers(2**31))).fit(data.embeddings)
    centroids = found.cluster_centers_.astype(np.float32)
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-9)
    member = np.eye(clusters, dtype=np.float32)[found.labels_]
    sums = member.T @ np.nan_to_num(data.table.scores) + PRIOR_COUNT * data.means()
    return {"centroids": centroids, "quality": sums / (member.T @ data.observed + PRIOR_COUNT)}
