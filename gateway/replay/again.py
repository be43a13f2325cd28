"""One logged decision made again by the router that made it. Pure unless a router has to encode a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from base.errors import DataError, NoEligibleExpertError, RouterError
from router.features import features_hash, from_bytes, to_bytes
from router.pipeline import Router
from router.types import DecisionInputs, DecisionReason, DecisionRecord, FloatArray, Query, RoutingDecision


class NotReplayableError(RouterError):
    """The inputs of a decision are gone."""


@dataclass(frozen=True)
class Difference:
    """A field of the decision that came out otherwise."""

    field: str
    logged: object
    again: object


@dataclass(frozen=True)
class Replay:
    """The decision as it came out again.

    `source` says where the features came from, `is_known` that they have the logged hash; `has_new_settings` that
    experts.yaml, as it is solved for this policy, is not what it was.
    """

    decision: RoutingDecision
    source: str
    is_known: bool
    has_new_settings: bool
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Features:
    """Inputs of a logged decision (1, d) with their source.

    `is_known`: they have the logged hash; `is_exact`: they may be taken for the same.
    """

    embedding: FloatArray
    source: str
    is_known: bool
    is_exact: bool


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
        again = decide_again(router, record, features.embedding)
    except NoEligibleExpertError as error:
        raise NotReplayableError(f"no expert is eligible now: {error}") from error
    is_new = router.settings.get(logged.policy) != inputs.settings
    return Replay(again, features.source, features.is_known, is_new, tuple(differences(logged, again)))


def routed(record: DecisionRecord) -> tuple[RoutingDecision, DecisionInputs]:
    """The decision and its inputs. Raises NotReplayableError when no router decided, or the inputs were not logged."""
    if record.decision is None:
        raise NotReplayableError(f"it was rejected before an expert was chosen ({record.error_code or record.state})")
    if record.decision.reason is DecisionReason.EXPLICIT:
        raise NotReplayableError(f"the client named the expert '{record.decision.expert}': no router decided")
    if record.inputs is None:
        raise NotReplayableError(f"a request of kind '{record.kind}': it chose a retrieval expert")
    return record.decision, record.inputs


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


def decide_again(router: Router, record: DecisionRecord, embedding: FloatArray) -> RoutingDecision:
    """Decides for that request and fleet: experts are there unless they did not answer then.

    Raises:
        NotReplayableError: the router has no such policy.
        NoEligibleExpertError: none of its experts can serve.
    """
    decision, inputs = routed(record)
    if decision.policy not in router.policies:
        raise NotReplayableError(f"experts.yaml no longer has policy '{decision.policy}'")
    again = router.decide(
        Query(record.decision_id, record.text or "", inputs.facts),
        rng=np.random.default_rng(int.from_bytes(record.decision_id.encode(), "big")),
        policy=decision.policy,
        alive=[name for name in router.experts if name not in inputs.unreachable],
        embedding=embedding,
        seed=decision.seed,
    )
    return again.model_copy(update={"asleep": decision.asleep})  # told by the engines' scheduler, not by the router


def differences(logged: RoutingDecision, again: RoutingDecision) -> Iterator[Difference]:
    """Fields that are not equal, to the last bit."""
    for name in RoutingDecision.model_fields:
        before, after = getattr(logged, name), getattr(again, name)
        if before != after:
            yield Difference(name, before, after)
