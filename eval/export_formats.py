"""Formats that `coe outcomes export` writes. The file name is the registry: `exporters/csv.py` is `--format csv`.

Each exporter module has one public function, `write(request)`, which gives the number of rows written.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router.errors import ConfigError, DataError, allowed_values
from router.options import require_file
from router.plugins import kinds
from router.types import FloatArray
from training.types import OutcomeTable

FAMILY = "eval.exporters"


@dataclass(frozen=True)
class ExportRequest:
    """The outcome table in the folder `outcomes`, to be written as the file `out`."""

    out: Path
    outcomes: Path


def export_formats() -> tuple[str, ...]:
    """Names of all formats, sorted."""
    return kinds(FAMILY)


def export(format_name: str, request: ExportRequest) -> int:
    """Writes a file; gives the number of rows.

    Raises:
        ConfigError: unknown format, or `out` cannot be written.
        DataError: the table is malformed, or the format cannot hold it.
    """
    if format_name not in export_formats():
        raise ConfigError(f"--format: unknown format '{format_name}'{allowed_values(format_name, export_formats())}")
    require_file(request.out)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    return int(importlib.import_module(f"{FAMILY}.{format_name}").write(request))


def read_table(request: ExportRequest) -> OutcomeTable:
    """The outcome table, also prompts that some expert has no score on. Raises DataError."""
    from training.datasets.outcomes import read_outcomes

    return read_outcomes(request.outcomes, keep_partial=True)


def scored_pairs(table: OutcomeTable) -> Iterator[tuple[int, int]]:
    """Prompt and expert of every score, by prompt."""
    for prompt, expert in np.argwhere(np.isfinite(table.scores)):
        yield int(prompt), int(expert)


def cell(values: FloatArray, prompt: int, expert: int) -> float | None:
    """A number of a table; None where it is unknown."""
    value = float(values[prompt, expert])
    return None if np.isnan(value) else value


def refuse_names(out: Path, names: Iterable[str], taken: Iterable[str]) -> None:
    """Raises DataError when an expert is called like another column of the file."""
    for name in set(names) & set(taken):
        raise DataError(f"{out}: expert '{name}' is called like a column of this format; rename it")
