"""Predicted gain of every arm over the plain one near a query (our method; docs/retrieval.md has what was tried).

The plain arm is base, fused with BM25 if there is one. A query's similarities to all labelled queries become weights w
= exp((cos - 1) / temperature). The weights of a data set's queries sum to its mass. An arm's predicted gain is the mean
of its gains on the data sets, weighted by mass. A gain is nDCG@10 minus the plain arm's, less half a standard error.

A data set counts only as far as the query is as near to it as its own queries are to each other. The rest is the arm's
loss on foreign domains. So the plain arm serves unless labelled queries nearby favour another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coe.retrieval.routing.domains import Domains
from coe.retrieval.routing.fusion import plain_column
from coe.retrieval.routing.pilot_library import PilotLibrary, RoutingSettings
from coe.router.types import BoolArray, FloatArray

TINY = 1e-30

FOREIGN_LOSS = 0.02
"""Assumed loss of an arm in nDCG@10 on foreign domains, if fewer than three data sets measured it (our choice)."""

CAUTION = 0.5
"""Standard errors that are subtracted from a data set's mean gain (chosen on dev queries from 0, 0.5, 1 and 1.5)."""


@dataclass(frozen=True)
class GainModel:
    """The gains of m arms near the domains of s data sets.

    `typical` (s,) is the mass of a data set's own queries. `gains` (s, m) are over the arm in column `plain`;
    `measured` (s, m) is 0 or 1; `foreign` (m,) is the gain on other domains, at most 0.
    """

    domains: Domains
    typical: FloatArray
    gains: FloatArray
    measured: FloatArray
    foreign: FloatArray
    plain: int
    settings: RoutingSettings

    def under(self, settings: RoutingSettings) -> GainModel:
        """Return the same evidence with other settings."""
        return replace(self, settings=settings, typical=self.domains.typical(settings.temperature))

    def score(self, embeddings: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Return predicted gains (n, m), similarity to the nearest pilot (n,), and whether data sets dominate (n,).

        Data sets dominate if they weigh at least as much as foreign domains. The plain arm's gain is the margin.
        """
        mass, similarity = self.domains.masses(embeddings, self.settings.temperature)
        gains, say = self.predicted(mass)
        return gains, similarity, say.sum(axis=1) >= 0.5

    def predicted(self, mass: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return predicted gains (n, m) and weights of data sets (n, s) for masses (n, s) at the same temperature."""
        nearness = mass / self.typical
        share = mass / np.maximum(mass.sum(axis=1, keepdims=True), TINY)
        say = share * nearness / (nearness + np.float32(self.settings.prior_mass))
        gains = say @ self.gains + (1 - say @ self.measured) * self.foreign
        gains[:, self.plain] = self.settings.margin
        return gains.astype(np.float32), say


def fit_gains(library: PilotLibrary, columns: Sequence[int], settings: RoutingSettings) -> GainModel:
    """Fit the model on these columns of the library; the first must be base."""
    present, plain = np.unique(library.data_set), plain_column([library.arms[column] for column in columns]) or 0
    tables = [data_set_gains(library, columns, plain, library.data_set == number) for number in present]
    gains = np.array([table[0] for table in tables], dtype=np.float32).reshape(len(present), len(columns))
    measured = np.array([table[1] for table in tables], dtype=np.float32).reshape(len(present), len(columns))
    return GainModel(
        domains=library.domains,
        typical=library.domains.typical(settings.temperature),
        gains=gains,
        measured=measured,
        foreign=foreign_gains(gains, measured, plain),
        plain=plain,
        settings=settings,
    )


def data_set_gains(
    library: PilotLibrary, columns: Sequence[int], plain: int, rows: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Return each arm's gain (m,) over the plain one on one data set, and 1 (m,) if it was measured, else 0.

    The gain is the mean less `CAUTION` standard errors, if at least two queries measured the arm; otherwise it is 0.
    """
    measured, scores = library.measured[rows][:, columns], library.scores[rows][:, columns]
    both = measured & measured[:, plain, None]
    change = (scores - scores[:, plain, None]) * both
    count = both.sum(axis=0)
    mean = change.sum(axis=0) / np.maximum(count, 1)
    variance = ((change - mean) ** 2 * both).sum(axis=0) / np.maximum(count - 1, 1)
    is_known = count >= 2
    cautious = np.where(is_known, mean - CAUTION * np.sqrt(variance / np.maximum(count, 1)), 0.0)
    return cautious.astype(np.float32), is_known.astype(np.float32)


def foreign_gains(gains: FloatArray, measured: FloatArray, plain: int) -> FloatArray:
    """Return each arm's mean gain (m,) over data sets but its best, less one standard error, at most 0."""
    found = np.full(gains.shape[1], -FOREIGN_LOSS, dtype=np.float32)
    for column in range(gains.shape[1]):
        known = np.sort(gains[measured[:, column] > 0, column])[:-1]
        if len(known) >= 2:
            found[column] = min(known.mean() - known.std(ddof=1) / np.sqrt(len(known)), 0.0)
    found[plain] = 0.0
    return found
