"""The vector space an index belongs to, and what every index can do."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from pydantic import Field

from coe.base.errors import VectorSpaceError
from coe.router.types import FloatArray, IntArray, Record

KeyArray = IntArray


class VectorSpace(Record):
    """The encoder that vectors come from: two of equal dimension still mean different things by a number."""

    fingerprint: str = Field(min_length=1, description="of the base encoder")
    dim: int = Field(gt=0)


class Hits(NamedTuple):
    """The k nearest vectors of one query, best first: keys (k,) and inner products (k,)."""

    keys: KeyArray
    scores: FloatArray


class VectorIndex(Protocol):
    """Vectors of one space by key. What `add` and `remove` returned from outlives the process. Calls block, and any
    number of threads may make them."""

    def __len__(self) -> int: ...

    def add(self, keys: KeyArray, vectors: FloatArray) -> None:
        """Adds (n, d) vectors; one whose key is there already is replaced.

        Raises:
            VectorSpaceError: they are not of this index's dimension.
            StoreError: they could not be made safe; none was added.
        """
        ...

    def remove(self, keys: KeyArray) -> int:
        """Removes those keys; how many were there. Raises StoreError."""
        ...

    def search(self, query: FloatArray, limit: int, among: KeyArray | None = None) -> Hits:
        """The `limit` keys of largest inner product with `query` (d,).

        Args:
            among: only these keys; None means all.

        Raises:
            VectorSpaceError: the query is not of this index's dimension.
        """
        ...


class VectorIndexes(Protocol):
    """Indexes by name, all of one space."""

    def open(self, name: str) -> VectorIndex:
        """The index of that name, made empty when there is none.

        Raises:
            VectorSpaceError: it holds another encoder's vectors.
            StoreError: it cannot be read.
        """
        ...

    def drop(self, name: str) -> None:
        """Deletes the index; harmless when there is none. Raises StoreError."""
        ...

    def close(self) -> None: ...


def require_same_space(name: str, held: VectorSpace, wanted: VectorSpace) -> None:
    """Raises VectorSpaceError when an index holds vectors of another encoder than the one in use."""
    if held == wanted:
        return
    raise VectorSpaceError(
        f"index {name} holds vectors of base encoder {held.fingerprint[:12]} ({held.dim} dimensions), the encoder in "
        f"use is {wanted.fingerprint[:12]} ({wanted.dim} dimensions): bring back that encoder, or delete the index "
        "and add its documents again"
    )


def require_vectors(space: VectorSpace, vectors: FloatArray) -> None:
    """Raises VectorSpaceError when rows of (n, d) are not of the space's dimension, or hold NaN or infinity."""
    if vectors.ndim != 2 or vectors.shape[1] != space.dim:
        raise VectorSpaceError(f"vectors have shape {vectors.shape}; this index takes (n, {space.dim})")
    if not np.isfinite(vectors).all():
        raise VectorSpaceError("vectors hold NaN or infinity; allowed: finite numbers")


def best(keys: KeyArray, scores: FloatArray, limit: int) -> Hits:
    """The `limit` best of some candidates; equal scores by ascending key, so that an answer can be repeated."""
    order = np.lexsort((keys, -scores))[:limit]
    return Hits(keys[order], scores[order])
