"""A vector store and what people did with its searches, as a collection in BEIR layout: what `coe retrieval train` and
`coe retrieval pilots` read. A document that was opened or cited is relevant to the query that found it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from pydantic import ValidationError
from sqlalchemy import select

from gateway.retrieval.tables import CHUNKS, STORE_FILES, STORES
from gateway.store import Store
from gateway.tables import DECISIONS, DOCUMENT_FEEDBACK
from router.errors import DataError, StoreError
from router.types import RETRIEVAL, DecisionKind, DecisionRecord

DEV_PERCENT = 20
RELEVANT = 0.5
"""Feedback of at least this makes a document relevant."""

PAGE_ROWS = 1000


@dataclass
class Exported:
    """What was written, and how many searches with feedback could not be used."""

    documents: int = 0
    queries: dict[str, int] = field(default_factory=lambda: {"train": 0, "dev": 0})
    judgements: int = 0
    without_text: int = 0
    gone: int = 0


def export_store(store: Store, store_id: str, folder: Path) -> Exported:
    """Writes `corpus.jsonl`, `queries.jsonl` and `qrels/{train,dev}.tsv`. Searches with one text are one query.

    Raises:
        DataError: there is no such store, the folder is not empty, or no search with feedback has its text.
        StoreError: the database cannot be read.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; name a new folder")
    exported = Exported()
    judged = judgements_of(store, store_id, exported)
    if not judged:
        raise DataError(
            f"{store_id}: no search has feedback on a document together with its text ({exported.without_text} have "
            "none: the log keeps texts at log.privacy text only)"
        )
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    known = set()
    with (folder / "corpus.jsonl").open("wb") as file:
        for document_id, text in documents_of(store, store_id):
            file.write(orjson.dumps({"_id": document_id, "title": "", "text": text}) + b"\n")
            known.add(document_id)
    exported.documents = len(known)
    write_judgements(folder, judged, known, exported)
    return exported


def judgements_of(store: Store, store_id: str, exported: Exported) -> dict[str, dict[str, float]]:
    """Query text -> document id -> the best that was said of it."""
    judged: dict[str, dict[str, float]] = {}
    for record, said in judged_searches(store):
        if record.kind is not DecisionKind.SEARCH or not record.retrieval or record.retrieval.store_id != store_id:
            continue
        text = " ".join((record.text or "").split())
        if not text:
            exported.without_text += 1
            continue
        of_query = judged.setdefault(text, {})
        for document_id, value in said.items():
            of_query[document_id] = max(value, of_query.get(document_id, 0.0))
    return judged


def judged_searches(store: Store) -> Iterator[tuple[DecisionRecord, dict[str, float]]]:
    """Retrieval decisions that have feedback, with the mean value per document."""
    with store.transaction("read feedback on documents") as connection:
        columns = (DOCUMENT_FEEDBACK.c.decision_id, DOCUMENT_FEEDBACK.c.document_id, DOCUMENT_FEEDBACK.c.value)
        values: dict[str, dict[str, list[float]]] = {}
        for decision_id, document_id, value in connection.execute(select(*columns)):
            values.setdefault(decision_id, {}).setdefault(document_id, []).append(value)
    last = ""
    while True:
        query = (
            select(DECISIONS.c.decision_id, DECISIONS.c.record)
            .where(DECISIONS.c.category == RETRIEVAL, DECISIONS.c.decision_id > last)
            .order_by(DECISIONS.c.decision_id)
            .limit(PAGE_ROWS)
        )
        with store.transaction("read retrieval decisions") as connection:
            rows = connection.execute(query).all()
        for row in rows:
            if row.decision_id in values:
                said = {name: sum(each) / len(each) for name, each in values[row.decision_id].items()}
                yield parsed(row.decision_id, row.record), said
        if len(rows) < PAGE_ROWS:
            return
        last = rows[-1].decision_id


def parsed(decision_id: str, record: str) -> DecisionRecord:
    try:
        return DecisionRecord.model_validate_json(record)
    except ValidationError as error:
        raise StoreError(f"decision {decision_id} in the database is no decision record") from error


def documents_of(store: Store, store_id: str) -> Iterator[tuple[str, str]]:
    """Id and text of every chunk of a store. Raises DataError when there is no such store."""
    with store.transaction("read a vector store") as connection:
        if connection.execute(select(STORES.c.store_id).where(STORES.c.store_id == store_id)).first() is None:
            raise DataError(f"there is no vector store '{store_id}' in the database")
        files = (
            connection.execute(select(STORE_FILES.c.file_id).where(STORE_FILES.c.store_id == store_id)).scalars().all()
        )
    for file_id in files:
        query = select(CHUNKS.c.position, CHUNKS.c.text).where(
            CHUNKS.c.store_id == store_id, CHUNKS.c.file_id == file_id
        )
        with store.transaction("read chunks") as connection:
            rows = connection.execute(query.order_by(CHUNKS.c.position)).all()
        for row in rows:
            yield f"{file_id}#{row.position}", row.text


def write_judgements(folder: Path, judged: dict[str, dict[str, float]], known: set[str], exported: Exported) -> None:
    """Queries and their relevant documents; those that are not in the store any more are counted."""
    lines: dict[str, list[str]] = {"train": [], "dev": []}
    with (folder / "queries.jsonl").open("wb") as file:
        for text, of_query in sorted(judged.items()):
            exported.gone += sum(document_id not in known for document_id in of_query)
            relevant = sorted(each for each, value in of_query.items() if value >= RELEVANT and each in known)
            if not relevant:
                continue
            digest = hashlib.sha256(text.lower().encode()).hexdigest()
            split = "dev" if int(digest, 16) % 100 < DEV_PERCENT else "train"
            file.write(orjson.dumps({"_id": f"q-{digest[:16]}", "text": text}) + b"\n")
            lines[split] += [f"q-{digest[:16]}\t{each}\t1" for each in relevant]
            exported.queries[split] += 1
            exported.judgements += len(relevant)
    for split, rows in lines.items():
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
