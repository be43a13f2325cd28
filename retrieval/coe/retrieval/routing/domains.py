"""Places of data sets among queries: how near a query is to each, and how near its own queries are to each other.

Nearness is measured in a space in which queries of one data set scatter alike in all directions, as in linear
discriminant analysis: differences within every data set say little about where a query belongs (benchmarks/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from coe.router.reading.features import unit_rows
from coe.router.types import BoolArray, FloatArray, IntArray

UNRELATED = 0.0
"""Similarity of queries that have nothing in common: a data set whose own queries are no nearer to each other than that
has no typical mass that could be told from a stranger's."""


@dataclass(frozen=True)
class Domains:
    """`pilots` (p, d) are queries of s data sets, unit rows; `member` (p, s) is 1 where a pilot belongs to one;
    `whitener` (d, d) takes embeddings to the space of equal scatter."""

    pilots: FloatArray
    member: FloatArray
    whitener: FloatArray
    placed: FloatArray
    _typical: dict[float, FloatArray] = field(default_factory=dict)

    def masses(self, embeddings: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
        """(n, s): sum over a data set's queries of exp((cos - 1) / temperature), and (n,) the cosine of the embeddings
        themselves with the nearest query."""
        cosine = place(embeddings, self.whitener) @ self.placed.T
        mass = np.exp((cosine - 1) / np.float32(temperature)) @ self.member
        nearest = np.einsum("nd,nd->n", embeddings, self.pilots[cosine.argmax(axis=1)])
        return mass, nearest.astype(np.float32)

    def typical(self, temperature: float) -> FloatArray:
        """(s,): median over a data set's queries of the mass that its others give it."""
        if temperature not in self._typical:
            self._typical[temperature] = np.array(
                [typical_mass(self.placed[rows > 0], temperature) for rows in self.member.T], dtype=np.float32
            )
        return self._typical[temperature]


def find_domains(pilots: FloatArray, data_set: IntArray) -> Domains:
    """Data sets in the order of their numbers, by queries (p, d), at least one, and the data set (p,) of each."""
    member: BoolArray = data_set[:, None] == np.unique(data_set)
    found = whitener([pilots[rows] for rows in member.T])
    return Domains(pilots, member.astype(np.float32), found, place(pilots, found))


def whitener(groups: list[FloatArray]) -> FloatArray:
    """(d, d): x @ it has the covariance within groups (each (k, d)) as identity; it is identity where nothing scatters.

    An even scatter is mixed in, the more so the fewer queries there are (d / (n + d) of it): without it the directions
    that these few happen not to use would count most.
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
    """(n, d) unit rows in the space of equal scatter."""
    return unit_rows(embeddings @ whitener)


def typical_mass(placed: FloatArray, temperature: float) -> float:
    """Median over a data set's queries (n, d) of the mass that the others give it."""
    weights = np.exp((placed @ placed.T - 1) / np.float32(temperature))
    np.fill_diagonal(weights, 0.0)
    return max(float(np.median(weights.sum(axis=1))), float(np.exp((UNRELATED - 1) / temperature)))
