"""Predicted gain of every arm over base near a query (ours; docs/retrieval.md has what was tried).

A query's similarities to all labelled queries become weights w = exp((cos - 1) / temperature). An arm's predicted gain
is the weighted mean of (its nDCG@10 - base's), pulled towards what the arm gains on domains that it was not made for,
as if `prior_count` labelled queries at similarity `prior_similarity` had shown that. So where nothing labelled is near,
the choice is the arm that does best on foreign domains, and base unless one is clearly better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.retrieval.library import PilotLibrary
from router.types import FloatArray


@dataclass(frozen=True)
class GainModel:
    """`pilots` (p, d); `gains` (p, m) of arms over base, 0 where not measured; `measured` (p, m) as 0 and 1; `foreign`
    (m,) gain on domains without an expert of their own."""

    pilots: FloatArray
    gains: FloatArray
    measured: FloatArray
    foreign: FloatArray
    temperature: float
    prior_mass: float
    margin: float

    def score(self, embeddings: FloatArray) -> tuple[FloatArray, FloatArray, np.ndarray]:
        """Predicted gains (n, m) with base at the margin, similarity to the nearest pilot (n,), and (n,) whether
        labelled queries outweigh the prior."""
        cosine = embeddings @ self.pilots.T
        weights = np.exp((cosine - 1) / np.float32(self.temperature))
        mass = weights @ self.measured
        gains = (weights @ self.gains + self.prior_mass * self.foreign) / (mass + self.prior_mass)
        gains[:, 0] = self.margin
        return gains.astype(np.float32), cosine.max(axis=1, initial=-1.0), weights.sum(axis=1) >= self.prior_mass


def fit_gains(library: PilotLibrary, columns: Sequence[int]) -> GainModel:
    """The model over those columns of the library; the first must be base."""
    settings = library.manifest.settings
    measured = (library.measured[:, columns] & library.measured[:, :1]).astype(np.float32)
    gains = (library.scores[:, columns] - library.scores[:, :1]) * measured
    return GainModel(
        pilots=library.embeddings,
        gains=gains,
        measured=measured,
        foreign=foreign_gains(gains, measured, library.data_set),
        temperature=settings.temperature,
        prior_mass=settings.prior_count * float(np.exp((settings.prior_similarity - 1) / settings.temperature)),
        margin=settings.margin,
    )


def foreign_gains(gains: FloatArray, measured: FloatArray, data_set: np.ndarray) -> FloatArray:
    """(m,): an arm's mean over data sets of its mean gain, its best data set left out, minus one standard error of
    that mean. A specialist shines on its own data set, which says nothing of a foreign one."""
    rows = []
    for name in np.unique(data_set):
        mine = data_set == name
        rows.append(gains[mine].sum(axis=0) / np.maximum(measured[mine].sum(axis=0), 1))
    table = np.sort(np.array(rows, dtype=np.float32).reshape(len(rows), gains.shape[1]), axis=0)[:-1]
    if len(table) < 2:
        return np.where(np.arange(gains.shape[1]) == 0, 0.0, -1.0).astype(np.float32) * 0.01
    error = table.std(axis=0, ddof=1) / np.sqrt(len(table))
    return np.asarray(table.mean(axis=0) - error, dtype=np.float32)
