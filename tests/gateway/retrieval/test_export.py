"""From clicks to a collection that the training side reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from coe.base.errors import DataError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.feedback_types import DocumentFeedback
from coe.retrieval.stores.export import GONE, USELESS, WITHOUT_TEXT, export, export_all
from coe.retrieval.training.collection import find_collections, read_collection
from tests.gateway.retrieval.serving import Serving

TEXTS = {"cats.txt": "The cat purrs.", "tax.txt": "The tax office opens at nine.", "bus.txt": "The bus leaves at ten."}
ASKS = [f"question {number} about the tax office" for number in range(12)]


def say(store: Database, decision_id: str, document_id: str, value: float) -> None:
    store.put_feedback(
        DocumentFeedback(decision_id=decision_id, document_id=document_id, value=value, at=1.0, key_id="k")
    )


async def click(running: Serving, store_id: str, ask: str, filename: str, value: float = 1.0) -> None:
    """A search, and what its user did with the document of that file."""
    _, answer, headers = await running.search(store_id, ask)
    document = next(each["document_id"] for each in answer["data"] if each["filename"] == filename)
    say(running.store, headers["x-coe-decision-id"], document, value)


def keep(running: Serving) -> None:
    """Writes the log to the database."""
    running.store.write_decisions(running.log.records)


async def test_clicked_documents_become_judgements_of_their_queries(running: Serving, tmp_path: Path) -> None:
    store_id = await running.store_of(TEXTS)
    running.log.store = None  # its rows are written below
    tax = ""
    for ask in [*ASKS, ASKS[0], "no text kept"]:
        _, answer, headers = await running.search(store_id, ask)
        tax = next(each["document_id"] for each in answer["data"] if each["filename"] == "tax.txt")
        other = next(each["document_id"] for each in answer["data"] if each["filename"] == "cats.txt")
        say(running.store, headers["x-coe-decision-id"], tax, 1.0)
        say(running.store, headers["x-coe-decision-id"], other, 0.0)
    records: list[DecisionRecord] = running.log.records
    running.store.write_decisions([*records[:-1], records[-1].model_copy(update={"text": None})])
    done = export_all(running.store, tmp_path / "out")[store_id]
    assert done.documents == 3
    assert done.queries.total() == 12
    assert done.left_out == {WITHOUT_TEXT: 1}
    collection = read_collection(tmp_path / "out" / store_id)
    assert sorted(collection.documents) == sorted(TEXTS.values())
    queries = [text for split in ("train", "dev") for text in collection.split(split).texts]
    assert sorted(queries) == sorted(ASKS)
    assert len(collection.split("train")) > len(collection.split("dev")) > 0
    for grades in collection.split("train").grades:
        assert [collection.document_ids[row] for row in grades] == [tax]
    with pytest.raises(DataError, match="is not empty"):
        export_all(running.store, tmp_path / "out")


async def test_texts_that_differ_in_case_are_one_query(running: Serving, tmp_path: Path) -> None:
    store_id = await running.store_of(TEXTS)
    for ask in ("Tax office", "tax  OFFICE"):
        await click(running, store_id, ask, "tax.txt")
    keep(running)
    export_all(running.store, tmp_path / "out")
    collection = read_collection(tmp_path / "out" / store_id)
    assert sum(len(collection.split(split)) for split in ("train", "dev")) == 1


async def test_all_stores_with_feedback_that_can_be_used_are_folders_of_their_ids(
    running: Serving, tmp_path: Path
) -> None:
    first, second, silent, disliked, gone = [await running.store_of(TEXTS) for _ in range(5)]
    for ask in ASKS:
        await click(running, first, ask, "tax.txt")
    await click(running, second, "when does the bus leave", "bus.txt")
    await running.search(silent, "anything")
    await click(running, disliked, "dogs", "cats.txt", 0.0)
    await click(running, gone, "cat", "cats.txt")
    async with running.http.delete(f"{running.url}/vector_stores/{gone}") as response:
        assert response.status == 200
    keep(running)
    done = export_all(running.store, tmp_path / "out")
    assert sorted(folder.name for folder in (tmp_path / "out").iterdir()) == sorted([first, second])
    assert sum(done[first].queries.values()) == 12
    assert sum(done[second].queries.values()) == 1
    assert (done[disliked].left_out, done[gone].left_out) == ({USELESS: 1}, {GONE: 1, USELESS: 1})
    assert silent not in done
    assert len(find_collections(tmp_path / "out")) == 2
    newest = max(record.at for record in running.log.records)
    assert export_all(running.store, tmp_path / "later", newest + 1) == {}
    assert export_all(running.store, tmp_path / "unheard", unheard={"k"}) == {}


async def test_the_command_writes_every_store(
    running: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_id = await running.store_of(TEXTS)
    assert export(tmp_path / "out", data_dir=tmp_path) == 0
    assert "no store has usable feedback" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    await click(running, store_id, "tax", "tax.txt")
    keep(running)
    assert export(tmp_path / "one", data_dir=tmp_path) == 0
    assert f"{tmp_path / 'one' / store_id}: 3 documents" in capsys.readouterr().out
    assert export(tmp_path / "late", since=3e10, data_dir=tmp_path) == 0
    assert not (tmp_path / "late").exists()
