"""Rows of a decision log, for tests that read one."""

from __future__ import annotations

from decision_log.decision_record import DecisionRecord, TerminalState


def record(
    seq: int, category: str = "code", *, propensity: float = 1.0, version: str = "v", **changes: object
) -> DecisionRecord:
    """An answered decision of expert `left`, at second 10 + seq; `changes` are of the record's own fields."""
    decision = {
        "expert": "left",
        "category": category,
        "confidence": 0.5,
        "is_fallback": False,
        "reason": "map",
        "likely_category": category,
        "uncertainty": 0.5,
        "propensity": propensity,
        "router_version": version,
    }
    values = {
        "decision_id": f"d{seq}",
        "request_id": "q",
        "replica": "a",
        "seq": seq,
        "at": 10.0 + seq,
        "requested_model": "auto",
        "state": TerminalState.ANSWERED,
        "decision": decision,
        "served_expert": "left",
        "status": 200,
        "latency_ms": 1.0,
    }
    return DecisionRecord.model_validate(values | changes)
