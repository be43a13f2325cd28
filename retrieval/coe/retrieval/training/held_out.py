"""The train queries of a collection that no expert is trained on, so that the pilot library can label them."""

from __future__ import annotations

import hashlib

from coe.retrieval.training.collection import Queries
from coe.router.reading.normalise import normalised_text

HELD_OUT = 0.25
"""Share of the train queries that every training of every expert leaves out."""

MOST_HELD_OUT = 200
"""Held-out train queries per collection at most. With 13 collections a library takes 4 MB, and a choice 0.2 ms."""


def hash_share(text: str) -> float:
    """Return a number in [0, 1) from the hash of a normalised text."""
    digest = hashlib.sha256(b"held out\0" + normalised_text(text).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out_marks(queries: Queries) -> list[bool]:
    """Return the marks of held-out queries: those with the lowest `hash_share`."""
    shares = [hash_share(text) for text in queries.texts]
    limit = min(HELD_OUT, sorted(shares)[MOST_HELD_OUT]) if len(shares) > MOST_HELD_OUT else HELD_OUT
    return [each < limit for each in shares]


def seen_queries(queries: Queries) -> Queries:
    """Return the train queries that an expert may see."""
    return queries.take([row for row, is_held_out in enumerate(held_out_marks(queries)) if not is_held_out])


def held_out_queries(queries: Queries) -> Queries:
    return queries.take([row for row, is_held_out in enumerate(held_out_marks(queries)) if is_held_out])
