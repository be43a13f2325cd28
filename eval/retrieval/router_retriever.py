"""RouterRetriever's choice of an expert (Lee et al. 2024, arXiv 2409.02685, section 3), to compare with.

Each data set's labelled queries are grouped by the expert that served them best; the group's centroid of base
embeddings is a pilot of that expert. Shapes: n queries, d dimensions, m experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retrieval.routing.pilot_library import PilotLibrary
from router.features import unit_rows
from router.types import FloatArray, IntArray

TIE = 1e-6
"""Scores nearer than this are equal: the first expert, which is base, gets the query."""


def pilots_of(library: PilotLibrary, columns: Sequence[int]) -> tuple[FloatArray, IntArray]:
    """Unit rows (p, d), and the expert (p,) that each is a pilot of, as a place in the library's `columns` (m,)."""
    valid = np.where(library.measured[:, columns], library.scores[:, columns], -np.inf)
    winner = (valid >= valid.max(axis=1, keepdims=True) - TIE).argmax(axis=1)
    groups, member = np.unique(np.stack([library.data_set, winner]), axis=1, return_inverse=True)
    centroids = [library.embeddings[member == group].mean(axis=0) for group in range(groups.shape[1])]
    return unit_rows(np.array(centroids, dtype=np.float32)), groups[1]


def choose(
    library: PilotLibrary, columns: Sequence[int], embeddings: FloatArray, over: Callable[..., FloatArray]
) -> IntArray:
    """(n,) expert of each query, as a place in `columns`: the one whose pilots are most similar, by their mean (the
    paper) or their largest similarity (its released code), which is `over`. An expert without pilots gets none."""
    pilots, owner = pilots_of(library, columns)
    cosine = embeddings @ pilots.T
    owners = np.unique(owner)
    scores = np.stack([over(cosine[:, owner == expert], axis=1) for expert in owners], axis=1)
    return np.asarray(owners[scores.argmax(axis=1)], dtype=np.int64)
