"""Everything that decides an adapter's weights: settings, the queries it sees, the order of batches. No torch here."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from coe.retrieval.training.collection import Collection, Queries
from coe.router.normalise import normalised_text
from coe.router.types import Record

MOST_HELD_OUT = 200
"""Train queries of a collection that are kept for the pilots at most: beyond, they are worth more to an adapter. The
library of 13 collections then takes 4 MB and a choice 0.2 ms."""


class Recipe(Record):
    """Defaults are the paper's (RouterRetriever, arXiv 2409.02685, section 4) but for `negatives`, the learning rate,
    which is ten times that of its far longer training, and the sizes. A field with a description is an
    option."""

    r: int = Field(default=8, ge=1, le=256)  # rank of the adapter
    alpha: float = Field(default=32.0, gt=0)  # the adapter counts alpha / r times
    dropout: float = Field(default=0.1, ge=0, lt=1)  # on the adapter's input
    learning_rate: float = Field(default=1e-3, gt=0)  # peak of the one-cycle schedule
    warm_up: float = Field(default=0.1, ge=0, le=1)  # share of the steps
    temperature: float = Field(default=0.05, gt=0)  # of the softmax over documents
    batch: int = Field(default=32, ge=2)  # queries in a step
    epochs: int = Field(default=20, ge=1)  # times that every query is seen at most
    max_steps: int = Field(default=400, ge=1)  # of all epochs
    negatives: Literal["batch", "corpus"] = Field(
        default="batch", description="documents of the same batch, or every document that is not relevant"
    )
    max_query_tokens: int = Field(default=256, ge=8, le=512)  # tokens of a query after these are not read
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the products in training; bfloat16 is faster on processors that have it"
    )
    eval_every: int = Field(default=25, ge=1)  # steps between two evaluations on dev
    patience: int = Field(default=4, ge=1)  # evaluations without a better nDCG@10 on dev before it stops
    held_out: float = Field(default=0.25, ge=0, lt=1)  # share of train queries kept for the pilot library
    seed: int = Field(default=0, ge=0, description="seed of every random draw")


def hash_share(text: str) -> float:
    """A number in [0, 1) from the hash of a normalised text."""
    digest = hashlib.sha256(b"held out\0" + normalised_text(text).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out_marks(queries: Queries, share: float) -> list[bool]:
    """Marks of train queries that are kept for the pilots, by every expert and whenever it is trained.

    They are those of the lowest `hash_share`, a share of them, `MOST_HELD_OUT` at most.
    """
    shares = [hash_share(text) for text in queries.texts]
    limit = min(share, sorted(shares)[MOST_HELD_OUT]) if len(shares) > MOST_HELD_OUT else share
    return [each < limit for each in shares]


def seen_queries(queries: Queries, share: float) -> Queries:
    """The train queries that an adapter may see."""
    return queries.take([row for row, is_held_out in enumerate(held_out_marks(queries, share)) if not is_held_out])


def held_out_queries(queries: Queries, share: float) -> Queries:
    return queries.take([row for row, is_held_out in enumerate(held_out_marks(queries, share)) if is_held_out])


@dataclass(frozen=True)
class Batch:
    """Queries of one collection with one relevant document each. `collection` is its place in the list."""

    collection: int
    queries: tuple[int, ...]
    documents: tuple[int, ...]


def batches(sets: Sequence[Queries], recipe: Recipe, steps: int) -> Iterator[Batch]:
    """`steps` batches. In every epoch each query appears once, with a relevant document drawn again; batches of several
    collections are mixed, each batch within one, so that its negatives come from one index."""
    made = 0
    for epoch in range(10**9):
        rng = np.random.default_rng((recipe.seed, epoch))
        planned: list[Batch] = []
        for place, queries in enumerate(sets):
            order = rng.permutation(len(queries))
            for start in range(0, len(order), recipe.batch):
                rows = [int(row) for row in order[start : start + recipe.batch]]
                if len(rows) > 1 or len(order) == 1:
                    documents = tuple(int(rng.choice(sorted(queries.grades[row]))) for row in rows)
                    planned.append(Batch(place, tuple(rows), documents))
        for index in rng.permutation(len(planned)):
            if made == steps:
                return
            made += 1
            yield planned[index]


def planned_steps(sets: Sequence[Queries], recipe: Recipe) -> int:
    return min(recipe.max_steps, recipe.epochs * sum(math.ceil(len(queries) / recipe.batch) for queries in sets))


def one_cycle(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of `step`: cosine from peak / 25 up to the peak over the warm-up, then down to peak / 250,000
    (Smith & Topin 2018, with the divisors of torch's OneCycleLR)."""
    warm = max(1.0, recipe.warm_up * steps)
    low, peak, end = recipe.learning_rate / 25, recipe.learning_rate, recipe.learning_rate / 250_000
    if step < warm:
        return peak + (low - peak) * (1 + math.cos(math.pi * step / warm)) / 2
    share = min(1.0, (step - warm) / max(1.0, steps - warm))
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2


def data_fingerprint(collections: Sequence[Collection], sets: Sequence[Queries]) -> str:
    """Hash over what an adapter is trained on: query texts and their relevant documents."""
    digest = hashlib.sha256()
    for collection, queries in zip(collections, sets, strict=True):
        for text, grades in zip(queries.texts, queries.grades, strict=True):
            names = ",".join(sorted(collection.document_ids[row] for row in grades))
            digest.update(f"{collection.name}\0{text}\0{names}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]
