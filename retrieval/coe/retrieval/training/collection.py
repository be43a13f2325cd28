"""Retrieval collections: documents, queries and judgements, as BEIR and MTEB lay them out.

BEIR: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`. MTEB: the same as JSON lines or Parquet, judgements as
`qrels/<split>.jsonl`, or folders `corpus/`, `queries/` and `qrels/` (also `default/`, `data/`) of
`<split>-00000-of-00001.parquet`. Every file may be compressed (.gz).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import AliasChoices, Field

from coe.base.errors import DataError, allowed_values
from coe.base.record_files import OptionalText, Record, Row, Text, ending_of, numbered, open_text, read_records

SPLITS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
"""Name of a split in a file's name -> ours."""

QREL_FOLDERS = ("qrels", "default", "data")
SUFFIX = re.compile(r"\.(jsonl|tsv|parquet)(\.gz)?$")
DOCUMENT_IDS = ("_id", "id", "corpus-id", "corpus_id", "docid")
QUERY_IDS = ("_id", "id", "query-id", "query_id", "qid")
JUDGED_QUERIES, JUDGED_DOCUMENTS = ("query-id", "query_id", "qid"), ("corpus-id", "corpus_id", "docid", "doc_id")
"""Names of an id in the known layouts; the first that a row has counts."""

TREC_COLUMNS: Mapping[int, tuple[str, ...]] = {
    3: ("query-id", "corpus-id", "score"),
    4: ("query-id", "iteration", "corpus-id", "score"),
}
"""Columns of judgements without a header, by how many there are."""


class DocumentRow(Row):
    id: Text = Field(validation_alias=AliasChoices(*DOCUMENT_IDS))
    title: OptionalText = ""
    text: OptionalText = ""


class QueryRow(Row):
    id: Text = Field(validation_alias=AliasChoices(*QUERY_IDS))
    text: Text


class JudgementRow(Row):
    query: Text = Field(validation_alias=AliasChoices(*JUDGED_QUERIES))
    document: Text = Field(validation_alias=AliasChoices(*JUDGED_DOCUMENTS))
    score: int = 1


Judgements = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> grade."""


@dataclass(frozen=True)
class Queries:
    """n judged queries of one split. `grades[i]` has rows of documents -> grade above 0 of query i; never empty."""

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
    """Documents in file order with their queries by split. `skipped` counts judgements of unknown documents or queries,
    and queries without a relevant document."""

    name: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    splits: Mapping[str, Queries]
    skipped: int = 0

    def split(self, name: str) -> Queries:
        return self.splits.get(name, NO_QUERIES)


def document_text(title: str, text: str) -> str:
    """The text of a document that is encoded; the reference scores of the collections join the two like this."""
    return f"{title}. {text}" if title.strip() else text


def find_collections(folder: Path) -> list[Path]:
    """The folder itself when it is a collection, otherwise its sub-folders that are.

    Raises:
        DataError: there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; expected a collection in BEIR or MTEB layout, or a folder of them")
    if is_collection(folder):
        return [folder]
    found = sorted(sub for sub in folder.iterdir() if sub.is_dir() and is_collection(sub))
    if not found:
        raise DataError(
            f"{folder}: holds no collection; expected corpus.jsonl (or .jsonl.gz, .parquet, corpus/) beside queries "
            "and qrels, there or in its sub-folders"
        )
    return found


def is_collection(folder: Path) -> bool:
    return bool(files_of(folder, "corpus"))


def files_of(folder: Path, name: str) -> list[Path]:
    """The files of one part: `name.<suffix>`, or all in the folder `name/`."""
    if not folder.is_dir():
        return []
    beside = [file for file in folder.iterdir() if file.is_file() and SUFFIX.sub("", file.name) == name]
    inside = (folder / name).iterdir() if (folder / name).is_dir() else ()
    found = [file for file in (*beside, *inside) if file.is_file() and SUFFIX.search(file.name)]
    return sorted(found)


def read_collection(folder: Path) -> Collection:
    """Reads a collection.

    Raises:
        DataError: with file and row; a part is missing, a row lacks an id or a text, an id appears twice, or no query
            has a relevant document.
    """
    document_files, query_files = files_of(folder, "corpus"), files_of(folder, "queries")
    for part, files in (("corpus", document_files), ("queries", query_files)):
        if not files:
            raise DataError(f"{folder}: has no {part}; expected {part}.jsonl, .jsonl.gz, .parquet or a folder {part}/")
    documents: dict[str, str] = {}
    for record in read_rows(document_files):
        document = record.read(DocumentRow)
        add_once(documents, record, "document", document.id, document_text(document.title, document.text))
    texts: dict[str, str] = {}
    for record in read_rows(query_files):
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
    """Grades by split. Raises DataError when there is no file of judgements, or a grade is not a number."""
    files = list(judgement_files(folder))
    if not files:
        raise DataError(
            f"{folder}: has no judgements; expected qrels/train.tsv, dev.tsv or test.tsv (or .jsonl, .parquet)"
        )
    judgements: dict[str, dict[str, dict[str, int]]] = {}
    for split, file in files:
        grades = judgements.setdefault(split, {})
        for row in (record.read(JudgementRow) for record in read_rows([file])):
            grades.setdefault(row.query, {})[row.document] = row.score
    return judgements


def judgement_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Split and file. A file without a split in its name holds test judgements."""
    places = [file for name in QREL_FOLDERS for file in files_of(folder, name)]
    for file in dict.fromkeys(places):
        stem = SUFFIX.sub("", file.name)
        word = re.split(r"[-_.]", stem)[0].lower()
        if stem in QREL_FOLDERS:
            yield "test", file
        elif word in SPLITS:
            yield SPLITS[word], file
        else:
            raise DataError(f"{file}: names no split{allowed_values(word, SPLITS)}")


def judged_queries(judgements: Judgements, texts: Mapping[str, str], rows_of: Mapping[str, int]) -> tuple[Queries, int]:
    """The queries with a relevant document, and how many judgements and queries were left out."""
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


def read_rows(files: Iterable[Path]) -> Iterator[Record]:
    """Rows of files in order, by each one's ending. Raises DataError with file and row."""
    for file in files:
        is_table = ending_of(file) == ".tsv"  # which may have a head alone: a split without a judgement
        yield from numbered(file, judgement_lines, may_be_empty=True) if is_table else read_records(file)


def judgement_lines(path: Path) -> Iterator[Mapping[str, str] | None]:
    """Tab-separated judgements, with a first row that names the columns or without; None for a blank line."""
    header: Sequence[str] | None = None
    with open_text(path) as stream:
        for raw in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            cells = [cell.strip() for cell in raw]
            if header is None and cells and cells[0].lower() in JUDGED_QUERIES:
                header = [cell.lower() for cell in cells]
                yield None
                continue
            header = header or TREC_COLUMNS[4 if len(cells) == 4 else 3]
            if any(cells) and len(cells) != len(header):
                raise csv.Error(f"has {len(cells)} columns; expected {len(header)}: {', '.join(header)}")
            yield dict(zip(header, cells, strict=True)) if any(cells) else None
