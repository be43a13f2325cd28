"""Categories of which only a few examples are known. Pure. Shapes: n queries, k categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coe.router.features import unit_rows
from coe.router.types import BoolArray, FloatArray, IntArray
from coe.router.uncertainty import LEAST, normalised_entropy

FEW_EXAMPLES = 30
"""Labelled queries below which a category is new (ours)."""

SURE = 0.5
"""Probability from which a logged query is an example of a new category (ours; benchmarks/LOG.md)."""

MOST_GROWN = 100
MOST_OF_ONE = 5
"""Logged queries that become examples of a new category at most, and those of them that one key or question gives."""

RECOGNISED = "recognised_"
"""Prefix of the metric that says how surely a new category is recognised."""


def is_new(labels: IntArray, k: int) -> BoolArray:
    """(k,) categories that occur, with fewer than `FEW_EXAMPLES` and fewer than the median category has."""
    own = np.bincount(labels, minlength=k)
    return np.asarray((own > 0) & (own < min(FEW_EXAMPLES, usual_size(labels))))


def usual_size(labels: IntArray) -> int:
    """Queries of a category of median size, of those that occur; 0 of none."""
    own = np.bincount(labels)
    return int(np.median(own[own > 0])) if len(labels) else 0


def spread_out(
    embeddings: FloatArray, labels: IntArray, new: BoolArray, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Further queries of new categories, until each is of median size: one of its own, moved as a random query of
    another category lies from that category's mean, so that it spreads as they do.

    A few points far apart teach a linear classifier next to nothing, however often they count; the spread of a category
    resembles that of others (Yang, Liu & Xu, ICLR 2021).

    Args:
        embeddings: (n, d) unit rows.
        new: (k,) which categories are new.
    """
    others = np.flatnonzero(~new[labels])
    sums = np.zeros((len(new), embeddings.shape[1]))
    np.add.at(sums, labels, embeddings)
    means = sums / np.maximum(np.bincount(labels, minlength=len(new)), 1)[:, None]
    rows, found = [embeddings[:0]], [labels[:0]]
    for category in np.flatnonzero(new) if len(others) else []:
        own = embeddings[labels == category]
        missing = max(usual_size(labels) - len(own), 0)
        far = rng.choice(others, missing)
        moved = own[rng.integers(0, len(own), missing)] + embeddings[far] - means[labels[far]]
        rows.append(unit_rows(moved))
        found.append(np.full(missing, category, dtype=np.int64))
    return np.concatenate(rows).astype(np.float32), np.concatenate(found)


def beside_strangers(
    uncertainty: Mapping[str, NDArray[np.generic]],
    unseen: FloatArray,
    labels: IntArray,
    new: BoolArray,
    ratio: FloatArray | None = None,
) -> dict[str, NDArray[np.generic]]:
    """The arrays of an uncertainty, with strangers in place of the queries that new categories lack.

    A few examples cannot show how often other queries of their category are surely taken for those of another one. A
    stranger is a query of a known category with the probability of its own category removed, as if the classifier had
    never heard of it, and counts as misclassified (ours). A new category has as many of them as it lacks to be of
    median size, less the share of its examples that are classified right.

    Args:
        unseen: (n, k) calibrated probabilities of the labelled queries, by classifiers that were not fitted on them.
        labels: (n,) k for queries of no category; the first held-out queries are the others, in their order.
        new: (k,) which categories are new; `ratio` (k,) how much more often each is asked than it is labelled.
    """
    inside = labels < len(new)
    own, probs = labels[inside], unseen[inside]
    known = np.flatnonzero(~new[own])
    counts = np.bincount(own, minlength=len(new))
    found = np.bincount(own[probs.argmax(axis=1) == own], minlength=len(new))
    unfound = 1 - found / np.maximum(counts, 1)
    lacking = np.where(new, (usual_size(own) - counts) * unfound, 0).round().astype(np.int64)
    if not lacking.any() or len(np.unique(own[known])) < 2:
        return dict(uncertainty)
    drawn = np.random.default_rng(0).choice(known, int(lacking.sum()))
    left = probs[drawn]
    left[np.arange(len(drawn)), own[drawn]] = LEAST
    left /= left.sum(axis=1, keepdims=True)
    scores = np.asarray(uncertainty["held_out_scores"], dtype=np.float32)[drawn]
    scores += normalised_entropy(left) - normalised_entropy(probs[drawn])
    added = {"held_out_scores": scores, "held_out_correct": np.zeros(len(drawn), dtype=np.uint8)}
    if ratio is not None:
        added["held_out_weight"] = np.repeat(ratio, lacking)
    return {**uncertainty, **{name: np.concatenate([uncertainty[name], rows]) for name, rows in added.items()}}


def sure_of(probs: FloatArray, new: BoolArray, cluster: IntArray) -> tuple[IntArray, IntArray]:
    """Rows and categories of queries (n, k) that are surely of a new category, the surest first.

    Args:
        new: (k,) which categories are new; `cluster` (n,) equal for queries of one voice, of which `MOST_OF_ONE` count.
    """
    likely, surety = probs.argmax(axis=1), probs.max(axis=1)
    rows: list[int] = []
    for category in np.flatnonzero(new):
        own = np.flatnonzero((likely == category) & (surety > SURE))
        rows += at_most_of_one(own[np.argsort(-surety[own], kind="stable")], cluster)[:MOST_GROWN]
    found = np.array(rows, dtype=np.int64)
    return found, likely[found]


def at_most_of_one(rows: IntArray, cluster: IntArray) -> list[int]:
    """The rows in order, without what a cluster gives beyond `MOST_OF_ONE`."""
    given: Counter[int] = Counter()
    kept = []
    for row in rows.tolist():
        given[int(cluster[row])] += 1
        if given[int(cluster[row])] <= MOST_OF_ONE:
            kept.append(row)
    return kept
