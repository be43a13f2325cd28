"""Predicted gain of every arm over the plain one near a query (ours; docs/retrieval.md has what was tried).

The plain arm is base, fused with BM25 where that is there. A query's similarities to all labelled queries become
weights w = exp((cos - 1) / temperature), and the weights of a data set's queries add up to its mass. An arm's predicted
gain is the mean of what it gains on each data set (nDCG@10 minus the plain arm's, less half a standard error), in
proportion to the masses. But a data set speaks of a query only as far as the query is as near to it as its own queries
are to each other; the rest is what the arm loses on domains that it was not made for. So another arm than the plain one
serves only where labelled queries nearby say so.
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
"""Loss that an arm is taken to have on foreign domains while fewer than three data sets measured it (ours)."""

CAUTION = 0.5
"""Standard errors that are taken off a data set's mean gain (chosen by dev queries among 0, 0.5, 1 and 1.5)."""


@dataclass(frozen=True)
class GainModel:
    """`domains` of s data sets, whose own queries have the mass `typical` (s,); `gains` (s, m) of arms over that in
    column `plain`; `measured` (s, m) as 0 and 1; `foreign` (m,) gain on other domains, none above 0."""

    domains: Domains
    typical: FloatArray
    gains: FloatArray
    measured: FloatArray
    foreign: FloatArray
    plain: int
    settings: RoutingSettings

    def under(self, settings: RoutingSettings) -> GainModel:
        """The same evidence under other settings."""
        return replace(self, settings=settings, typical=self.domains.typical(settings.temperature))

    def score(self, embeddings: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Predicted gains (n, m) with the plain arm at the margin, similarity to the nearest pilot (n,), and (n,) true
        where data sets have more of a say than foreign domains."""
        mass, similarity = self.domains.masses(embeddings, self.settings.temperature)
        gains, say = self.predicted(mass)
        return gains, similarity, say.sum(axis=1) >= 0.5

    def predicted(self, mass: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predicted gains (n, m) and every data set's say (n, s), for masses (n, s) at the settings' temperature."""
        nearness = mass / self.typical
        share = mass / np.maximum(mass.sum(axis=1, keepdims=True), TINY)
        say = share * nearness / (nearness + np.float32(self.settings.prior_mass))
        gains = say @ self.gains + (1 - say @ self.measured) * self.foreign
        gains[:, self.plain] = self.settings.margin
        return gains.astype(np.float32), say


def fit_gains(library: PilotLibrary, columns: Sequence[int], settings: RoutingSettings) -> GainModel:
    """The model over those columns of the library; the first must be base."""
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
    """(m,) gain of each arm over the plain one on one data set, less `CAUTION` standard errors of that mean, and (m,) 1
    where at least two queries measured it. Where none did the gain is 0 and does not count."""
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
    """(m,): an arm's mean gain over data sets, its best data set left out, less one standard error of that mean; 0 at
    most. A specialist shines on its own data set, which says nothing of a foreign one."""
    found = np.full(gains.shape[1], -FOREIGN_LOSS, dtype=np.float32)
    for column in range(gains.shape[1]):
        known = np.sort(gains[measured[:, column] > 0, column])[:-1]
        if len(known) >= 2:
            found[column] = min(known.mean() - known.std(ddof=1) / np.sqrt(len(known)), 0.0)
    found[plain] = 0.0
    return found
