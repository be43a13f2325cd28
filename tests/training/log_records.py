"""Rows of a decision log, for tests that read one."""

from __future__ import annotations

from coe.decision_log.decision_record import DecisionRecord
from tests.logged import answered, decision_of


def record(
    seq: int, category: str = "code", *, propensity: float = 1.0, version: str = "v", **changes: object
) -> DecisionRecord:
    """An answered decision of expert `left`, at second 10 + seq; `changes` are of the record's own fields."""
    decision = decision_of(
        "left", category, confidence=0.5, uncertainty=0.5, propensity=propensity, router_version=version
    )
    return answered(f"d{seq}", seq, decision, **({"request_id": "q", "replica": "a", "at": 10.0 + seq} | changes))
