"""Logged decisions made again, by the router that made them and by another. Pure unless a text has to be encoded."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from coe.base.errors import DataError, NoEligibleExpertError
from coe.base.intervals import Z_95, wilson_interval
from coe.decision_log.decision_record import DecisionInputs, DecisionRecord
from coe.decision_log.replayed import NotReplayableError, decide_again, routed
from coe.router.brief_decision import brief
from coe.router.features import features_hash, from_bytes, to_bytes
from coe.router.pipeline import Router
from coe.router.types import FloatArray, Metric, Record, RoutingDecision

MAX_TEXT_CHARS = 80


@dataclass(frozen=True)
class Features:
    """Inputs of a logged decision (1, d) with their source.

    `is_known`: they have the logged hash; `is_exact`: they may be taken for the same.
    """

    embedding: FloatArray
    source: str
    is_known: bool
    is_exact: bool


@dataclass(frozen=True)
class Replay:
    """The decision as it came out again, from these features.

    `has_new_settings`: experts.yaml, as it is solved for this policy, is not what it was. `differences` are the fields
    that are not equal, to the last bit: as logged and as they are now.
    """

    decision: RoutingDecision
    features: Features
    has_new_settings: bool
    differences: dict[str, tuple[object, object]]


def replay(router: Router, record: DecisionRecord, key: bytes) -> Replay:
    """Makes the decision again, the seed of its draw included.

    Args:
        key: of the hashes of the data folder that logged it.

    Raises:
        NotReplayableError: saying what is missing.
    """
    logged, inputs = routed(record)
    if router.version != logged.router_version:
        raise NotReplayableError(f"router {logged.router_version} decided, not {router.version}")
    features = features_of(router, record, inputs, key)
    if not features.is_exact:
        raise NotReplayableError(
            f"the {features.source} gives other features than were logged: the log keeps a redacted text or the "
            "last ask of a conversation, the encoder does not give the same embedding twice, or the log.key of this "
            "data folder is another one. With `log.embeddings: true` decisions can be made again"
        )
    try:
        again = brief(decide_again(router, record, features.embedding), (record.served_expert,))
    except NoEligibleExpertError as error:
        raise NotReplayableError(f"no expert is eligible now: {error}") from error
    is_new = router.settings.get(logged.policy) != inputs.settings
    pairs = {name: (getattr(logged, name), getattr(again, name)) for name in RoutingDecision.model_fields}
    return Replay(again, features, is_new, {name: pair for name, pair in pairs.items() if pair[0] != pair[1]})


def features_of(router: Router, record: DecisionRecord, inputs: DecisionInputs, key: bytes) -> Features:
    """The embedding of the log when this router's encoder made it, else that of the logged text.

    Raises:
        NotReplayableError: the log has neither.
    """
    encoder = router.encoder.fingerprint
    if record.embedding is not None and inputs.encoder == encoder:
        try:
            embedding = from_bytes(record.embedding)[None]
        except DataError as error:
            raise NotReplayableError(str(error)) from error
        if embedding.shape[1] != router.encoder.dim:
            raise NotReplayableError(
                f"the logged embedding has {embedding.shape[1]} dimensions, not {router.encoder.dim}"
            )
        is_known = features_hash(record.embedding, key) == inputs.features
        return Features(embedding, "logged embedding", is_known, is_exact=True)
    if record.text is None:
        kept = "the logged embedding is of another encoder" if record.embedding else "the log keeps no embedding of it"
        raise NotReplayableError(
            f"{kept}, and no text: `log.embeddings: true` or `log.privacy: text` makes replay possible from then on"
        )
    embedding = router.embed(record.text)
    is_known = inputs.encoder == encoder and features_hash(to_bytes(embedding), key) == inputs.features
    return Features(embedding, "logged text", is_known, is_exact=is_known)


class Example(Record):
    """A request that the candidate sends elsewhere; `text` where the log keeps one."""

    decision_id: str
    category: str
    candidate_category: str
    expert: str
    candidate_expert: str
    candidate_reason: str
    text: str | None = None


class CategoryShift(Record):
    """Requests of one category, as it was decided then, and how many of them would go to another expert."""

    category: str
    decisions: int
    changed: int


class Move(Record):
    """Requests that one expert was chosen for and the candidate sends to another."""

    expert: str
    candidate_expert: str
    decisions: int


class CandidateReport(Record):
    """The candidate against what was decided. `changed` is the share sent to another expert; `predicted_gain` the mean
    difference in predicted quality by the candidate's own estimate, which does not prove it right.
    """

    candidate: str
    decisions: int
    compared: int
    from_text: int = 0
    skipped: dict[str, int]
    changed: Metric | None
    predicted_gain: Metric | None
    categories: tuple[CategoryShift, ...]
    moves: tuple[Move, ...]
    examples: tuple[Example, ...]


def compare(candidate: Router, records: Iterable[DecisionRecord], key: bytes, max_examples: int) -> CandidateReport:
    """Compares a candidate with logged decisions.

    Args:
        key: of the data folder's hashes.
    """
    skipped, moves, of_category = Counter[str](), Counter[tuple[str, str]](), defaultdict[str, Counter[bool]](Counter)
    decisions, from_text, examples, gains = 0, 0, list[Example](), list[float]()
    for record in records:
        decisions += 1
        try:
            logged, inputs = routed(record)
            features = features_of(candidate, record, inputs, key)
            found = decide_again(candidate, record, features.embedding)
        except NotReplayableError as error:
            skipped[str(error)] += 1
            continue
        except NoEligibleExpertError:
            skipped["no expert of the candidate can serve it"] += 1
            continue
        from_text += not features.is_exact
        is_changed = found.expert != logged.expert
        of_category[logged.category][is_changed] += 1
        quality = dict(zip(found.eligible, found.predicted_quality, strict=True))
        if logged.expert in quality:
            gains.append(quality[found.expert] - quality[logged.expert])
        if is_changed:
            moves[logged.expert, found.expert] += 1
            if len(examples) < max_examples:
                examples.append(example_of(record, logged, found))
    shifts = [
        CategoryShift(category=name, decisions=counts.total(), changed=counts[True])
        for name, counts in of_category.items()
    ]
    compared = decisions - skipped.total()
    return CandidateReport(
        candidate=candidate.version,
        decisions=decisions,
        compared=compared,
        from_text=from_text,
        skipped=dict(skipped.most_common()),
        changed=share_of(moves.total(), compared),
        predicted_gain=mean_of(gains),
        categories=tuple(sorted(shifts, key=lambda each: (-each.changed, each.category))),
        moves=tuple(
            Move(expert=before, candidate_expert=after, decisions=n) for (before, after), n in moves.most_common()
        ),
        examples=tuple(examples),
    )


def example_of(record: DecisionRecord, logged: RoutingDecision, found: RoutingDecision) -> Example:
    text = None if record.text is None else " ".join(record.text.split())
    return Example(
        decision_id=record.decision_id,
        category=logged.category,
        candidate_category=found.category,
        expert=logged.expert,
        candidate_expert=found.expert,
        candidate_reason=found.reason.value,
        text=text if text is None or len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 3]}...",
    )


def share_of(count: int, n: int) -> Metric | None:
    """A share with Wilson's 95% interval; None of nothing."""
    if n == 0:
        return None
    low, high = wilson_interval(count / n, n)
    return Metric.within(low, count / n, high, n)


def mean_of(values: Sequence[float]) -> Metric | None:
    """A mean with its normal 95% interval; None of nothing."""
    if not values:
        return None
    mean, n = fmean(values), len(values)
    half = Z_95 * stdev(values, mean) / math.sqrt(n) if n > 1 else 0.0
    return Metric.within(mean - half, mean, mean + half, n)
