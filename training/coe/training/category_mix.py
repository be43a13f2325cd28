"""The traffic's mix of categories, from stage 1's probabilities of logged queries.

Label shift assumes that queries of a category are like the labelled ones, and that only the categories' shares changed.
Then p'(y | x) is proportional to p(y | x) q(y) / p(y). The shares q under which the logged queries are most likely
follow by expectation maximisation (Saerens, Latinne & Decaestecker, Neural Computation 2002). With calibrated
probabilities it beats corrections by the confusion matrix (Alexandari, Kundaje & Shrikumar, ICML 2020).

Only queries that stage 1 is sure of count, since it has no probability for texts of no category. Being sure depends on
the query alone, so label shift holds among them too, with the sure labelled queries in place of all. Shapes: n queries,
k categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.decision_log.read import NOT_OF_THE_MAP, read_newest
from coe.decision_log.sql_engine import open_log
from coe.router.config.feedback import FeedbackConfig
from coe.router.protocols import Encoder
from coe.router.reading.features import from_bytes
from coe.router.reading.uncertainty import apply_mix, normalised_entropy
from coe.router.types import Float64Array, FloatArray, IntArray, Metric
from coe.training.feedback_bias import UNLIMITED, clusters, counted_share, min_keys
from coe.training.types import question_of

MIX_MOVED = "mix_moved"
"""Name of a router's metric: how far the traffic's mix was from the labelled queries when it was fitted."""

MIN_QUERIES = 200
"""Number of queries that stage 1 is sure of, below which no mix is estimated (ours)."""

MIN_SHARE = 0.1
"""Smallest share that a category keeps, as a part of its share among the labelled queries (ours). A category that
nobody asked for in a month may be asked for tomorrow."""

ROUNDS = 100
MAX_STEPS = 500
TOLERANCE = 1e-4
MAX_DECISIONS = 5000
"""Number of newest decisions that a mix is estimated from, so that it is the present mix (ours)."""


@dataclass(frozen=True)
class AskedQueries:
    """Queries of the log: embeddings (n, d); clusters (n,), equal for dependent queries; and the weight of each
    (n,)."""

    embeddings: FloatArray
    cluster: IntArray
    weight: Float64Array


@dataclass(frozen=True)
class CategoryMix:
    """The traffic's `shares` (k,), and how far they `moved` from those of the labelled queries: the total variation,
    half the sum of the absolute differences. `ratio` (k,) is stage 1's prior, the traffic's shares over the labelled
    ones; None if the interval of the distance contains 0."""

    shares: Float64Array
    moved: Metric
    ratio: FloatArray | None


def estimate_mix(
    probs: FloatArray, cluster: IntArray, weight: Float64Array, counts: IntArray, rng: np.random.Generator
) -> CategoryMix | None:
    """Estimate the mix of weighted queries (n, k) that stage 1 is sure of; None for fewer than `MIN_QUERIES`.

    Intervals resample clusters. The distance between two similar shares has a bias above 0. So its interval is the
    distance plus and minus the 95% quantile of the resampled shares' distance from the estimate. By the triangle
    inequality the true distance lies in it whenever the estimate is as near to the truth as that.

    Args:
        probs: calibrated, for the mix of the labelled queries.
        counts: labelled queries of each category, and those of them that stage 1 is sure of, of shape (2, k).
    """
    if len(probs) < MIN_QUERIES or counts.shape[1] < 2:
        return None
    own, sure = counts[0] / counts[0].sum(), (counts[1] + 0.5) / (counts[1] + 0.5).sum()
    found = fit_shares(probs.astype(np.float64), sure, weight, sure)
    names, member = np.unique(cluster, return_inverse=True)
    times: IntArray = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), ROUNDS)
    drawn = np.stack([fit_shares(probs, sure, np.multiply(weight, each[member]), found) for each in times])
    shares, draws = rescale_shares(found, sure, own), rescale_shares(drawn, sure, own)
    away = float(np.quantile(total_variation(draws, shares), 0.95))
    moved = float(total_variation(shares, own))
    return CategoryMix(
        shares=shares,
        moved=Metric.within(max(moved - away, 0.0), moved, min(moved + away, 1.0), len(probs)),
        ratio=prior_ratio(shares, own) if moved > away else None,
    )


def fit_shares(probs: FloatArray, source: Float64Array, weight: Float64Array, start: Float64Array) -> Float64Array:
    """Return the shares under which weighted queries are most likely, by expectation maximisation, of shape (k,).

    Args:
        probs: probabilities for shares `source` (n, k); `start` (k,) are the first shares, none of them 0.
    """
    total, shares = weight.sum(), start
    for _ in range(MAX_STEPS):
        posterior = probs * (shares / source)
        posterior /= posterior.sum(axis=1, keepdims=True)
        found = weight @ posterior / total
        if np.abs(found - shares).max() < TOLERANCE:
            return np.asarray(found, dtype=np.float64)
        shares = found
    return np.asarray(shares, dtype=np.float64)


def rescale_shares(shares: Float64Array, sure: Float64Array, own: Float64Array) -> Float64Array:
    """Convert shares of the queries that stage 1 is sure of to shares of all queries, of shape (..., k). A
    category's share changes by the same factor in both."""
    found = shares / sure * own
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


def total_variation(shares: Float64Array, others: Float64Array) -> Float64Array:
    """Return half the sum of the absolute differences of shares (..., k), of shape (...,): the share of queries that
    would have to change category."""
    return np.asarray(np.abs(shares - others).sum(axis=-1) / 2)


def prior_ratio(shares: Float64Array, labelled: Float64Array) -> FloatArray:
    """Return the shares over those of the labelled queries, none below `MIN_SHARE`, of shape (k,)."""
    raised = np.maximum(shares, MIN_SHARE * labelled)
    return np.asarray(raised / raised.sum() / labelled, dtype=np.float32)


def reweight(
    unseen: FloatArray, labels: IntArray, uncertainty: Mapping[str, NDArray[np.generic]], ratio: FloatArray
) -> tuple[FloatArray, dict[str, NDArray[np.generic]]]:
    """Return the probabilities of labelled queries for the traffic's mix (n, k), and the uncertainty's arrays for them.
    Each query is weighted by how often its category is asked.

    Args:
        unseen: calibrated for the labelled mix; `labels` (n,) are k for queries of no category, whose share stays.
        uncertainty: its first held-out queries are the same, those of a category before the others.
    """
    k = unseen.shape[1]
    order = np.argsort(labels == k, kind="stable")
    shifted = apply_mix(unseen, ratio)
    gained = normalised_entropy(shifted[order]) - normalised_entropy(unseen[order])
    return shifted, {
        **uncertainty,
        "held_out_scores": np.asarray(uncertainty["held_out_scores"], dtype=np.float32)[: len(gained)] + gained,
        "held_out_correct": (shifted.argmax(axis=1) == labels)[order].astype(np.uint8),
        "held_out_weight": np.append(ratio, np.float32(1))[labels[order]],
    }


def read_asked(database_url: str, encoder: Encoder, feedback: FeedbackConfig, *, since: float) -> AskedQueries:
    """Read the newest routed queries since a time (Unix seconds) with a vector of this encoder; raise as `open_log`
    does.

    Queries of a key are one cluster and at most its share of all, so no key alone decides the mix. Trusted keys have no
    limit, nor has any key if too few ask to keep such a share. Their questions are clusters.
    """
    with open_log(database_url) as connection:
        newest = read_newest(connection, encoder.fingerprint, since=since, most=MAX_DECISIONS)
        records = [record for record in newest if was_routed(record)]
    return asked_queries(records, encoder.dim, feedback)


def was_routed(record: DecisionRecord) -> bool:
    """Return whether stage 1 decided about a query of a user."""
    decision, is_served = record.decision, record.state is not TerminalState.REJECTED
    return decision is not None and is_served and not record.is_probe and decision.reason not in NOT_OF_THE_MAP


def asked_queries(records: Sequence[DecisionRecord], dim: int, feedback: FeedbackConfig) -> AskedQueries:
    """Collect the queries of records that have a vector of `dim` numbers."""
    pairs = [(record, from_bytes(record.embedding)) for record in records if record.embedding]
    known = [(record, vector) for record, vector in pairs if len(vector) == dim]
    limited = {record.key_id for record, _ in known if record.key_id} - set(feedback.trusted_keys)
    is_limited = len(limited) >= min_keys(feedback.max_key_share)
    numbers = {name: i for i, name in enumerate(sorted(limited))} if is_limited else {}
    key = np.array([numbers.get(record.key_id or "", UNLIMITED) for record, _ in known], dtype=np.int64)
    question = np.array([question_of(record) for record, _ in known], dtype=np.int64)
    embeddings = np.stack([vector for _, vector in known]) if known else np.zeros((0, dim), dtype=np.float32)
    together = np.zeros(len(known), dtype=np.int64)
    weight = counted_share(together, key, np.ones(len(known)), np.zeros(1), feedback.max_key_share)
    return AskedQueries(embeddings, clusters(question, key), weight)
