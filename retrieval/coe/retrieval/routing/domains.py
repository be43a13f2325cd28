"""Domains of data sets: how near a query is to each data set, and how near a data set's own queries are to each other.

Nearness is measured in a space in which queries of one data set scatter equally in all directions, as in linear
discriminant analysis. Differences within every data set say little about where a query belongs (benchmarks/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from coe.router.reading.features import unit_rows
from coe.router.types import BoolArray, FloatArray, IntArray

UNRELATED = 0.0
"""Cosine of unrelated queries, the lower bound for the typical nearness of a data set's own queries."""


@dataclass(frozen=True)
class Domains:
    """The queries of s data sets in the space of equal scatter.

    `pilots` (p, d) are unit rows; `member` (p, s) is 1 if a pilot belongs to a data set; `whitener` (d, d) maps
    embeddings to the space.
    """

    pilots: FloatArray
    member: FloatArray
    whitener: FloatArray
    placed: FloatArray
    _typical: dict[float, FloatArray] = field(default_factory=dict)

    def masses(self, embeddings: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
        """Return the masses (n, s) of data sets, and the cosine (n,) with the nearest query.

        A mass is the sum of exp((cos - 1) / temperature) over a data set's queries.
        """
        cosine = place(embeddings, self.whitener) @ self.placed.T
        mass = np.exp((cosine - 1) / np.float32(temperature)) @ self.member
        nearest = np.einsum("nd,nd->n", embeddings, self.pilots[cosine.argmax(axis=1)])
        return mass, nearest.astype(np.float32)

    def typical(self, temperature: float) -> FloatArray:
        """Return for each data set (s,) the median mass that its queries get from its other queries."""
        if temperature not in self._typical:
            self._typical[temperature] = np.array(
                [typical_mass(self.placed[rows > 0], temperature) for rows in self.member.T], dtype=np.float32
            )
        return self._typical[temperature]


def find_domains(pilots: FloatArray, data_set: IntArray) -> Domains:
    """Build the domains of data sets in order of their numbers, from queries (p, d) and the data set of each (p,)."""
    member: BoolArray = data_set[:, None] == np.unique(data_set)
    found = whitener([pilots[rows] for rows in member.T])
    return Domains(pilots, member.astype(np.float32), found, place(pilots, found))


def whitener(groups: list[FloatArray]) -> FloatArray:
    """Return a matrix W (d, d) such that x @ W has identity covariance within groups, each of shape (k, d).

    An even scatter is mixed in with weight d / (n + d): otherwise directions that few queries do not use would
    dominate. W is the identity if nothing scatters.
    """
    deviations = np.concatenate([group - group.mean(axis=0) for group in groups]).astype(np.float64)
    scatter = deviations.T @ deviations / len(deviations)
    even = np.trace(scatter) / len(scatter)
    if even < 1e-12:
        return np.eye(len(scatter), dtype=np.float32)
    shrinkage = len(scatter) / (len(scatter) + len(deviations))
    shrunk = (1 - shrinkage) * scatter + shrinkage * even * np.eye(len(scatter))
    return np.asarray(np.linalg.inv(np.linalg.cholesky(shrunk)).T, dtype=np.float32)


def place(embeddings: FloatArray, whitener: FloatArray) -> FloatArray:
    """Return unit rows (n, d) in the space of equal scatter."""
    return unit_rows(embeddings @ whitener)


def typical_mass(placed: FloatArray, temperature: float) -> float:
    """Return the median over a data set's queries (n, d) of the mass that the others give it."""
    weights = np.exp((placed @ placed.T - 1) / np.float32(temperature))
    np.fill_diagonal(weights, 0.0)
    return max(float(np.median(weights.sum(axis=1))), float(np.exp((UNRELATED - 1) / temperature)))
