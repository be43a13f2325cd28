"""Small files in the shape that each tool writes, all saying the same: two prompts, two models, four scores."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.datasets.import_formats import ImportOptions

Records = list[dict[str, Any]]

MATHS, BOOKS = "What is 2 + 2?", "Who wrote “Faust”?\nOne name."
TEXTS = {"q1": MATHS, "q2": BOOKS}
CATEGORIES = {"q1": "math", "q2": "books"}
SCORES = {("q1", "large"): 1.0, ("q1", "small"): 0.5, ("q2", "large"): 1.0, ("q2", "small"): 0.0}


@dataclass(frozen=True)
class Shape:
    """A format as files of records. `score` leads to the score of a record, `required` to what none may lack."""

    format: str
    files: dict[str, Records]
    dump: Callable[[Path, Records], None]
    score: str
    required: tuple[str, ...]
    options: ImportOptions = field(default_factory=ImportOptions)

    @property
    def name(self) -> str:
        return f"{self.format}{Path(next(iter(self.files))).suffix}"

    def write(self, folder: Path, change: Callable[[Records], object] = lambda records: None) -> list[str]:
        """Writes the files, the first one changed; gives their names for a command line."""
        for i, (name, records) in enumerate(self.files.items()):
            kept = copy.deepcopy(records)
            if i == 0:
                change(kept)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self.dump(path, kept)
        return [str(folder / name) for name in self.files]


def put(record: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        record = record[name]
    record[last] = value


def drop(record: dict[str, Any], path: str) -> None:
    *parents, last = path.split(".")
    for name in parents:
        record = record[name]
    del record[last]


def dump_jsonl(path: Path, records: Records) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def columns_of(records: Records) -> list[str]:
    """The names that all records have: a CSV or Parquet file lacks a column in every row or in none."""
    return [name for name in records[0] if all(name in record for record in records)]


def dump_csv(path: Path, records: Records) -> None:
    names = list(dict.fromkeys(name for record in records for name in record))
    names = [name for name in names if name in columns_of(records)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)


def dump_parquet(path: Path, records: Records) -> None:
    columns: dict[str, list[Any]] = {}
    for name in columns_of(records):
        values = [record[name] for record in records]
        is_mixed = len({type(value) for value in values if value is not None}) > 1
        columns[name] = [str(value) for value in values] if is_mixed else values
    pq.write_table(pa.table(columns), path)


def flat() -> Records:
    return [
        {
            "prompt_id": prompt,
            "prompt": TEXTS[prompt],
            "category": CATEGORIES[prompt],
            "model": model,
            "score": score,
            "metric": "exact",
            "output_tokens": 12,
            "cost_usd": 0.25,
            "latency_ms": 150.0,
        }
        for (prompt, model), score in SCORES.items()
    ]


def routerbench() -> Records:
    return [
        {
            "sample_id": prompt,
            "prompt": repr([TEXTS[prompt]]),
            "eval_name": CATEGORIES[prompt],
            "large": SCORES[prompt, "large"],
            "small": SCORES[prompt, "small"],
            "large|model_response": "['4']",
            "small|model_response": "['five']",
            "large|total_cost": 0.002,
            "small|total_cost": 0.0001,
            "oracle_model_to_route_to": "large",
        }
        for prompt in TEXTS
    ]


def lm_eval(model: str) -> Records:
    return [
        {
            "doc_id": i,
            "doc": {"question": TEXTS[prompt], "subject": CATEGORIES[prompt], "answer": "4"},
            "target": "4",
            "arguments": {"gen_args_0": {"arg_0": TEXTS[prompt], "arg_1": {"until": ["\n\n"]}}},
            "resps": [["it is 4"]],
            "filtered_resps": ["4"],
            "filter": "strict-match",
            "metrics": ["exact_match"],
            "doc_hash": f"hash of {prompt}",
            "prompt_hash": "p",
            "target_hash": "t",
            "exact_match": SCORES[prompt, model],
        }
        for i, prompt in enumerate(TEXTS)
    ]


FLAT_REQUIRED = ("prompt", "category", "model", "score")
SUBJECT = ImportOptions(category_field="subject")
SHAPES = (
    Shape("flat", {"scores.jsonl": flat()}, dump_jsonl, "score", FLAT_REQUIRED),
    Shape("flat", {"scores.csv": flat()}, dump_csv, "score", FLAT_REQUIRED),
    Shape(
        "routerbench", {"frame.csv": routerbench()}, dump_csv, "small", ("sample_id", "prompt", "eval_name", "small")
    ),
    Shape(
        "routerbench",
        {"frame.parquet": routerbench()},
        dump_parquet,
        "small",
        ("sample_id", "prompt", "eval_name", "small"),
    ),
    Shape(
        "lm_eval",
        {f"{model}/samples_quiz_2026-01-02T03-04-05.678901.jsonl": lm_eval(model) for model in ("small", "large")},
        dump_jsonl,
        "exact_match",
        ("doc_id", "arguments", "exact_match", "doc.subject", "metrics"),
        SUBJECT,
    ),
)
