"""A logged decision made again by the router that made it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from coe.base.errors import DataError, NoEligibleExpertError
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.replayed import NotReplayableError, decide_again, routed
from coe.router.brief_decision import brief
from coe.router.pipeline import Router
from coe.router.reading.features import features_hash, from_bytes
from coe.router.types import RoutingDecision


@dataclass(frozen=True)
class Replay:
    """The decision as it came out again.

    `is_known`: the embedding has the logged hash. `has_new_settings`: experts.yaml, as it is solved for this policy, is
    not what it was. `differences` are the fields that are not equal, to the last bit: as logged and as they are now.
    """

    decision: RoutingDecision
    is_known: bool
    has_new_settings: bool
    differences: dict[str, tuple[object, object]]


def replay(router: Router, record: DecisionRecord, key: bytes) -> Replay:
    """Makes the decision again from the logged embedding, the seed of its draw included.

    Args:
        key: of the hashes of the data folder that logged it.

    Raises:
        NotReplayableError: saying what is missing.
    """
    logged, inputs = routed(record)
    if router.version != logged.router_version:
        raise NotReplayableError(f"router {logged.router_version} decided, not {router.version}")
    if record.embedding is None:
        raise NotReplayableError("the log keeps no embedding of it; `log.embeddings: true` keeps those that follow")
    if inputs.encoder != router.encoder.fingerprint:
        raise NotReplayableError("the logged embedding is of another encoder")
    try:
        embedding = from_bytes(record.embedding)[None]
    except DataError as error:
        raise NotReplayableError(str(error)) from error
    if embedding.shape[1] != router.encoder.dim:
        raise NotReplayableError(f"the logged embedding has {embedding.shape[1]} dimensions, not {router.encoder.dim}")
    try:
        again = brief(decide_again(router, record, embedding), (record.served_expert,))
    except NoEligibleExpertError as error:
        raise NotReplayableError(f"no expert is eligible now: {error}") from error
    pairs = {name: (getattr(logged, name), getattr(again, name)) for name in RoutingDecision.model_fields}
    return Replay(
        again,
        is_known=features_hash(record.embedding, key) == inputs.features,
        has_new_settings=router.settings.get(logged.policy) != inputs.settings,
        differences={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )
