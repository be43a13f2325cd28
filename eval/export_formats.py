"""Formats that `coe outcomes export` writes. The file name is the registry: `exporters/csv.py` is `--format csv`.

Each exporter module has three public names: `SUMMARY` (one line), `NEEDS` (the fields of `ExportRequest` it reads
beside `out`) and `write(request)`, which gives the number of rows written.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from router.errors import ConfigError, DataError, allowed_values
from router.out_option import require_file
from router.plugins import kinds
from router.types import FloatArray
from training.types import OutcomeTable

FAMILY = "eval.exporters"


@dataclass(frozen=True)
class ExportRequest:
    """What to write where.

    Args:
        outcomes: folder of an outcome table.
        router: folder of a router trained on an outcome table.
        prompts: file of prompts to decide.
        names: our expert -> the name it has there.
    """

    out: Path
    outcomes: Path | None = None
    router: Path | None = None
    prompts: Path | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exporter:
    """One format."""

    name: str
    summary: str
    needs: frozenset[str]
    write: Callable[[ExportRequest], int]


def export_formats() -> tuple[str, ...]:
    """Names of all formats, sorted."""
    return kinds(FAMILY)


def load_exporter(name: str) -> Exporter:
    """Raises ConfigError on an unknown format, with the formats there are."""
    if name not in export_formats():
        raise ConfigError(f"--format: unknown format '{name}'{allowed_values(name, export_formats())}")
    module = importlib.import_module(f"{FAMILY}.{name}")
    return Exporter(name, module.SUMMARY, frozenset(module.NEEDS), module.write)


def export(exporter: Exporter, request: ExportRequest) -> int:
    """Writes a file; gives the number of rows.

    Raises:
        ConfigError: something that the format needs was not given, or something else was; `out` cannot be written.
        DataError, ArtifactError: what was given is malformed.
    """
    for name, option in (("outcomes", "outcomes"), ("router", "router"), ("prompts", "prompts"), ("names", "name")):
        if name in exporter.needs and name != "names" and not getattr(request, name):
            raise ConfigError(f"--{option}: format '{exporter.name}' needs it")
        if name not in exporter.needs and getattr(request, name):
            raise ConfigError(f"--{option}: format '{exporter.name}' does not read it")
    require_file(request.out)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    return exporter.write(request)


def read_table(request: ExportRequest) -> OutcomeTable:
    """The outcome table, also prompts that some expert has no score on. Raises DataError."""
    from training.datasets.outcomes import read_outcomes

    if request.outcomes is None:
        raise ConfigError("--outcomes: is needed")
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
