"""Vector stores and the feedback on their searches as collections in BEIR layout.

`coe retrieval train`, `coe retrieval pilots` and `coe retrain` read them. A document that was opened or cited is
relevant to the query that found it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import select
from sqlmodel import col

from coe.base.errors import DataError
from coe.base.json_text import to_json
from coe.cli.options import DataOption, SinceOption
from coe.decision_log.connections import opened_database
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionKind, DecisionRecord
from coe.decision_log.read import read_judged_searches
from coe.decision_log.tables.files import ChunkRow, StoreFileRow
from coe.retrieval.stores.chunk_table import ChunkTable

DEV_PERCENT = 20
RELEVANT = 0.5
"""Feedback value, in [0, 1], from which a document is relevant."""

WITHOUT_TEXT = "searches whose text was not kept: log.privacy is not text"
GONE = "judgements of documents that are no longer in their store"
USELESS = "queries for which no document was useful"


@dataclass
class Exported:
    """Feedback on the documents that searches of one store showed, and counts of the export.

    `said` maps a query's text to its documents and their best feedback. Texts that differ only in case and spaces are
    one query, under the first text. `queries` are by split and `left_out` by reason; `documents` is 0 if no query is
    left.
    """

    said: dict[str, dict[str, float]] = field(default_factory=dict)
    documents: int = 0
    queries: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    _first: dict[str, str] = field(default_factory=dict)

    def add(self, record: DecisionRecord, values: dict[str, float]) -> None:
        text = " ".join((record.text or "").split())
        if not text:
            self.left_out[WITHOUT_TEXT] += 1
            return
        of_query = self.said.setdefault(self._first.setdefault(text.lower(), text), {})
        for document_id, value in values.items():
            of_query[document_id] = max(value, of_query.get(document_id, 0.0))


def export_all(
    database: Database, folder: Path, since: float = 0.0, unheard: Collection[str] = ()
) -> dict[str, Exported]:
    """Export every store whose searches have usable feedback, each into a folder of its id; return the counts by id.

    Args:
        since: Unix seconds; older searches are not read.
        unheard: ids of keys whose feedback is ignored.

    Raises:
        DataError: the folder is not empty.
        StoreError: the database cannot be read.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; name a new folder")
    stores: dict[str, Exported] = {}
    with database.transaction("read searches with feedback") as connection:
        for record, values in read_judged_searches(connection, since, unheard):
            if record.kind is DecisionKind.SEARCH and record.retrieval and record.retrieval.store_id:
                stores.setdefault(record.retrieval.store_id, Exported()).add(record, values)
    for store_id, exported in stores.items():
        write_collection(database, store_id, exported, folder / store_id)
    return dict(sorted(stores.items()))


def write_collection(database: Database, store_id: str, exported: Exported, folder: Path) -> None:
    """Write one store; nothing if no query is left."""
    files = files_of(database, store_id)
    relevant = relevant_documents(exported, document_ids(database, store_id, files))
    if not relevant:
        return
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("wb") as file:
        for file_id in files:
            for position, text in enumerate(ChunkTable(database).texts_of_file(store_id, file_id)):
                file.write(to_json({"_id": f"{file_id}#{position}", "title": "", "text": text}) + b"\n")
                exported.documents += 1
    write_judgements(folder, relevant, exported)


def files_of(database: Database, store_id: str) -> list[str]:
    """Return the ids of a store's files; none if it is gone."""
    query = (
        select(col(StoreFileRow.file_id))
        .where(col(StoreFileRow.store_id) == store_id)
        .order_by(col(StoreFileRow.file_id))
    )
    return [row.file_id for row in database.rows("read a vector store", query)]


def document_ids(database: Database, store_id: str, files: list[str]) -> set[str]:
    """Return the ids of the chunks of those files."""
    query = select(col(ChunkRow.file_id), col(ChunkRow.position)).where(col(ChunkRow.store_id) == store_id)
    kept = set(files)
    return {f"{row.file_id}#{row.position}" for row in database.rows("read chunks", query) if row.file_id in kept}


def relevant_documents(exported: Exported, known: set[str]) -> dict[str, list[str]]:
    """Return the relevant documents by query text, and count those that are no longer in the store."""
    found: dict[str, list[str]] = {}
    for text, said in sorted(exported.said.items()):
        relevant = sorted(each for each, value in said.items() if value >= RELEVANT and each in known)
        if relevant:
            found[text] = relevant
        exported.left_out += Counter({GONE: len(said.keys() - known), USELESS: int(not relevant)})
    return found


def write_judgements(folder: Path, relevant: dict[str, list[str]], exported: Exported) -> None:
    """Write queries and their relevant documents; the split depends only on the query's text."""
    lines: dict[str, list[str]] = {"train": [], "dev": []}
    with (folder / "queries.jsonl").open("wb") as file:
        for text, documents in relevant.items():
            digest = hashlib.sha256(text.lower().encode()).hexdigest()
            split = "dev" if int(digest, 16) % 100 < DEV_PERCENT else "train"
            file.write(to_json({"_id": f"q-{digest[:16]}", "text": text}) + b"\n")
            lines[split] += [f"q-{digest[:16]}\t{each}\t1" for each in documents]
            exported.queries[split] += 1
    for split, rows in lines.items():
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")


def export(
    out: Annotated[Path, typer.Option(help="new folder, in which each store gets one of its id")],
    since: SinceOption = 0.0,
    data_dir: DataOption = Path("data"),
) -> int:
    """Write every store with usable feedback on its searches as a collection for `retrieval train` and `pilots`."""
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal

    with working("reading stores and feedback ..."), opened_database(data_dir) as database:
        done = export_all(database, out, since)
    console = Terminal(soft_wrap=True)
    if not any(exported.documents for exported in done.values()):
        console.print("no store has usable feedback on the documents of its searches; nothing was written")
    for store_id, exported in done.items():
        if exported.documents:
            queries = ", ".join(f"{exported.queries[split]} {split}" for split in ("train", "dev"))
            console.print(f"{out / store_id}: {exported.documents} documents, queries: {queries}")
        if exported.left_out:
            reasons = "; ".join(f"{count} {reason}" for reason, count in exported.left_out.items())
            console.print(f"{store_id}: left out: {reasons}")
    return 0
