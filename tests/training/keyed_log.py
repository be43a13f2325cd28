"""Logs of many keys in SQLite, for tests of whose feedback counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.tables.log import FeedbackRow
from tests.logged import answered, decision_of

EXPERTS = ("left", "right")


def log_keyed(
    url: str,
    rates: Mapping[str, Mapping[str, float]],
    *,
    keys: tuple[str, ...],
    each: int,
    seed: int,
    start: float = 1000.0,
    share_rated: float = 1.0,
) -> None:
    """Each key asks `each` queries of every category in `rates`, answered by either expert by a fair draw, and rates
    them up at the category's rate of that expert. `right` challenges `left`."""
    rng = np.random.default_rng(seed)
    rows, said = [], []
    for i in range(each):
        for key in keys:
            for category, rate in rates.items():
                expert = EXPERTS[int(rng.random() < 0.5)]
                row = record_of(f"{key}-{category}-{start}-{i}", key, category, expert, start + i, len(rows))
                rows.append(row)
                if rng.random() < share_rated:
                    fields = {"decision_id": row.decision_id, "kind": "thumb", "at": row.at + 1, "key_id": key}
                    said.append(fields | {"value": float(rng.random() < rate[expert])})
    store = Database(url)
    store.write_decisions(rows)
    if said:
        with store.transaction("write feedback") as connection:
            connection.execute(store.insert(FeedbackRow), said)
    store.close()


def record_of(name: str, key: str, category: str, expert: str, at: float, seq: int) -> DecisionRecord:
    decision = decision_of(
        expert,
        category,
        reason="explored",
        eligible=EXPERTS,
        eligible_probs=(0.5, 0.5),
        ranking=EXPERTS,
        predicted_quality=(0.4, 0.6),
        propensity=0.5,
    )
    return answered(
        name,
        seq,
        decision,
        replica=f"{key}{at:.0f}",
        at=at,
        latency_ms=5.0,
        key_id=key or None,
        text=f"write a {category} query {name} that selects rows from a table",
    )
