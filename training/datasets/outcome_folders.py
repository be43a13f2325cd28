"""Every outcome table of a data folder as one: first probes, those of new experts, imported tables.

Shapes: n prompts, m experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from base.columns import read_table, texts
from base.errors import DataError
from router.types import FloatArray, IntArray
from training.datasets.outcome_files import PROMPTS_FILE, SCORES_FILE
from training.datasets.outcomes import read_outcomes
from training.types import NOT_COMPARED, OutcomeTable, unknown

Place = tuple[int, int]
"""Number of a table and of a prompt in it."""


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
    path = folder / SCORES_FILE
    return set(texts(path, read_table(path, ("model",)), "model"))


def graded_at(root: Path) -> dict[str, float]:
    """Unix time at which the newest grades of each model were written. Raises DataError."""
    return {name: written_at(folder) for folder in outcome_folders(root) for name in graded_models(folder)}


def merged(tables: Sequence[OutcomeTable], experts: Sequence[str]) -> OutcomeTable:
    """One table of several, the later ones over the earlier ones."""
    names = tuple(name for name in experts if any(name in table.experts for table in tables))
    rows: dict[tuple[str, str, str], int] = {}
    first: list[Place] = []
    for number, table in enumerate(tables):
        for i, asked in enumerate(zip(table.categories, table.texts, strict=True)):
            if rows.setdefault((table.metric, *asked), len(rows)) == len(first):
                first.append((number, i))
    return OutcomeTable(
        prompt_ids=distinct(tables[number].prompt_ids[i] for number, i in first),
        texts=tuple(tables[number].texts[i] for number, i in first),
        categories=tuple(tables[number].categories[i] for number, i in first),
        splits=tuple(tables[number].splits[i] for number, i in first),
        experts=names,
        **merged_matrices(tables, rows, names),
        metric=" + ".join(sorted({table.metric for table in tables})),
        source=" + ".join(sorted({table.source for table in tables})),
        active_params_b={name: size for table in tables for name, size in table.active_params_b.items()},
        is_cost_estimated=any(table.is_cost_estimated for table in tables),
        answers=merged_answers(tables, rows, names),
    )


def merged_matrices(
    tables: Sequence[OutcomeTable], rows: Mapping[tuple[str, str, str], int], names: tuple[str, ...]
) -> dict[str, FloatArray]:
    """The matrices (n, m). A score comes with the cost, length and latency of its own answer."""
    kinds = {name for table in tables for name in table.matrices} - {"answers"}
    matrices = {name: unknown(name, (len(rows), len(names))) for name in kinds}
    for table in tables:
        row = np.array([rows[(table.metric, *asked)] for asked in zip(table.categories, table.texts, strict=True)])
        for column, name in enumerate(table.experts):
            has_score = np.isfinite(table.scores[:, column])
            for kind, matrix in matrices.items():
                values = getattr(table, kind)
                own = np.nan if values is None else values[has_score, column]
                matrix[row[has_score], names.index(name)] = own
    return matrices


def merged_answers(
    tables: Sequence[OutcomeTable], rows: Mapping[tuple[str, str, str], int], names: tuple[str, ...]
) -> IntArray | None:
    """(n, m) numbers of answers; None where no table has any. Those of a prompt in several tables are of the last one
    that has them, for numbers of two tables cannot be compared."""
    if all(table.answers is None for table in tables):
        return None
    merged = unknown("answers", (len(rows), len(names)))
    for table in tables:
        if table.answers is not None:
            row = np.array([rows[(table.metric, *asked)] for asked in zip(table.categories, table.texts, strict=True)])
            merged[row] = NOT_COMPARED
            columns = np.array([names.index(name) for name in table.experts])
            merged[row[:, None], columns] = table.answers
    return merged


def distinct(ids: Iterable[str]) -> tuple[str, ...]:
    """The ids, made unique: one that came before gets a number."""
    seen: dict[str, int] = {}
    found = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(found)
