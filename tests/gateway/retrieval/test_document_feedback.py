"""Feedback on a document: kept once per decision, document and key; chat answers and searches are told apart."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import select

from coe.decision_log.database import Database
from coe.decision_log.feedback_types import DocumentFeedback, FeedbackStatus
from coe.decision_log.sql_removal import Removal
from coe.decision_log.tables.log import DocumentFeedbackRow
from coe.router.config.feedback import FeedbackConfig
from tests.gateway.retrieval.serving import Serving

TEXTS = {"cats.txt": "The cat purrs.", "tax.txt": "The tax office opens at nine."}


def rows(running: Serving) -> list[tuple[str, str, float]]:
    table = DocumentFeedbackRow.__table__.c
    with running.store.transaction("read") as connection:
        found = connection.execute(select(table.decision_id, table.document_id, table.value).order_by(table.id))
        return [tuple(row) for row in found]


async def test_a_clicked_document_is_kept_with_its_search(running: Serving) -> None:
    store_id = await running.store_of(TEXTS)
    _, answer, headers = await running.search(store_id, "tax office")
    decision_id, document_id = headers["x-coe-decision-id"], answer["data"][0]["document_id"]
    body = {"decision_id": decision_id, "document_id": document_id, "kind": "thumb", "value": 1}
    status, said, _ = await running.post("/feedback", body)
    assert (status, said["status"]) == (202, "accepted")
    assert (await running.post("/feedback", body))[1]["status"] == "repeated"
    assert (await running.post("/feedback", {**body, "value": 0}))[1]["status"] == "replaced"
    assert rows(running) == [(decision_id, document_id, 0.0)]


async def test_what_does_not_fit_is_refused_with_what_would(running: Serving) -> None:
    store_id = await running.store_of(TEXTS)
    _, _, headers = await running.search(store_id, "tax office")
    search = {"decision_id": headers["x-coe-decision-id"], "kind": "thumb", "value": 1}
    chat_body = {"model": "auto", "messages": [{"role": "user", "content": "red"}]}
    _, _, headers = await running.post("/chat/completions", chat_body)
    chat = {"decision_id": headers["x-coe-decision-id"], "kind": "thumb", "value": 1}
    for body, status, words in (
        (search, 400, "name one of its documents"),
        ({**search, "document_id": "file-x#9"}, 404, "did not show a document 'file-x#9'"),
        ({**search, "document_id": "file-x#9", "kind": "retry", "value": None}, 400, "says nothing of a document"),
        ({**chat, "document_id": "file-x#9"}, 400, "the decision of a search"),
    ):
        got, answer, _ = await running.post("/feedback", body)
        assert got == status, answer
        assert words in answer["error"]["message"]
    assert rows(running) == []


def test_a_key_has_a_cap_and_feedback_goes_with_its_decision(tmp_path: Path) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    caps = FeedbackConfig(max_per_hour=2)
    now = time.time()
    said = [
        store.put_feedback(
            DocumentFeedback(decision_id="dec-1", document_id=f"file-a#{i}", value=1.0, at=now - 60, key_id="key-1"),
            caps,
        )
        for i in range(3)
    ]
    assert said == [FeedbackStatus.ACCEPTED, FeedbackStatus.ACCEPTED, FeedbackStatus.OVER_HOUR]
    assert Removal(store).erase({"key-1"}, now).feedback == 2
    store.close()
