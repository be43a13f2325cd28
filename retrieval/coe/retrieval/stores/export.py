"""Vector stores and what people did with their searches, as collections in BEIR layout: what `coe retrieval train`,
`coe retrieval pilots` and `coe retrain` read. A document that was opened or cited is relevant to the query that found
it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import select

from coe.base.errors import DataError
from coe.base.json_text import to_json
from coe.base.visible_text import echo
from coe.cli.options import DataOption, JsonOption, SinceOption
from coe.decision_log.connections import opened_database
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionKind, DecisionRecord
from coe.decision_log.read import read_judged_searches
from coe.retrieval.stores.chunk_table import ChunkTable
from coe.retrieval.stores.tables import CHUNKS, STORE_FILES, TABLES

DEV_PERCENT = 20
RELEVANT = 0.5
"""Feedback of at least this makes a document relevant."""


@dataclass
class Judged:
    """Feedback on the documents that searches of one store showed.

    `said`: text of a query -> document id -> the best that was said of it. Texts that differ in case and spaces alone
    are one query, under the one that came first. `without_text` counts searches whose text the log does not keep.
    """

    said: dict[str, dict[str, float]] = field(default_factory=dict)
    without_text: int = 0
    _first: dict[str, str] = field(default_factory=dict)

    def add(self, record: DecisionRecord, values: dict[str, float]) -> None:
        text = " ".join((record.text or "").split())
        if not text:
            self.without_text += 1
            return
        of_query = self.said.setdefault(self._first.setdefault(text.lower(), text), {})
        for document_id, value in values.items():
            of_query[document_id] = max(value, of_query.get(document_id, 0.0))


@dataclass
class Exported:
    """Counts of what was written of one store; zero where no query is left.

    `without_text` counts searches, `gone` judgements of documents that are no longer in the store, `without_relevant`
    queries for which no document was useful.
    """

    documents: int = 0
    queries: dict[str, int] = field(default_factory=lambda: {"train": 0, "dev": 0})
    judgements: int = 0
    without_text: int = 0
    gone: int = 0
    without_relevant: int = 0

    @property
    def left_out(self) -> Counter[str]:
        """Counts above zero of what was not written, by reason."""
        return +Counter(
            {
                "searches whose text was not kept: log.privacy is not text": self.without_text,
                "judgements of documents that are no longer in their store": self.gone,
                "queries for which no document was useful": self.without_relevant,
            }
        )


def export_all(
    database: Database, folder: Path, since: float = 0.0, unheard: Collection[str] = ()
) -> dict[str, Exported]:
    """Every store whose searches have feedback, by id; each with usable feedback as a folder of that name.

    Args:
        since: Unix seconds; older searches are not read.
        unheard: ids of keys whose feedback counts for nothing.

    Raises:
        DataError: the folder is not empty. StoreError: the database cannot be read.
    """
    require_new(folder)
    database.make_tables(TABLES)
    found = sorted(judged_stores(database, since, unheard).items())
    return {store_id: write_collection(database, store_id, judged, folder / store_id) for store_id, judged in found}


def require_new(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; name a new folder")


def judged_stores(database: Database, since: float, unheard: Collection[str] = ()) -> dict[str, Judged]:
    """Feedback on searches by the store that was searched."""
    stores: dict[str, Judged] = {}
    with database.transaction("read searches with feedback") as connection:
        for record, values in read_judged_searches(connection, since, unheard):
            if record.kind is DecisionKind.SEARCH and record.retrieval and record.retrieval.store_id:
                stores.setdefault(record.retrieval.store_id, Judged()).add(record, values)
    return stores


def write_collection(database: Database, store_id: str, judged: Judged, folder: Path) -> Exported:
    """Writes one store; nothing where no query is left."""
    exported = Exported(without_text=judged.without_text)
    files = files_of(database, store_id)
    relevant = relevant_documents(judged, document_ids(database, store_id, files), exported)
    if not relevant:
        return exported
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("wb") as file:
        for file_id in files:
            for position, text in enumerate(ChunkTable(database).texts_of_file(store_id, file_id)):
                file.write(to_json({"_id": f"{file_id}#{position}", "title": "", "text": text}) + b"\n")
                exported.documents += 1
    write_judgements(folder, relevant, exported)
    return exported


def files_of(database: Database, store_id: str) -> list[str]:
    """Ids of the files of a store; none where it is gone."""
    query = select(STORE_FILES.c.file_id).where(STORE_FILES.c.store_id == store_id).order_by(STORE_FILES.c.file_id)
    return [row.file_id for row in database.rows("read a vector store", query)]


def document_ids(database: Database, store_id: str, files: list[str]) -> set[str]:
    """Ids of the chunks of those files."""
    query = select(CHUNKS.c.file_id, CHUNKS.c.position).where(CHUNKS.c.store_id == store_id)
    kept = set(files)
    return {f"{row.file_id}#{row.position}" for row in database.rows("read chunks", query) if row.file_id in kept}


def relevant_documents(judged: Judged, known: set[str], exported: Exported) -> dict[str, list[str]]:
    """Text of a query -> its relevant documents, without those that are no longer in the store, which are counted."""
    found: dict[str, list[str]] = {}
    for text, said in sorted(judged.said.items()):
        exported.gone += sum(document_id not in known for document_id in said)
        relevant = sorted(each for each, value in said.items() if value >= RELEVANT and each in known)
        if relevant:
            found[text] = relevant
        else:
            exported.without_relevant += 1
    return found


def write_judgements(folder: Path, relevant: dict[str, list[str]], exported: Exported) -> None:
    """Queries and their relevant documents; a query stays in its split, whatever is asked beside it."""
    lines: dict[str, list[str]] = {"train": [], "dev": []}
    with (folder / "queries.jsonl").open("wb") as file:
        for text, documents in relevant.items():
            digest = hashlib.sha256(text.lower().encode()).hexdigest()
            split = "dev" if int(digest, 16) % 100 < DEV_PERCENT else "train"
            file.write(to_json({"_id": f"q-{digest[:16]}", "text": text}) + b"\n")
            lines[split] += [f"q-{digest[:16]}\t{each}\t1" for each in documents]
            exported.queries[split] += 1
            exported.judgements += len(documents)
    for split, rows in lines.items():
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")


def export(
    out: Annotated[Path, typer.Option(help="new folder, in which each store gets one of its id")],
    since: SinceOption = 0.0,
    as_json: JsonOption = False,
    data_dir: DataOption = Path("data"),
) -> int:
    """Write every store with usable feedback on its searches as a collection for `retrieval train` and `pilots`."""
    from coe.cli.progress import working

    with working("reading stores and feedback ..."), opened_database(data_dir) as database:
        done = export_all(database, out, since)
    if as_json:
        echo(json.dumps({"stores": {name: asdict(each) for name, each in done.items()}}))
    else:
        print_exported(done, out)
    return 0


def print_exported(done: dict[str, Exported], out: Path) -> None:
    """A line for each store that was written, and for what was left out."""
    from coe.cli.terminal import Terminal

    console = Terminal(soft_wrap=True)
    if not any(exported.documents for exported in done.values()):
        console.print("no store has usable feedback on the documents of its searches; nothing was written")
    for store_id, exported in done.items():
        if exported.documents:
            queries = ", ".join(f"{count} {split}" for split, count in exported.queries.items())
            found = f"{exported.judgements} relevant documents"
            console.print(f"{out / store_id}: {exported.documents} documents, queries: {queries}, {found}")
        if exported.left_out:
            reasons = "; ".join(f"{count} {reason}" for reason, count in exported.left_out.items())
            console.print(f"{store_id}: left out: {reasons}")
