"""The traffic's mix of categories, read from the decision log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from base.blas import one_thread
from base.errors import ArtifactError, DataError
from decision_log.read import NOT_OF_THE_MAP, read_newest
from decision_log.sql_engine import open_log
from router.artifact import RouterArtifact, load_artifact, require_array
from router.build import configured_router
from router.config import load_config
from router.features import from_bytes
from router.feedback_config import FeedbackConfig
from router.pipeline import Router
from router.protocols import Encoder
from router.registry import Registry
from router.types import DecisionRecord, Interval, Metric, Record, TerminalState
from router.uncertainty import apply_temperature
from training.category_mix import MIN_QUERIES, AskedQueries, CategoryMix, estimate_mix
from training.key_influence import UNLIMITED, clusters, counted_share, min_keys
from training.split import question_of

NEWEST = 5000
"""Decisions that a mix is estimated from: the newest, because the mix of now is wanted (ours)."""


class TrafficMix(Record):
    """Shares of the categories in the traffic, and how far they are from those of the labelled queries."""

    moved: Metric = Field(description="total variation: the part of the queries that changed category; n looked at")
    labelled: dict[str, float]
    traffic: dict[str, Metric]
    is_followed: bool = Field(description="the live router's prior is this or an earlier estimate")


def read_asked(
    database_url: str, encoder: Encoder, feedback: FeedbackConfig, *, since: float, until: float = float("inf")
) -> AskedQueries:
    """The newest routed queries of a time that have a vector of this encoder. Raises what `open_log` does.

    Queries of a key are one cluster and at most its share of all, so nobody alone says what is asked. Trusted keys, and
    all keys where so few ask that such a share cannot be kept, are not limited: their questions are clusters.
    """
    with open_log(database_url) as connection:
        newest = read_newest(connection, encoder.fingerprint, since=since, until=until, most=NEWEST)
        records = [record for record in newest if was_routed(record)]
    return asked_queries(records, encoder.dim, feedback)


def was_routed(record: DecisionRecord) -> bool:
    """Returns whether stage 1 decided about a query of a user."""
    decision, is_served = record.decision, record.state is not TerminalState.REJECTED
    return decision is not None and is_served and not record.is_probe and decision.reason not in NOT_OF_THE_MAP


def asked_queries(records: Sequence[DecisionRecord], dim: int, feedback: FeedbackConfig) -> AskedQueries:
    """Queries of records that have a vector of `dim` numbers."""
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


def measure_mix(router: Router, artifact: RouterArtifact, asked: AskedQueries) -> TrafficMix:
    """Distance of the traffic from the queries that a router was taught by.

    Raises:
        DataError: too few queries that stage 1 is sure of.
        ArtifactError: the router is of an earlier coe.
    """
    k = len(artifact.manifest.categories)
    counts = [require_array(artifact.part("mix"), name, (k,)) for name in ("labelled", "accepted")]
    known = np.stack([np.asarray(count, dtype=np.int64) for count in counts])
    with one_thread():
        judged = router.judge(asked.embeddings, router.predict_categories(asked.embeddings))
        kept = judged.rows < k
        plain = apply_temperature(router.classifier.predict_proba(asked.embeddings[kept]).probs, router.temperature)
        found = estimate_mix(plain, asked.cluster[kept], asked.weight[kept], known, np.random.default_rng(0))
    if found is None:
        raise DataError(
            f"stage 1 is sure of {int(kept.sum())} of the {len(kept)} newest queries with an embedding of this "
            f"encoder, and {MIN_QUERIES} are needed (log.embeddings)"
        )
    return in_names(found, artifact.manifest.categories, is_followed=router.mix is not None)


def in_names(mix: CategoryMix, categories: Sequence[str], *, is_followed: bool) -> TrafficMix:
    columns = zip(categories, mix.labelled, mix.shares, mix.low, mix.high, strict=True)
    rows = [(name, *(float(value) for value in values)) for name, *values in columns]
    return TrafficMix(
        moved=mix.moved,
        labelled={name: own for name, own, *_ in rows},
        traffic={
            name: Metric(value=share, interval=Interval(low=low, high=high)) for name, _, share, low, high in rows
        },
        is_followed=is_followed,
    )


def read_mix(config: Path, routers: Path, database_url: str, *, since: float, until: float) -> TrafficMix:
    """The same of the live router and a log. Raises RouterError as `load_router` and `open_log` do, too."""
    registry = Registry(routers)
    pointer = registry.live()
    if pointer is None:
        raise ArtifactError(f"{routers}: there is no live router; run `coe train` first")
    configured, artifact = load_config(config), load_artifact(registry.folder(pointer.version))
    router = configured_router(configured, artifact)
    asked = read_asked(database_url, router.encoder, configured.feedback, since=since, until=until)
    return measure_mix(router, artifact, asked)


def mix_sentence(moved: Metric, *, is_followed: bool) -> str:
    """The distance of the mix, in words."""
    low, high = (moved.interval.low, moved.interval.high) if moved.interval else (0.0, 1.0)
    follows = "stage 1's prior follows it" if is_followed else "stage 1 expects the mix of the labelled queries"
    return (
        f"The mix of categories is {moved.value:.2f} [{low:.2f}, {high:.2f}] from that of the labelled queries "
        f"(total variation, {moved.n:,} queries); {follows}."
    )
