"""From clicks to a collection that the training side reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.retrieval.export import export_store
from gateway.store import Store
from router.errors import DataError
from router.types import DecisionRecord, DocumentFeedback
from tests.gateway.retrieval.serving import serving
from training.retrieval.collection import read_collection

TEXTS = {"cats.txt": "The cat purrs.", "tax.txt": "The tax office opens at nine.", "bus.txt": "The bus leaves at ten."}
ASKS = [f"question {number} about the tax office" for number in range(12)]


def say(store: Store, decision_id: str, document_id: str, value: float) -> None:
    store.put_document_feedback(
        DocumentFeedback(decision_id=decision_id, document_id=document_id, value=value, at=1.0, key_id="k")
    )


async def test_clicked_documents_become_judgements_of_their_queries(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
        tax = ""
        for ask in [*ASKS, ASKS[0], "no text kept"]:
            _, answer, headers = await running.search(store_id, ask)
            tax = next(each["document_id"] for each in answer["data"] if each["filename"] == "tax.txt")
            other = next(each["document_id"] for each in answer["data"] if each["filename"] == "cats.txt")
            say(running.store, headers["x-coe-decision-id"], tax, 1.0)
            say(running.store, headers["x-coe-decision-id"], other, 0.0)
        records: list[DecisionRecord] = running.log.records
        running.store.write_decisions([*records[:-1], records[-1].model_copy(update={"text": None})])
        done = export_store(running.store, store_id, tmp_path / "out")
        assert done.documents == 3
        assert done.judgements == sum(done.queries.values()) == 12
        assert done.without_text == 1
        collection = read_collection(tmp_path / "out")
        assert sorted(collection.documents) == sorted(TEXTS.values())
        queries = [text for split in ("train", "dev") for text in collection.split(split).texts]
        assert sorted(queries) == sorted(ASKS)
        assert len(collection.split("train")) > len(collection.split("dev")) > 0
        for grades in collection.split("train").grades:
            assert [collection.document_ids[row] for row in grades] == [tax]
        with pytest.raises(DataError, match="is not empty"):
            export_store(running.store, store_id, tmp_path / "out")


async def test_nothing_to_export_says_why(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
        with pytest.raises(DataError, match=r"no search has feedback .* at log.privacy text only"):
            export_store(running.store, store_id, tmp_path / "out")
