"""HNSW graphs (Malkov & Yashunin 2018) by usearch: vectors in half precision, compared by inner product."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.index.space import Hits, KeyArray
from router.errors import DamagedIndexError, require_installed
from router.types import FloatArray

if TYPE_CHECKING:
    from usearch.index import Index

CONNECTIVITY = 32  # with 16, a million vectors are found worse at twice the width: benchmarks/retrieval.py
EXPANSION_ADD = 128
EXPANSION_SEARCH = 2048
"""Width of a search: what a million vectors need for a recall@10 above 0.98 (benchmarks/retrieval.py)."""

EXACT_BELOW = 200_000
"""Vectors up to which looking at all of them costs no more than a search of that width in a million, and misses none
(benchmarks/retrieval.py)."""


def new_graph(dim: int) -> Index:
    require_installed("stores", "a local index", "usearch")
    from usearch.index import Index

    return Index(
        ndim=dim,
        metric="ip",
        dtype="f16",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )


def restored(path: Path, *, is_mapped: bool) -> Index:
    """Raises DamagedIndexError when the file is no graph."""
    from usearch.index import Index

    try:
        graph = Index.restore(str(path), view=is_mapped, expansion_add=EXPANSION_ADD, expansion_search=EXPANSION_SEARCH)
    except (RuntimeError, ValueError) as error:
        raise DamagedIndexError(path.parent.name, f"{path.name} is no graph of usearch ({error})") from error
    if graph is None:
        raise DamagedIndexError(path.parent.name, f"{path.name} is no graph of usearch")
    return graph


def contained(graph: Index, keys: KeyArray) -> NDArray[np.bool_]:
    """Which keys a graph has."""
    return np.asarray(graph.contains(keys), dtype=bool) if len(keys) else np.zeros(0, dtype=bool)


def rows_of(graph: Index, keys: KeyArray) -> FloatArray:
    """Vectors (n, d) of keys that are there."""
    if not len(keys):
        return np.zeros((0, graph.ndim), dtype=np.float32)
    return np.stack([np.asarray(row, dtype=np.float32) for row in graph.get(keys) or ()])


def matches(graph: Index, query: FloatArray, count: int) -> Hits:
    """The `count` nearest: exact in a small graph or where most of it is asked for, otherwise approximate."""
    is_exact = len(graph) <= EXACT_BELOW or 4 * count >= len(graph)
    found: Any = graph.search(query, count, exact=is_exact)
    # usearch's distance for inner products is 1 - x . y
    return Hits(np.asarray(found.keys).astype(np.int64), 1.0 - np.asarray(found.distances, dtype=np.float32))


def is_among(keys: KeyArray, wanted: KeyArray) -> Any:
    """Which of `keys` are in `wanted`, sorted."""
    places = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return wanted[places] == keys


def last_of_each(keys: KeyArray) -> KeyArray:
    """Places of the last occurrence of each key, in order."""
    _, places = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - places)
