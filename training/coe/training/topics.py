"""Topics among queries that the router does not know. Pure but for scikit-learn's k-means.

Shapes: n unknown queries, r known ones, d dimensions, k clusters.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray

DIMENSIONS = 20
"""Principal components that are clustered: k-means over all 951 of the default encoder splits by style before topic."""

CLUSTERS = range(2, 17)
SUBSAMPLES, SUBSAMPLE_SHARE = 20, 0.8

MIN_STABILITY = 0.7
"""Mean Jaccard similarity to the nearest cluster of a subsample; Hennig (2007) calls 0.75 valid and 0.6 a pattern."""

MIN_TIGHTNESS = 0.2
"""Mean silhouette of a cluster's members. Both limits were set on the seed set with categories held out, then tried in
eighteen mixtures of none to three held-out categories with 120 other queries; the share of known queries was picked
after four values of it on those mixtures (benchmarks/LOG.md)."""

MAX_SPREAD = 0.9
"""Spread of a topic against that of all known queries together: what is as wide as everything is not a topic (ours)."""

MAX_KNOWN_SHARE = 0.2
"""Known queries that a cluster may hold: with more, it is something that the router knows already (ours)."""


@dataclass(frozen=True)
class Topic:
    """A stable cluster. `members` are row numbers of unknown queries, nearest to the centre first."""

    members: IntArray
    stability: float
    tightness: float


def find_topics(unknown: FloatArray, known: FloatArray, min_size: int, rng: np.random.Generator) -> tuple[Topic, ...]:
    """Stable clusters of at least `min_size` unknown queries, the largest first; no query is in two of them.

    K-means is run for every number of clusters in `CLUSTERS`, and the clearest of the clusters that qualify are kept: a
    number that suits a large topic cuts a small one in two, or swallows it.

    Args:
        unknown: (n, d) embeddings.
        known: (r, d) embeddings of what the router was trained on, about half as many. They are clustered, too, so
            that a topic has to differ from them, and one topic alone is not cut into pieces.
    """
    if len(unknown) < max(min_size, 4):
        return ()
    points = principal_components(np.concatenate([unknown, known]), DIMENSIONS)
    counts = [k for k in CLUSTERS if k < n_distinct(points)]
    found = [topic for k in counts for topic in qualified(points, k, len(unknown), min_size, rng)]
    limit = MAX_SPREAD * spread(known)
    found = [topic for topic in found if spread(unknown[topic.members]) <= limit]
    kept: list[Topic] = []
    for topic in sorted(found, key=lambda topic: -topic.stability * topic.tightness):
        if not any(np.intersect1d(topic.members, other.members).size for other in kept):
            kept.append(topic)
    return tuple(sorted(kept, key=lambda topic: -len(topic.members)))


def qualified(points: Float64Array, k: int, n_unknown: int, min_size: int, rng: np.random.Generator) -> Iterator[Topic]:
    """Clusters of one run of k-means that are new, large, tight and stable."""
    from sklearn.metrics import silhouette_samples

    labels = kmeans(points, k, int(rng.integers(2**31)), starts=10)
    if len(np.unique(labels)) < 2:
        return  # all points are equal
    silhouettes = silhouette_samples(points, labels, metric="cosine")
    promising = []
    for cluster in range(k):
        rows = np.flatnonzero(labels == cluster)
        own = rows[rows < n_unknown]
        is_new = len(rows) - len(own) <= MAX_KNOWN_SHARE * len(rows)
        if len(own) >= min_size and is_new and silhouettes[rows].mean() >= MIN_TIGHTNESS:
            promising.append((cluster, own, float(silhouettes[rows].mean())))
    stabilities = stability(points, labels, rng) if promising else np.zeros(k)
    for cluster, own, tightness in promising:
        if stabilities[cluster] >= MIN_STABILITY:
            distance = np.linalg.norm(points[own] - points[own].mean(axis=0), axis=1)
            members = own[np.argsort(distance, kind="stable")]
            yield Topic(members=members, stability=float(stabilities[cluster]), tightness=tightness)


def spread(points: FloatArray) -> float:
    """Mean squared distance to the centre; infinite without a point, so that it limits nothing."""
    return float(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()) if len(points) else math.inf


def n_distinct(points: Float64Array) -> int:
    return len(np.unique(points.round(9), axis=0))


def principal_components(points: FloatArray, dimensions: int) -> Float64Array:
    """(n, at most `dimensions`) scores on the first principal components."""
    centred = np.asarray(points - points.mean(axis=0), dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(dimensions, len(values))
    return np.asarray(left[:, :kept] * values[:kept], dtype=np.float64)


def kmeans(points: Float64Array, k: int, seed: int, starts: int) -> IntArray:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(k, n_init=starts, random_state=seed).fit(points).labels_, dtype=np.int64)


def stability(points: Float64Array, labels: IntArray, rng: np.random.Generator) -> Float64Array:
    """(k,) mean over subsamples of each cluster's Jaccard similarity to the nearest cluster found there (Hennig,
    "Cluster-wise assessment of cluster stability", CSDA 2007)."""
    k = int(labels.max()) + 1
    similarity = np.zeros((SUBSAMPLES, k))
    for draw in range(SUBSAMPLES):
        rows = rng.permutation(len(points))[: max(k + 1, int(SUBSAMPLE_SHARE * len(points)))]
        found = kmeans(points[rows], min(k, n_distinct(points[rows])), int(rng.integers(2**31)), starts=3)
        for cluster in range(k):
            own = labels[rows] == cluster
            similarity[draw, cluster] = max(jaccard(own, found == other) for other in range(k))
    return np.asarray(similarity.mean(axis=0), dtype=np.float64)


def jaccard(one: BoolArray, two: BoolArray) -> float:
    union = int((one | two).sum())
    return int((one & two).sum()) / union if union else 0.0


def topic_names(texts: Sequence[Sequence[str]], others: Sequence[str], taken: Sequence[str]) -> list[str]:
    """A name per topic: the two words that set its texts most apart from all texts; `topic-1` where there is no word.

    Words are ranked by their share of the pointwise Kullback-Leibler divergence, p log(p / q), with p and q the shares
    of the topic's and of all texts that hold the word (Tomokiyo & Hurst, ACL 2003).

    Args:
        texts: of each topic; empty where the log keeps none.
        others: texts of no topic.
        taken: names that exist.
    """
    everyone = [frozenset(words_of(text)) for text in (*(text for own in texts for text in own), *others)]
    overall = Counter(word for words in everyone for word in words)
    names: list[str] = []
    for number, own in enumerate(texts, start=1):
        counts = Counter(word for text in own for word in frozenset(words_of(text)))
        divergence = {
            word: count / len(own) * math.log(count / len(own) * len(everyone) / overall[word])
            for word, count in counts.items()
        }
        best = sorted(divergence, key=lambda word: (-divergence[word], word))[:2]
        names.append(unused("-".join(best) or f"topic-{number}", {*taken, *names}))
    return names


def words_of(text: str) -> list[str]:
    """Words of three letters and more, in small letters."""
    return re.findall(r"[^\W\d_]{3,}", text.lower())


def unused(name: str, taken: Collection[str]) -> str:
    """The name, with a number where it is taken."""
    number, tried = 2, name
    while tried in taken:
        tried, number = f"{name}-{number}", number + 1
    return tried
