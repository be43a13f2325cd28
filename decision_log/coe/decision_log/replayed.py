"""Replay of a logged decision from its inputs by a router."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coe.base.errors import RouterError
from coe.decision_log.decision_record import DecisionInputs, DecisionKind, DecisionRecord
from coe.router.pipeline import Router
from coe.router.types import DecisionReason, FloatArray, Query, RoutingDecision


class NotReplayableError(RouterError):
    """A decision whose inputs are gone."""


def routed(record: DecisionRecord) -> tuple[RoutingDecision, DecisionInputs]:
    """Return the decision and its inputs; raise NotReplayableError if no router decided or inputs are missing."""
    if record.decision is None:
        raise NotReplayableError(f"it was rejected before an expert was chosen ({record.error_code or record.state})")
    if record.decision.reason is DecisionReason.UNGRADED:
        raise NotReplayableError(f"no expert that the router knew could serve it; '{record.decision.expert}' did")
    if record.decision.reason is DecisionReason.EXPLICIT:
        raise NotReplayableError(f"the client named the expert '{record.decision.expert}': no router decided")
    if record.inputs is None:
        why = "the log has no inputs of it" if record.kind is DecisionKind.CHAT else "it chose a retrieval expert"
        raise NotReplayableError(f"a request of kind '{record.kind}': {why}")
    return record.decision, record.inputs


def decide_again(router: Router, record: DecisionRecord, embedding: FloatArray) -> RoutingDecision:
    """Decide for the logged request and fleet: all experts are available but those that did not answer then.

    Raises:
        NotReplayableError: the router has no such policy.
        NoEligibleExpertError: none of its experts can serve.
    """
    decision, inputs = routed(record)
    if decision.policy not in router.policies:
        raise NotReplayableError(f"experts.yaml no longer has policy '{decision.policy}'")
    again = router.decide(
        Query(record.decision_id, record.text or "", replace(inputs.facts, loop=record.loop)),
        rng=np.random.default_rng(int.from_bytes(record.decision_id.encode(), "big")),
        policy=decision.policy,
        alive=[name for name in router.experts if name not in inputs.unreachable],
        embedding=embedding,
        seed=decision.seed,
    )
    return again.model_copy(update={"asleep": decision.asleep})  # told by the engines' scheduler, not by the router
