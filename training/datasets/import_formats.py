"""Formats of other tools that become outcome tables. The file name is the registry: `importers/lm_eval.py` is
`--format lm_eval`.

Each importer module has three public names: `OPTIONS` (the fields of `ImportOptions` that it reads beside
the categories' and the score range), `PATTERNS` (which files of a folder are its own) and `read(files, options)`, which
yields what the files hold, row by row, and raises DataError with file, row and field.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from base.errors import ConfigError, DataError, allowed_values
from router.plugins import kinds
from router.types import Record
from training.datasets.outcome_rows import LeftOutCounts, Rows, table_of_rows
from training.types import OutcomeTable

FAMILY = "training.datasets.importers"


@dataclass(frozen=True, slots=True)
class ImportFile:
    """A file to read. `model` names the model where the file itself does not, or names it otherwise."""

    path: Path
    model: str | None = None


class ImportOptions(Record):
    """Choices of a person who imports files of another tool. None: as the format has it.

    `fields` maps our names to theirs, for the generic formats; `score_range` holds the lowest and the highest possible
    score, which become 0 and 1.
    """

    category_field: str | None = Field(
        default=None, description="field with the category of a prompt; dots lead into objects"
    )
    category: str | None = Field(default=None, description="one category for all prompts")
    text_field: str | None = Field(default=None, description="field of the bare question (lm_eval)")
    metric: str | None = Field(default=None, description="which score, where there are several")
    filter: str | None = Field(default=None, description="which extraction of an answer (lm_eval)")
    fields: Mapping[str, str] = {}
    score_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Importer:
    """One format."""

    name: str
    options: frozenset[str]
    patterns: tuple[str, ...]
    read: Callable[[Sequence[ImportFile], ImportOptions], Rows]


@dataclass(frozen=True)
class Imported:
    """A table and what is not in it."""

    table: OutcomeTable
    left_out: LeftOutCounts


def import_formats() -> tuple[str, ...]:
    """Names of all formats, sorted."""
    return kinds(FAMILY)


def load_importer(name: str) -> Importer:
    """The importer of a format.

    Raises:
        ConfigError: no such format, with the formats there are.
    """
    if name not in import_formats():
        raise ConfigError(f"--format: unknown format '{name}'{allowed_values(name, import_formats())}")
    module = importlib.import_module(f"{FAMILY}.{name}")
    return Importer(name, frozenset(module.OPTIONS), tuple(module.PATTERNS), module.read)


def read_outcomes_of(importer: Importer, files: Sequence[ImportFile], options: ImportOptions, source: str) -> Imported:
    """An outcome table of another tool's files. `source` names it.

    Raises:
        ConfigError: an option that the format does not read.
        DataError: a malformed file, with row and field.
    """
    some = ("text_field", "metric", "filter", "fields", "score_range")  # others are for every format
    unread = [name for name in some if getattr(options, name) and name not in importer.options]
    if unread:
        option = "--" + unread[0].replace("_", "-").replace("fields", "field")
        raise ConfigError(f"{option}: format '{importer.name}' does not read it")
    if options.score_range and not options.score_range[0] < options.score_range[1]:
        low, high = options.score_range
        raise ConfigError(f"--score-range: {low:g}:{high:g} is not allowed; the first must be below the second")
    table, left_out = table_of_rows(importer.read(files, options), source, options.score_range)
    return Imported(table, left_out)


def find_files(importer: Importer, arguments: Sequence[str]) -> tuple[ImportFile, ...]:
    """The files that a command line names: a file, `model=file`, or a folder of files.

    Raises:
        DataError: there is no such file, or none of the format in a folder.
    """
    found: list[ImportFile] = []
    for argument in arguments:
        name, equals, rest = argument.partition("=")
        is_named = bool(equals) and "/" not in name and not Path(argument).exists()
        path = Path(rest if is_named else argument)
        paths = [path]
        if path.is_dir():
            paths = sorted({file for pattern in importer.patterns for file in path.rglob(pattern)})
            if not paths:
                raise DataError(f"{path}: holds no file named {' or '.join(importer.patterns)}")
        elif not path.is_file():
            raise DataError(f"{path}: no such file or folder")
        found += [ImportFile(file, name if is_named else None) for file in paths]
    return tuple(found)
