"""Retrieval collections in BEIR's layout: `corpus.jsonl[.gz]`, `queries.jsonl[.gz]` and `qrels/<split>.tsv`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from coe.base.errors import DataError, allowed_values
from coe.base.record_files import OptionalText, Record, Row, Text, numbered, open_text, read_records

SPLITS = ("train", "dev", "test")
COLUMNS = ("query-id", "corpus-id", "score")
"""Columns of judgements, in the order of their header."""


class DocumentRow(Row):
    id: Text = Field(validation_alias="_id")
    title: OptionalText = ""
    text: OptionalText = ""


class QueryRow(Row):
    id: Text = Field(validation_alias="_id")
    text: Text


class JudgementRow(Row):
    query: Text = Field(validation_alias="query-id")
    document: Text = Field(validation_alias="corpus-id")
    score: int = 1


Judgements = Mapping[str, Mapping[str, int]]
"""Grades by query id and document id."""


@dataclass(frozen=True)
class Queries:
    """n judged queries of one split. `grades[i]`, never empty, maps document rows to grades above 0 for query i."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    grades: tuple[dict[int, int], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: list[int]) -> Queries:
        return Queries(
            tuple(self.ids[row] for row in rows),
            tuple(self.texts[row] for row in rows),
            tuple(self.grades[row] for row in rows),
        )


NO_QUERIES = Queries((), (), ())


@dataclass(frozen=True)
class Collection:
    """Documents in file order, and queries by split; `skipped` counts unusable judgements and queries."""

    name: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    splits: Mapping[str, Queries]
    skipped: int = 0

    def split(self, name: str) -> Queries:
        return self.splits.get(name, NO_QUERIES)


def document_text(title: str, text: str) -> str:
    """Return the text of a document that is encoded; the collections' reference scores join it with the title so."""
    return f"{title}. {text}" if title.strip() else text


def find_collections(folder: Path) -> list[Path]:
    """Return the folder itself if it is a collection, else its sub-folders that are.

    Raises:
        DataError: there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; expected a collection in BEIR layout, or a folder of them")
    if is_collection(folder):
        return [folder]
    found = sorted(sub for sub in folder.iterdir() if sub.is_dir() and is_collection(sub))
    if not found:
        raise DataError(
            f"{folder}: holds no collection; expected corpus.jsonl (or .jsonl.gz) beside queries and qrels, there or "
            "in its sub-folders"
        )
    return found


def is_collection(folder: Path) -> bool:
    return any((folder / f"corpus{ending}").is_file() for ending in (".jsonl", ".jsonl.gz"))


def rows_of_part(folder: Path, part: str) -> Iterator[Record]:
    """Yield the rows of `part`; raise DataError, with file and row, if one is invalid or there is none."""
    files = [folder / f"{part}{ending}" for ending in (".jsonl", ".jsonl.gz")]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise DataError(f"{folder}: has no {part}; expected {part}.jsonl or .jsonl.gz")
    return read_records(found)


def read_collection(folder: Path) -> Collection:
    """Load a collection.

    Raises:
        DataError: a part is missing, a row lacks an id or a text, an id is repeated, or no query has a relevant
            document;
            with file and row.
    """
    documents: dict[str, str] = {}
    for record in rows_of_part(folder, "corpus"):
        document = record.read(DocumentRow)
        add_once(documents, record, "document", document.id, document_text(document.title, document.text))
    texts: dict[str, str] = {}
    for record in rows_of_part(folder, "queries"):
        query = record.read(QueryRow)
        add_once(texts, record, "query", query.id, query.text)
    splits, skipped = {}, 0
    rows_of = {name: number for number, name in enumerate(documents)}
    for split, judgements in read_judgements(folder).items():
        splits[split], lost = judged_queries(judgements, texts, rows_of)
        skipped += lost
    if not any(len(queries) for queries in splits.values()):
        raise DataError(f"{folder}: no judgement names a query and a document of this collection")
    return Collection(folder.name, tuple(documents), tuple(documents.values()), splits, skipped)


def add_once(known: dict[str, str], record: Record, kind: str, name: str, text: str) -> None:
    if name in known:
        raise DataError(f"{record.place}: {kind} '{name[:60]}' appears twice")
    known[name] = text


def read_judgements(folder: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return the grades by split.

    Raises:
        DataError: there is no file of judgements, or a grade is not a number.
    """
    files = sorted((folder / "qrels").glob("*.tsv"))
    if not files:
        raise DataError(f"{folder}: has no judgements; expected qrels/train.tsv, dev.tsv or test.tsv")
    judgements: dict[str, dict[str, dict[str, int]]] = {}
    for file in files:
        if file.stem not in SPLITS:
            raise DataError(f"{file}: names no split{allowed_values(file.stem, SPLITS)}")
        grades = judgements.setdefault(file.stem, {})
        rows = numbered(file, judgement_lines, may_be_empty=True)  # a split without a judgement has a head alone
        for row in (record.read(JudgementRow) for record in rows):
            grades.setdefault(row.query, {})[row.document] = row.score
    return judgements


def judged_queries(judgements: Judgements, texts: Mapping[str, str], rows_of: Mapping[str, int]) -> tuple[Queries, int]:
    """Return the queries with a relevant document, and the number of skipped judgements and queries."""
    ids, grades, skipped = [], [], 0
    for query, judged in judgements.items():
        known = {rows_of[name]: grade for name, grade in judged.items() if name in rows_of and grade > 0}
        skipped += sum(name not in rows_of for name in judged)
        if query in texts and known:
            ids.append(query)
            grades.append(known)
        else:
            skipped += 1
    return Queries(tuple(ids), tuple(texts[name] for name in ids), tuple(grades)), skipped


def judgement_lines(path: Path) -> Iterator[Mapping[str, str] | None]:
    """Yield tab-separated judgements; None for the header and for a blank row."""
    with open_text(path) as stream:
        for number, raw in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)):
            cells = [cell.strip() for cell in raw]
            if any(cells) and len(cells) != len(COLUMNS):
                raise csv.Error(f"has {len(cells)} columns; expected {len(COLUMNS)}: {', '.join(COLUMNS)}")
            yield dict(zip(COLUMNS, cells, strict=True)) if number and any(cells) else None
