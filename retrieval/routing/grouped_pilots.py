"""Pilot embeddings as RouterRetriever has them (Lee et al. 2024, arXiv 2409.02685, section 3).

Each data set's labelled queries are grouped by the expert that served them best; the group's centroid of base
embeddings is a pilot of that expert. A query's score for an expert is its mean similarity to that expert's pilots (the
paper), or the largest (the paper's released code).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.routing.pilot_library import PilotLibrary, RoutingMethod
from router.features import unit_rows
from router.types import FloatArray, IntArray

TIE = 1e-6
"""Scores nearer than this are equal: the first arm, which is base, gets the query."""


@dataclass(frozen=True)
class GroupedPilots:
    """`pilots` (p, d) unit rows, `owner` (p,) columns of m arms."""

    pilots: FloatArray
    owner: IntArray
    arms: int
    method: RoutingMethod

    def score(self, embeddings: FloatArray) -> tuple[FloatArray, FloatArray, np.ndarray]:
        """Scores (n, m), similarity to the nearest pilot (n,), and True (n,): this method knows no far query.

        An expert without pilots scores -1, the least a cosine can be.
        """
        cosine = embeddings @ self.pilots.T
        scores = np.full((len(embeddings), self.arms), -1.0, dtype=np.float32)
        for arm in np.unique(self.owner):
            mine = cosine[:, self.owner == arm]
            scores[:, arm] = mine.mean(axis=1) if self.method is RoutingMethod.MEAN else mine.max(axis=1)
        return scores, cosine.max(axis=1), np.ones(len(embeddings), dtype=bool)


def winners(scores: FloatArray, measured: np.ndarray) -> IntArray:
    """(n,) column of the best measured arm of each query; ties go to the first."""
    valid = np.where(measured, scores, -np.inf)
    return np.asarray((valid >= valid.max(axis=1, keepdims=True) - TIE).argmax(axis=1), dtype=np.int64)


def group_pilots(library: PilotLibrary, columns: Sequence[int]) -> GroupedPilots:
    """Centroids of each data set's queries by winner, over those columns of the library."""
    labels = winners(library.scores[:, columns], library.measured[:, columns])
    pilots, owners = [], []
    for data_set in np.unique(library.data_set):
        for arm in np.unique(labels[library.data_set == data_set]):
            pilots.append(library.embeddings[(library.data_set == data_set) & (labels == arm)].mean(axis=0))
            owners.append(int(arm))
    dim = library.manifest.dim
    return GroupedPilots(
        unit_rows(np.array(pilots, dtype=np.float32).reshape(len(pilots), dim)),
        np.array(owners, dtype=np.int64),
        len(columns),
        library.manifest.settings.method,
    )
