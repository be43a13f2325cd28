"""Trains one adapter on one collection, or on several for a multi-task one. The document side is never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from coe.base.errors import DataError
from coe.retrieval.adaptable import AdaptableEncoder
from coe.retrieval.experts.adapter import MANIFEST_FILE, WEIGHTS_FILE, AdapterManifest
from coe.retrieval.training.collection import Collection, Queries
from coe.retrieval.training.lora import QueryAdapter
from coe.retrieval.training.ndcg import CUT, ndcg, rank
from coe.retrieval.training.recipe import (
    Batch,
    Recipe,
    batches,
    data_fingerprint,
    one_cycle,
    planned_steps,
    seen_queries,
)
from coe.router.artifact import read_regular_file
from coe.router.types import FloatArray
from coe.router.weights import resolve_weights

DEV_QUERIES = 200
"""Dev queries of a collection that a look takes at most."""

STRENGTHS = (1.0, 0.6, 0.3)
"""Shares of the adapter that a look tries: somewhere between base and an adapter that fits its own train queries too
closely is one that is better than either (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models")."""


@dataclass(frozen=True)
class Corpus:
    """A collection to train on: queries that may be seen, dev queries, and documents as base vectors (D, d)."""

    collection: Collection
    seen: Queries
    dev: Queries
    documents: FloatArray


@dataclass(frozen=True)
class Look:
    """Progress of training: dev nDCG@10 of the whole adapter, and the best of any look and share of an adapter."""

    step: int
    steps: int
    loss: float
    dev: float
    best: float


def prepare(collections: Sequence[Collection], documents: Sequence[FloatArray], recipe: Recipe) -> list[Corpus]:
    """Those collections that leave a query to train on. Raises DataError when none does."""
    prepared = []
    for collection, vectors in zip(collections, documents, strict=True):
        seen, dev = seen_queries(collection.split("train"), recipe.held_out), collection.split("dev")
        if len(seen):
            looked_at = dev.take(list(range(min(len(dev), DEV_QUERIES))))
            prepared.append(Corpus(collection, seen, looked_at, vectors))
    if not prepared:
        count = sum(len(collection.split("train")) for collection in collections)
        names = ", ".join(collection.name for collection in collections)
        raise DataError(
            f"{names}: of {count} train queries none is left to train on with a held-out share of {recipe.held_out:g}"
        )
    return prepared


def train_adapter(
    name: str,
    corpora: Sequence[Corpus],
    base: AdaptableEncoder,
    recipe: Recipe,
    out: Path,
    *,
    created_at: str,
    on_look: Callable[[Look], None],
) -> AdapterManifest:
    """Trains, and writes the adapter of the best look to `out`.

    Raises:
        MissingExtraError: torch, sentence-transformers or peft is not installed.
    """
    adapter = QueryAdapter(resolve_weights(base.model), recipe, base.pooling)
    sets = [corpus.seen for corpus in corpora]
    data = data_fingerprint([corpus.collection for corpus in corpora], sets)
    base_score = dev_score(base.encode, corpora)
    run = Run(adapter, base_score, adapter.weights())
    run_steps(run, corpora, recipe, planned_steps(sets, recipe), on_look)
    adapter.set_weights(run.best_weights)
    adapter.save_peft(out)
    manifest = AdapterManifest(
        name=name,
        base_fingerprint=base.fingerprint,
        weights_sha256=hashlib.sha256(read_regular_file(out / WEIGHTS_FILE)).hexdigest(),
        created_at=created_at,
        settings=recipe.model_dump(mode="json"),
        data_fingerprint=data,
        held_out=sum(len(corpus.collection.split("train")) - len(corpus.seen) for corpus in corpora),
        pairs=sum(len(grades) for corpus in corpora for grades in corpus.seen.grades),
        dev_ndcg=run.best_score,
        dev_ndcg_base=base_score,
    )
    (out / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return manifest


def run_steps(run: Run, corpora: Sequence[Corpus], recipe: Recipe, steps: int, on_look: Callable[[Look], None]) -> None:
    """Trains until the last step, or until looks no longer improve."""
    for number, batch in enumerate(batches([corpus.seen for corpus in corpora], recipe, steps)):
        loss = train_step(run.adapter, corpora[batch.collection], batch, number, steps, recipe)
        if (number + 1) % recipe.eval_every == 0 or number + 1 == steps:
            scores = {share: dev_score(partial(run.adapter.encode, strength=share), corpora) for share in STRENGTHS}
            run.look(scores)
            on_look(Look(number + 1, steps, loss, scores[1.0], run.best_score))
            if run.stale_looks >= recipe.patience:
                return


@dataclass
class Run:
    """The best of a training so far. The start counts as a look: an adapter that never helps stays at 0."""

    adapter: QueryAdapter
    best_score: float
    best_weights: dict[str, FloatArray]
    stale_looks: int = 0

    def look(self, scores: Mapping[float, float]) -> None:
        """Args: scores: by the share of the adapter."""
        share = max(scores, key=scores.__getitem__)
        if scores[share] > self.best_score:
            self.best_score, self.stale_looks, self.best_weights = scores[share], 0, self.adapter.weights(share)
        else:
            self.stale_looks += 1


def train_step(adapter: QueryAdapter, corpus: Corpus, batch: Batch, number: int, steps: int, recipe: Recipe) -> float:
    """The loss. A document that is relevant to a query is never a negative of it, whichever query brought it."""
    columns = np.arange(len(corpus.documents)) if recipe.negatives == "corpus" else np.unique(np.array(batch.documents))
    place = {int(row): column for column, row in enumerate(columns)}
    counts = np.ones((len(batch.queries), len(columns)), dtype=bool)
    for i, (query, document) in enumerate(zip(batch.queries, batch.documents, strict=True)):
        for row in corpus.seen.grades[query]:
            if row in place and row != document:
                counts[i, place[row]] = False
    right = np.array([place[document] for document in batch.documents], dtype=np.int64)
    texts = [corpus.seen.texts[row] for row in batch.queries]
    rate = one_cycle(number, steps, recipe)
    return adapter.step(number, rate, texts, corpus.documents[columns], counts, right)


def dev_score(encode: Callable[[Sequence[str]], FloatArray], corpora: Sequence[Corpus]) -> float:
    """nDCG@10 on dev queries, averaged over the queries and then over the collections that have some; 0 without any."""
    means = []
    for corpus in corpora:
        if len(corpus.dev):
            scores = encode(corpus.dev.texts) @ corpus.documents.T
            found = [rank(row, corpus.collection.document_ids, CUT) for row in scores]
            means.append(ndcg(found, corpus.dev.grades).mean())
    return float(np.mean(means)) if means else 0.0
