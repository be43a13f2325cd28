"""Retrieval collections: documents, queries and judgements, as BEIR and MTEB lay them out.

BEIR: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`. MTEB: the same as JSON lines or Parquet, judgements as
`qrels/<split>.jsonl`, or folders `corpus/`, `queries/` and `qrels/` (also `default/`, `data/`) of
`<split>-00000-of-00001.parquet`. Every file may be compressed (.gz).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from base.errors import DataError, allowed_values
from base.record_files import Record, json_lines, parquet_rows, tab_rows

SPLITS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
"""Name of a split in a file's name -> ours."""

QREL_FOLDERS = ("qrels", "default", "data")
SUFFIX = re.compile(r"\.(jsonl|tsv|parquet)(\.gz)?$")
IDS = {
    "document": ("_id", "id", "corpus-id", "corpus_id", "docid"),
    "query": ("_id", "id", "query-id", "query_id", "qid"),
    "judged query": ("query-id", "query_id", "qid"),
    "judged document": ("corpus-id", "corpus_id", "docid", "doc_id"),
}
"""Names of an id in the known layouts; the first that a row has counts."""

TREC_COLUMNS: Mapping[int, tuple[str, ...]] = {
    3: ("query-id", "corpus-id", "score"),
    4: ("query-id", "iteration", "corpus-id", "score"),
}
"""Columns of judgements without a header, by how many there are."""

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
    for row in read_rows(document_files):
        add_once(documents, row, "document", document_text(row.optional_text("title"), row.optional_text("text")))
    texts: dict[str, str] = {}
    for row in read_rows(query_files):
        add_once(texts, row, "query", row.text("text"))
    splits, skipped = {}, 0
    rows_of = {name: number for number, name in enumerate(documents)}
    for split, judgements in read_judgements(folder).items():
        splits[split], lost = judged_queries(judgements, texts, rows_of)
        skipped += lost
    if not any(len(queries) for queries in splits.values()):
        raise DataError(f"{folder}: no judgement names a query and a document of this collection")
    return Collection(folder.name, tuple(documents), tuple(documents.values()), splits, skipped)


def add_once(known: dict[str, str], row: Record, kind: str, text: str) -> None:
    name = row.first_text(IDS[kind])
    if name in known:
        raise DataError(f"{row.place}: {kind} '{name[:60]}' appears twice")
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
        for row in read_rows([file]):
            query, document = row.first_text(IDS["judged query"]), row.first_text(IDS["judged document"])
            grades.setdefault(query, {})[document] = row.whole_number("score", default=1)
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
    """Rows of files in order, by each one's suffix. Raises DataError with file and row."""
    for file in files:
        name = file.name.removesuffix(".gz")
        if name.endswith(".parquet"):
            yield from parquet_rows(file)
        elif name.endswith(".tsv"):
            yield from tab_rows(file, IDS["judged query"], TREC_COLUMNS)
        else:
            yield from json_lines(file)
