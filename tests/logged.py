"""Decisions and their records, for tests that write a log; what a test does not name is the same everywhere."""

from __future__ import annotations

from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.router.types import RoutingDecision


def decision_of(expert: str, category: str, /, **changes: object) -> RoutingDecision:
    """A choice by the map."""
    values = {
        "expert": expert,
        "category": category,
        "confidence": 0.9,
        "is_fallback": False,
        "reason": "map",
        "likely_category": category,
        "uncertainty": 0.1,
        "propensity": 1.0,
        "router_version": "v",
    }
    return RoutingDecision.model_validate(values | changes)


def answered(name: str, seq: int, decision: RoutingDecision | None, /, **changes: object) -> DecisionRecord:
    """The record of an answer of the expert that was decided for."""
    values = {
        "decision_id": name,
        "request_id": "r",
        "replica": "one",
        "seq": seq,
        "at": float(seq),
        "requested_model": "auto",
        "state": TerminalState.ANSWERED,
        "decision": decision,
        "served_expert": None if decision is None else decision.expert,
        "status": 200,
        "latency_ms": 1.0,
    }
    return DecisionRecord.model_validate(values | changes)
