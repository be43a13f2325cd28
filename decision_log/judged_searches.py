"""Searches that somebody gave feedback on, as training reads them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from sqlalchemy import text

from decision_log.database import Database
from decision_log.read import by_ids, foreign_version, id_batches, record_of, version_reason
from router.types import RETRIEVAL, DecisionRecord

logger = logging.getLogger(__name__)


def read_judged_searches(database: Database, since: float) -> Iterator[tuple[DecisionRecord, dict[str, float]]]:
    """Retrieval decisions since a time (Unix seconds) that have feedback, by id, with the mean value per document.

    Raises:
        StoreError: the database cannot be read, or a row is damaged.
    """
    values: dict[str, dict[str, list[float]]] = {}
    with database.transaction("read feedback on documents") as connection:
        rows = connection.execute(text("SELECT decision_id, document_id, value FROM document_feedback"))
        for decision_id, document_id, value in rows:
            values.setdefault(decision_id, {}).setdefault(document_id, []).append(value)
    query = by_ids(
        "SELECT decision_id, record, NULL AS embedding FROM decisions "
        "WHERE decision_id IN :ids AND category = :category AND at >= :since ORDER BY decision_id"
    )
    for part in id_batches(sorted(values)):
        with database.transaction("read retrieval decisions") as connection:
            found = connection.execute(query, {"ids": part, "category": RETRIEVAL, "since": since}).all()
        for row in found:
            if (version := foreign_version(row.record)) is not None:
                logger.warning("left out search %s: %s", row.decision_id, version_reason(version))
                continue
            means = {name: sum(each) / len(each) for name, each in values[row.decision_id].items()}
            yield record_of(row), means
