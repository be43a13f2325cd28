"""Every outcome table of a data folder as one: first probes, those of new experts, imported tables.

Shapes: n prompts, m experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coe.base.errors import DataError
from coe.base.record_files import read_records
from coe.training.datasets.outcomes import PROMPTS_FILE, SCORES_FILE, ModelName, read_outcomes
from coe.training.types import COLUMNS, NOT_COMPARED, OutcomeTable, unknown


def read_outcome_folders(root: Path, experts: Sequence[str]) -> OutcomeTable:
    """Reads what was graded of some experts, in their order; ungraded ones are left out.

    The same question of the same category, scored by the same metric, is one prompt, whichever table it is in. An
    expert that was graded on it twice has the score of the table that was written later.

    Args:
        root: a folder with an outcome table, or with folders of them.

    Raises:
        DataError: there is no table, none grades any of the experts, or one that does cannot be read.
    """
    folders = outcome_folders(root)
    if not folders:
        raise DataError(
            f"{root}: holds no outcome table ({PROMPTS_FILE} and {SCORES_FILE}, there or in its folders); "
            "run `coe eval collect`"
        )
    graded = {folder: graded_models(folder) for folder in folders}
    known = [folder for folder in folders if graded[folder] & set(experts)]
    if not known:
        names = sorted(set().union(*graded.values()))
        raise DataError(
            f"{root}: no expert of experts.yaml was graded there (graded: {', '.join(names)}; "
            f"experts.yaml: {', '.join(experts)}); run `coe eval collect`"
        )
    tables = [
        read_outcomes(folder, experts=[name for name in experts if name in graded[folder]], keep_partial=True)
        for folder in known
    ]
    return tables[0] if len(tables) == 1 else merged(tables, experts)


def outcome_folders(root: Path) -> tuple[Path, ...]:
    """The folders with an outcome table, the one that was written last at the end."""
    below = root.iterdir() if root.is_dir() else ()
    places = [root] if is_table(root) else sorted(path for path in below if path.is_dir() and is_table(path))
    return tuple(sorted(places, key=written_at))


def is_table(folder: Path) -> bool:
    """One of the files is enough: half a table is an error to tell of, and a folder of answers only is not one yet."""
    return (folder / PROMPTS_FILE).exists() or (folder / SCORES_FILE).exists()


def written_at(folder: Path) -> float:
    """Unix seconds; 0 for half a table."""
    path = folder / SCORES_FILE
    return path.stat().st_mtime if path.exists() else 0.0


def graded_models(folder: Path) -> set[str]:
    """The models that a table grades. Raises DataError."""
    return {record.read(ModelName).model for record in read_records(folder / SCORES_FILE)}


def graded_at(root: Path) -> dict[str, float]:
    """Unix time at which the newest grades of each model were written. Raises DataError."""
    return {name: written_at(folder) for folder in outcome_folders(root) for name in graded_models(folder)}


def merged(tables: Sequence[OutcomeTable], experts: Sequence[str]) -> OutcomeTable:
    """One table of several, the later ones over the earlier ones. A score comes with the cost, length and latency of
    its own answer; numbers of answers are of the last table that has some of the prompt, for those of two tables cannot
    be compared."""
    names = tuple(name for name in experts if any(name in table.experts for table in tables))
    numbers: dict[tuple[str, str, str], int] = {}
    asked = [[(table.metric, *pair) for pair in zip(table.categories, table.texts, strict=True)] for table in tables]
    rows = [np.array([numbers.setdefault(each, len(numbers)) for each in own], dtype=np.int64) for own in asked]
    shape, matrices = (len(numbers), len(names)), dict[str, Any]()
    for table, row in zip(tables, rows, strict=True):
        columns = np.array([names.index(name) for name in table.experts])
        prompt, expert = np.nonzero(np.isfinite(table.scores))
        for kind in (matrices.keys() | table.matrices) - {"answers"}:
            values = table.matrices.get(kind, unknown(kind, table.scores.shape))
            matrix = matrices.setdefault(kind, unknown(kind, shape))
            matrix[row[prompt], columns[expert]] = values[prompt, expert]
        if table.answers is not None:
            answers = matrices.setdefault("answers", unknown("answers", shape))
            answers[row] = NOT_COMPARED
            answers[row[:, None], columns] = table.answers
    _, first = np.unique(np.concatenate(rows), return_index=True)
    texts_of = {name: [text for table in tables for text in getattr(table, name)] for name in COLUMNS}
    kept: dict[str, Any] = {name: tuple(values[i] for i in first) for name, values in texts_of.items()}
    return OutcomeTable(
        **kept | {"prompt_ids": distinct(kept["prompt_ids"])},
        **matrices,
        experts=names,
        metric=" + ".join(sorted({table.metric for table in tables})),
        source=" + ".join(sorted({table.source for table in tables})),
        active_params_b={name: size for table in tables for name, size in table.active_params_b.items()},
        is_cost_estimated=any(table.is_cost_estimated for table in tables),
    )


def distinct(ids: Iterable[str]) -> tuple[str, ...]:
    """The ids, made unique: one that came before gets a number."""
    seen: dict[str, int] = {}
    found = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(found)
