from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from coe.base.errors import DataError
from coe.retrieval.training.collection import document_text, find_collections, read_collection
from tests.retrieval.training.collection_files import write_beir, write_lines

DOCUMENTS: list[dict[str, object]] = [
    {"_id": "a", "title": "Ships", "text": "sail"},
    {"_id": "b", "title": "", "text": "Trees grow"},
]
QUERIES: list[dict[str, object]] = [{"_id": "q1", "text": "ships?"}, {"_id": "q2", "text": "trees?"}]


def write_parts(folder: Path, qrels: str = "query-id\tcorpus-id\tscore\nq1\ta\t2\nq1\tb\t0\nq2\tb\t1\n") -> Path:
    (folder / "qrels").mkdir(parents=True)
    write_lines(folder / "corpus.jsonl", DOCUMENTS)
    write_lines(folder / "queries.jsonl", QUERIES)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_beir_plain_and_compressed(tmp_path: Path) -> None:
    plain = read_collection(write_beir(tmp_path / "plain"))
    packed = read_collection(write_beir(tmp_path / "packed", compressed=True))
    assert plain.documents == packed.documents
    assert plain.documents[1] == "Orchard. Report 1 on the old orchard of d."
    assert {name: len(queries) for name, queries in packed.splits.items()} == {"train": 8, "dev": 8, "test": 8}
    assert packed.split("test").grades[3] == {3: 1}
    assert [folder.name for folder in find_collections(tmp_path)] == ["packed", "plain"]
    assert find_collections(tmp_path / "plain") == [tmp_path / "plain"]


def test_titles_are_joined_and_grades_of_0_dropped(tmp_path: Path) -> None:
    found = read_collection(write_parts(tmp_path / "c"))
    assert found.documents == ("Ships. sail", "Trees grow")
    assert found.split("test").grades == ({0: 2}, {1: 1})
    assert document_text("  ", "x") == "x"


def test_half_characters_are_replaced(tmp_path: Path) -> None:
    """JSON can name them, and no encoder takes them."""
    folder = write_beir(tmp_path / "c")
    lines = (folder / "corpus.jsonl").read_text().replace("Report 0", "Report \\ud83d 0")
    (folder / "corpus.jsonl").write_text(lines)
    assert "Report \ufffd 0" in read_collection(folder).documents[0]


def test_judgements_of_strangers_are_left_out_and_counted(tmp_path: Path) -> None:
    judged = "query-id\tcorpus-id\tscore\nq1\ta\t1\nq1\tgone\t1\nnobody\ta\t1\nq2\tb\t0\n"
    found = read_collection(write_parts(tmp_path / "c", judged))
    assert found.split("test").ids == ("q1",)
    assert found.skipped == 3  # a document, a query, and q2, which has nothing relevant


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("query-id\tcorpus-id\tscore\nq1\ta\n", r"test.tsv: row 2: cannot be read, .*has 2 columns; expected 3"),
        ("query-id\tcorpus-id\tscore\nq1\ta\thigh\n", r"row 2, field 'score': must be a whole number; got 'high'"),
        ("query-id\tcorpus-id\tscore\nq1\ta\t0.5\n", r"must be a whole number; got '0.5'"),
        ("query-id\tcorpus-id\tscore\nq9\ta\t1\n", r"no judgement names a query and a document"),
    ],
)
def test_broken_judgements_name_file_and_row(tmp_path: Path, qrels: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_collection(write_parts(tmp_path / "c", qrels))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', "row 2: document 'a' appears twice"),
        ("corpus.jsonl", '{"text": "x"}\n', "row 1, field '_id': is missing"),
        ("corpus.jsonl", '{"_id": "a", "text": ["x"]}\n', "field 'text': must be text; got a list"),
        ("queries.jsonl", '{"_id": "q1", "text": " "}\n', "row 1, field 'text': must not be blank"),
        ("queries.jsonl", '{"_id": "q1", "te', "row 1: is not JSON"),
        ("queries.jsonl", "[1]\n", "expected an object; got a list"),
    ],
)
def test_broken_rows_name_file_and_row(tmp_path: Path, file: str, content: str, message: str) -> None:
    folder = write_parts(tmp_path / "c")
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=message):
        read_collection(folder)


def test_missing_parts_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        find_collections(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no collection"):
        find_collections(tmp_path)
    folder = write_parts(tmp_path / "c")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match="has no queries"):
        read_collection(folder)
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "q1", "text": "x"}\n')[:-9])
    with pytest.raises(DataError, match=r"queries\.jsonl\.gz: cannot be read, or only half of it"):
        read_collection(folder)
    (folder / "queries.jsonl.gz").unlink()
    (folder / "queries.jsonl").write_bytes(b'{"_id": "q1", "text": "\xff"}\n')
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_collection(folder)


def test_a_file_of_no_split_is_named(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "c")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "tset.tsv")
    with pytest.raises(DataError, match="names no split; did you mean 'test'"):
        read_collection(folder)
