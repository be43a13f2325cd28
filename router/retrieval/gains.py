"""Predicted gain of every arm over base near a query (ours; docs/retrieval.md has what was tried).

A query's similarities to all labelled queries become weights w = exp((cos - 1) / temperature), and the weights of a
data set's queries add up to its mass. An arm's predicted gain is the mass-weighted mean of what it gains on each data
set (nDCG@10 minus base's, less one standard error), pulled towards what it gains on domains that it was not made for,
as if `prior_count` labelled queries at similarity `prior_similarity` had shown that. So where nothing labelled is near,
the choice is the arm that does best on foreign domains, and base unless one is clearly better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.retrieval.library import Arm, PilotLibrary
from router.retrieval.records import BASE
from router.types import FloatArray

HYBRID_WEIGHT = 0.7
"""Weight of base in the fusion with BM25 that serves where nothing is known of foreign domains."""

HYBRID_GAIN = 0.02
"""What that fusion is then taken to gain: on dev queries of 13 collections it gained more on average, and lost little
where it lost (docs/results/retrieval.md). Every other arm is taken to lose as much."""


@dataclass(frozen=True)
class GainModel:
    """`pilots` (p, d) with `member` (p, s), 1 where a pilot belongs to that of s data sets; `gains` (s, m) of arms over
    base; `measured` (s, m) as 0 and 1; `foreign` (m,) gain on domains without an expert of their own."""

    pilots: FloatArray
    member: FloatArray
    gains: FloatArray
    measured: FloatArray
    foreign: FloatArray
    temperature: float
    prior_mass: float
    margin: float

    def score(self, embeddings: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Predicted gains (n, m) with base at the margin, similarity to the nearest pilot (n,), and (n,) whether
        labelled queries outweigh the prior."""
        cosine = embeddings @ self.pilots.T
        mass = np.exp((cosine - 1) / np.float32(self.temperature)) @ self.member
        known = mass @ self.gains + np.float32(self.prior_mass) * self.foreign
        gains = known / (mass @ self.measured + np.float32(self.prior_mass))
        gains[:, 0] = self.margin
        return gains.astype(np.float32), cosine.max(axis=1, initial=-1.0), mass.sum(axis=1) >= self.prior_mass


def fit_gains(library: PilotLibrary, columns: Sequence[int]) -> GainModel:
    """The model over those columns of the library; the first must be base."""
    settings = library.manifest.settings
    present = np.unique(library.data_set)
    tables = [data_set_gains(library, columns, library.data_set == number) for number in present]
    gains = np.array([table[0] for table in tables], dtype=np.float32).reshape(len(present), len(columns))
    measured = np.array([table[1] for table in tables], dtype=np.float32).reshape(len(present), len(columns))
    return GainModel(
        pilots=library.embeddings,
        member=(library.data_set[:, None] == present).astype(np.float32),
        gains=gains,
        measured=measured,
        foreign=foreign_gains(gains, measured, [library.arms[column] for column in columns]),
        temperature=settings.temperature,
        prior_mass=settings.prior_count * float(np.exp((settings.prior_similarity - 1) / settings.temperature)),
        margin=settings.margin,
    )


def data_set_gains(
    library: PilotLibrary, columns: Sequence[int], rows: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """(m,) gain of each arm over base on one data set, less one standard error of that mean, and (m,) 1 where at least
    two queries measured it. Where none did the gain is 0 and does not count."""
    both = library.measured[rows][:, columns] & library.measured[rows][:, :1]
    change = (library.scores[rows][:, columns] - library.scores[rows][:, :1]) * both
    count = both.sum(axis=0)
    mean = change.sum(axis=0) / np.maximum(count, 1)
    variance = ((change - mean) ** 2 * both).sum(axis=0) / np.maximum(count - 1, 1)
    is_known = count >= 2
    cautious = np.where(is_known, mean - np.sqrt(variance / np.maximum(count, 1)), 0.0)
    return cautious.astype(np.float32), is_known.astype(np.float32)


def foreign_gains(gains: FloatArray, measured: FloatArray, arms: Sequence[Arm]) -> FloatArray:
    """(m,): an arm's mean gain over data sets, its best data set left out, less one standard error of that mean. A
    specialist shines on its own data set, which says nothing of a foreign one. An arm that fewer than three data sets
    measured has what is taken for granted without any."""
    found = np.array([granted_gain(arm) for arm in arms], dtype=np.float32)
    for column in range(1, len(arms)):
        known = np.sort(gains[measured[:, column] > 0, column])[:-1]
        if len(known) >= 2:
            found[column] = known.mean() - known.std(ddof=1) / np.sqrt(len(known))
    return found


def granted_gain(arm: Arm) -> float:
    if arm.members == (BASE,):
        return 0.0
    is_hybrid = len(arm.members) == 2 and arm.members[0] == BASE and abs(arm.weights[0] - HYBRID_WEIGHT) < 1e-6
    return HYBRID_GAIN if is_hybrid else -HYBRID_GAIN
