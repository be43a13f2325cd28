"""`coe categories propose`: topics of the log that the router does not know, and categories that are not asked for."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coe.base.intervals import Z_95, wilson_interval
from coe.base.shipped import seed_folder
from coe.base.text_identity import normalised_text
from coe.cli.progress import Progress, silent
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.read import read_records, read_rewards
from coe.decision_log.sql_engine import open_log
from coe.fleet.router_registry import Registry
from coe.router.artifact import load_artifact
from coe.router.build import configured_router
from coe.router.config import load_config
from coe.router.features import from_bytes
from coe.router.live_pointer import required_pointer
from coe.router.pipeline import Router
from coe.router.types import GENERAL, FloatArray, Record
from coe.router.uncertainty import neighbour_distance, quantile_of
from coe.training.datasets.labelled_queries import read_seed
from coe.training.stage_one import embed
from coe.training.topics import Topic, find_topics, topic_names

FAR = 0.5
"""Quantile of the distance of held-out training queries from which on a query counts as far. At a half, 74 to 97% of
the queries of three held-out categories are; at 0.8 it is a quarter of one of them (benchmarks/LOG.md)."""

MOST_QUERIES = 4000
MOST_POINTS = 1500
"""Distinct queries that are clustered: silhouettes need all their distances, some seconds for so many."""

DEAD_SHARE = 0.001
EXAMPLES = 5
MIN_RATED = 10
"""Rated answers of an expert on a topic below which it is not compared (ours)."""


@dataclass(frozen=True)
class ProposeRequest:
    """`since` in Unix seconds; `min_size` distinct queries make a topic."""

    config: Path
    routers: Path
    database_url: str
    min_size: int
    since: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Asked:
    """One logged query that stage 1 was unsure of."""

    decision_id: str
    text: str | None
    key: str
    expert: str
    reward: float | None
    vector: FloatArray | None


class Gain(Record):
    """Mean reward that another expert would add to a topic's queries; the interval is a 95% one."""

    expert: str
    value: float
    low: float
    high: float


class NewCategory(Record):
    """A proposal. `decision_ids` are its distinct queries, the most typical first; their texts stay in the log."""

    name: str
    n: int
    n_distinct: int
    share: float
    stability: float
    tightness: float
    mean_reward: float | None
    at_most: float | None = None
    gain: Gain | None = None
    unknown: str = ""
    decision_ids: tuple[str, ...]


class DeadCategory(Record):
    """A learned category whose share of the traffic is below `DEAD_SHARE`: `high` is the end of its 95% interval."""

    name: str
    n: int
    high: float


class Proposals(Record):
    """Findings, and the numbers of decisions they were found in."""

    router_version: str
    n_decisions: int
    n_uncertain: int
    n_far: int
    left_out: dict[str, int]
    new: tuple[NewCategory, ...]
    dead: tuple[DeadCategory, ...]
    dead_needs: int


def propose(request: ProposeRequest, progress: Progress = silent) -> Proposals:
    """Reads the log and looks for topics and dead categories.

    Raises:
        ArtifactError: there is no live router.
        ConfigError, DataError: experts.yaml or the log cannot be read.
    """
    version = required_pointer(request.routers).version
    artifact = load_artifact(Registry(request.routers).folder(version))
    router = configured_router(load_config(request.config), artifact)
    reference = np.asarray(artifact.arrays["uncertainty.reference"], dtype=np.float32)
    progress("reading the decision log")
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    with open_log(request.database_url) as connection:
        rewards = read_rewards(connection)
        asked = list(uncertain_queries(read_records(connection, request.since), rewards, router, counts))
    n_decisions = sum(counts.values())
    usable, vectors = with_vectors(asked, router, left_out, progress)
    distance = neighbour_distance(vectors, reference)
    is_far = quantile_of(distance, router.uncertainty.held_out_distances) >= FAR
    progress("looking for topics")
    new = new_categories(
        [q for q, far in zip(usable, is_far, strict=True) if far],
        vectors[is_far],
        reference,
        router,
        request,
        n_decisions,
    )
    return Proposals(
        router_version=router.version,
        n_decisions=n_decisions,
        n_uncertain=len(asked),
        n_far=int(is_far.sum()),
        left_out=dict(left_out),
        new=new,
        dead=dead_categories(router, counts),
        dead_needs=decisions_to_see(DEAD_SHARE),
    )


def uncertain_queries(
    records: Iterable[DecisionRecord], rewards: Mapping[str, float], router: Router, counts: Counter[str]
) -> Iterator[Asked]:
    """Routed queries that went to `general`; `counts` gets every routed one by its most likely category."""
    for record in records:
        decision = record.decision
        if decision is None or not decision.reason.is_routed:
            continue
        counts[GENERAL if decision.is_fallback else decision.likely_category] += 1
        if not decision.is_fallback:
            continue
        is_ours = record.inputs is not None and record.inputs.encoder == router.encoder.fingerprint
        vector = from_bytes(record.embedding) if record.embedding is not None and is_ours else None
        yield Asked(
            decision_id=record.decision_id,
            text=record.text,
            key=normalised_text(record.text) if record.text else record.text_hash or record.decision_id,
            expert=record.served_expert or decision.expert,
            reward=rewards.get(record.decision_id),
            vector=vector if vector is not None and len(vector) == router.encoder.dim else None,
        )


def with_vectors(
    asked: Sequence[Asked], router: Router, left_out: Counter[str], progress: Progress
) -> tuple[list[Asked], FloatArray]:
    """The newest queries with their embeddings (n, d), from the log or made now; what has neither is counted."""
    latest = list(asked[-MOST_QUERIES:])
    if len(asked) > len(latest):
        left_out[f"older than the {MOST_QUERIES} newest"] = len(asked) - len(latest)
    kept = [query for query in latest if query.vector is not None or query.text]
    if len(kept) < len(latest):
        left_out["neither text nor embedding was kept"] = len(latest) - len(kept)
    missing = [i for i, query in enumerate(kept) if query.vector is None]
    made = embed(router.encoder, [kept[i].text or "" for i in missing], progress)
    vectors = np.zeros((len(kept), router.encoder.dim), dtype=np.float32)
    for i, query in enumerate(kept):
        if query.vector is not None:
            vectors[i] = query.vector
    vectors[missing] = made
    return kept, vectors


def new_categories(
    asked: Sequence[Asked],
    vectors: FloatArray,
    reference: FloatArray,
    router: Router,
    request: ProposeRequest,
    n_decisions: int,
) -> tuple[NewCategory, ...]:
    """Topics with their names and what they could win, told from the `reference` (r, d) of known queries. Equal queries
    are one point, and count in the share."""
    first: dict[str, int] = {}
    for i, query in enumerate(asked):
        first.setdefault(query.key, i)
    distinct = list(first.values())[-MOST_POINTS:]
    rng = np.random.default_rng(request.seed)
    known = reference[rng.permutation(len(reference))[: len(distinct) // 2]]
    topics = find_topics(vectors[distinct], known, request.min_size, rng)
    members = [[asked[distinct[row]] for row in topic.members] for topic in topics]
    texts = [[query.text for query in own if query.text] for own in members]
    placed = {query.decision_id for own in members for query in own}
    others = [query.text for query in asked if query.text and query.decision_id not in placed]
    names = topic_names(texts, [*others, *(seed.text for seed in read_seed(seed_folder()))], router.categories)
    keys = [{query.key for query in own} for own in members]
    return tuple(
        new_category(name, topic, own, [q for q in asked if q.key in key], n_decisions)
        for name, topic, own, key in zip(names, topics, members, keys, strict=True)
    )


def new_category(
    name: str, topic: Topic, members: Sequence[Asked], everyone: Sequence[Asked], n_decisions: int
) -> NewCategory:
    """`members` are distinct, `everyone` has each as often as it was asked."""
    # In the order of a hash, so that an expert that served every other query is in both halves of `best_gain`.
    drawn = sorted(everyone, key=lambda query: hashlib.blake2b(query.decision_id.encode()).digest())
    rated = [(query.expert, query.reward) for query in drawn if query.reward is not None]
    mean = float(np.mean([reward for _, reward in rated])) if rated else None
    gain, unknown = best_gain(rated)
    share = len(everyone) / max(n_decisions, 1)
    return NewCategory(
        name=name,
        n=len(everyone),
        n_distinct=len(members),
        share=share,
        stability=topic.stability,
        tightness=topic.tightness,
        mean_reward=mean,
        at_most=None if mean is None else share * (1 - mean),
        gain=gain,
        unknown=unknown,
        decision_ids=tuple(query.decision_id for query in members),
    )


def best_gain(rated: Sequence[tuple[str, float]]) -> tuple[Gain | None, str]:
    """Estimates what the best expert for a topic would add to its mean reward, or why that is unknown; in random order.

    The expert is chosen on every other rated answer and valued on the rest, so that the best of several noisy means is
    not taken at its word (ours).
    """
    halves = [rated[0::2], rated[1::2]]
    means = [expert_means(half) for half in halves]
    if len(means[0]) < 2 or not set(means[0]) & set(means[1]):
        return None, f"no two experts have {MIN_RATED} rated answers there"
    best = max(set(means[0]) & set(means[1]), key=lambda expert: means[0][expert])
    own = np.array([reward for expert, reward in halves[1] if expert == best])
    everyone = np.array([reward for _, reward in halves[1]])
    value = float(own.mean() - everyone.mean())
    error = Z_95 * math.sqrt(0.25 / len(own) + 0.25 / len(everyone))  # a value in [0, 1] varies by 0.25 at most
    return Gain(expert=best, value=value, low=max(-1.0, value - error), high=min(1.0, value + error)), ""


def expert_means(rated: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Mean reward of the experts with enough answers in one half."""
    by_expert: dict[str, list[float]] = {}
    for expert, reward in rated:
        by_expert.setdefault(expert, []).append(reward)
    return {name: float(np.mean(own)) for name, own in by_expert.items() if len(own) >= MIN_RATED / 2}


def dead_categories(router: Router, counts: Mapping[str, int]) -> tuple[DeadCategory, ...]:
    """Learned categories whose share of the traffic is shown to lie below `DEAD_SHARE`."""
    total = sum(counts.values())
    found = []
    for name in router.categories:
        if name != GENERAL and total:
            _, high = wilson_interval(counts.get(name, 0) / total, total)
            if high < DEAD_SHARE:
                found.append(DeadCategory(name=name, n=counts.get(name, 0), high=high))
    return tuple(found)


def decisions_to_see(share: float) -> int:
    """Decisions after which a category that is not asked for is known to lie below a share."""
    return math.ceil(Z_95 * Z_95 * (1 - share) / share)
