"""Predicted gain of every arm over base near a query (ours; docs/retrieval.md has what was tried).

A query's similarities to all labelled queries become weights w = exp((cos - 1) / temperature), and the weights of a
data set's queries add up to its mass. An arm's predicted gain is the mean of what it gains on each data set (nDCG@10
minus base's, less half a standard error), in proportion to the masses. But a data set speaks of a query only as far as
the query is as near to it as its own queries are to each other; the rest is what the arm gains on domains that
it was not made for. So where nothing labelled is near, the choice is the arm that does best on foreign domains, and
base unless one is clearly better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.routing.domains import Domains
from retrieval.routing.pilot_library import PilotLibrary, RoutingSettings
from retrieval.types import BASE, Arm
from router.types import FloatArray

TINY = 1e-30

HYBRID_WEIGHT = 0.7
"""Weight of base in the fusion with BM25 that serves where nothing is known of foreign domains."""

HYBRID_GAIN = 0.02
"""What that fusion is then taken to gain: on dev queries of 13 collections it gained more on average, and lost little
where it lost (docs/results/retrieval.md). Every other arm is taken to lose as much."""

CAUTION = 0.5
"""Standard errors that are taken off a data set's mean gain (chosen by dev queries among 0, 0.5, 1 and 1.5)."""


@dataclass(frozen=True)
class GainModel:
    """`domains` of s data sets, whose own queries have the mass `typical` (s,); `gains` (s, m) of arms over base;
    `measured` (s, m) as 0 and 1; `foreign` (m,) gain on domains without an expert of their own."""

    domains: Domains
    typical: FloatArray
    gains: FloatArray
    measured: FloatArray
    foreign: FloatArray
    settings: RoutingSettings

    def under(self, settings: RoutingSettings) -> GainModel:
        """The same evidence under other settings."""
        return replace(self, settings=settings, typical=self.domains.typical(settings.temperature))

    def score(self, embeddings: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Predicted gains (n, m) with base at the margin, similarity to the nearest pilot (n,), and (n,) whether
        data sets have more of a say than foreign domains."""
        mass, similarity = self.domains.masses(embeddings, self.settings.temperature)
        gains, say = self.predicted(mass)
        return gains, similarity, say.sum(axis=1) >= 0.5

    def predicted(self, mass: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predicted gains (n, m) and every data set's say (n, s), for masses (n, s) at the settings' temperature."""
        nearness = mass / self.typical
        share = mass / np.maximum(mass.sum(axis=1, keepdims=True), TINY)
        say = share * nearness / (nearness + np.float32(self.settings.prior_mass))
        gains = say @ self.gains + (1 - say @ self.measured) * self.foreign
        gains[:, 0] = self.settings.margin
        return gains.astype(np.float32), say


def fit_gains(library: PilotLibrary, columns: Sequence[int], settings: RoutingSettings) -> GainModel:
    """The model over those columns of the library; the first must be base."""
    present = np.unique(library.data_set)
    tables = [data_set_gains(library, columns, library.data_set == number) for number in present]
    gains = np.array([table[0] for table in tables], dtype=np.float32).reshape(len(present), len(columns))
    measured = np.array([table[1] for table in tables], dtype=np.float32).reshape(len(present), len(columns))
    return GainModel(
        domains=library.domains,
        typical=library.domains.typical(settings.temperature),
        gains=gains,
        measured=measured,
        foreign=foreign_gains(gains, measured, [library.arms[column] for column in columns]),
        settings=settings,
    )


def data_set_gains(
    library: PilotLibrary, columns: Sequence[int], rows: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """(m,) gain of each arm over base on one data set, less `CAUTION` standard errors of that mean, and (m,) 1 where
    at least two queries measured it. Where none did the gain is 0 and does not count."""
    both = library.measured[rows][:, columns] & library.measured[rows][:, :1]
    change = (library.scores[rows][:, columns] - library.scores[rows][:, :1]) * both
    count = both.sum(axis=0)
    mean = change.sum(axis=0) / np.maximum(count, 1)
    variance = ((change - mean) ** 2 * both).sum(axis=0) / np.maximum(count - 1, 1)
    is_known = count >= 2
    cautious = np.where(is_known, mean - CAUTION * np.sqrt(variance / np.maximum(count, 1)), 0.0)
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
    return HYBRID_GAIN if is_hybrid and arm.learned_on is None else -HYBRID_GAIN
