"""A logged decision made again by the router that made it. Pure unless a text has to be encoded."""

from __future__ import annotations

from dataclasses import dataclass

from coe.base.errors import DataError, NoEligibleExpertError
from coe.decision_log.decision_record import DecisionInputs, DecisionRecord
from coe.decision_log.replayed import NotReplayableError, decide_again, routed
from coe.router.brief_decision import brief
from coe.router.features import features_hash, from_bytes, to_bytes
from coe.router.pipeline import Router
from coe.router.types import FloatArray, RoutingDecision


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
