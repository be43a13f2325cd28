"""Small collections on disk: documents about two subjects, questions that name their document."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

SUBJECTS = ("harbour", "orchard", "glacier", "violin", "castle", "lantern", "turbine", "meadow")


def write_beir(
    folder: Path, prefix: str = "d", *, compressed: bool = False, splits: tuple[str, ...] = ("train", "dev", "test")
) -> Path:
    """16 documents; in each split 8 queries, each with one relevant document of grade 1."""
    folder.mkdir(parents=True)
    documents = [
        {
            "_id": f"{prefix}{i}",
            "title": SUBJECTS[i % 8].title(),
            "text": f"Report {i} on the old {SUBJECTS[i % 8]} of {prefix}.",
        }
        for i in range(16)
    ]
    queries = [
        {"_id": f"{split}-{i}", "text": f"{split} question {i} about the {SUBJECTS[i]} report {i} of {prefix}"}
        for split in splits
        for i in range(8)
    ]
    write_lines(folder / "corpus.jsonl", documents, compressed)
    write_lines(folder / "queries.jsonl", queries, compressed)
    (folder / "qrels").mkdir()
    for split in splits:
        lines = ["query-id\tcorpus-id\tscore", *(f"{split}-{i}\t{prefix}{i}\t1" for i in range(8))]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_lines(file: Path, rows: list[dict[str, object]], compressed: bool = False) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if compressed:
        with gzip.open(f"{file}.gz", "wt", encoding="utf-8") as stream:
            stream.write(text)
    else:
        file.write_text(text, encoding="utf-8")
