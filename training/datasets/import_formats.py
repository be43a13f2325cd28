"""Formats of other tools that become outcome tables. The file name is the registry: `importers/lm_eval.py` is
`--format lm_eval`.

Each importer module has three public names: `OPTIONS` (the fields of `ImportOptions` that it reads beside
the categories' and the score range), `PATTERNS` (which files of a folder are its own) and `read(files, options)`, which
yields what the files hold, row by row, and raises DataError with file, row and field.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

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
    """Choices of a person who imports files of another tool. None: as the format has it."""

    category_field: str | None = Field(
        default=None, description="field with the category of a prompt; dots lead into objects"
    )
    category: str | None = Field(default=None, pattern=r"\S", description="one category for all prompts")
    text_field: str | None = Field(default=None, description="field of the bare question (lm_eval)")
    metric: str | None = Field(default=None, description="which score, where there are several")
    filter: str | None = Field(default=None, description="which extraction of an answer (lm_eval)")
    field: list[str] = Field(default=[], description="OURS=THEIRS, the name of a column (flat); may be repeated")
    score_range: str | None = Field(
        default=None, description="LOW:HIGH, the lowest and highest possible score; they become 0 and 1"
    )

    @field_validator("field")
    @classmethod
    def _are_pairs(cls, given: list[str]) -> list[str]:
        for each in given:
            if not all(each.partition("=")):
                raise ValueError(f"'{each}' is not allowed; expected OURS=THEIRS, such as score=accuracy")
        return given

    @field_validator("score_range")
    @classmethod
    def _is_range(cls, given: str | None) -> str | None:
        if given is None:
            return None
        with suppress(ValueError):
            low, high = bounds_of(given)
            if -math.inf < low < high < math.inf:
                return given
        raise ValueError("expected LOW:HIGH, the first below the second, such as 0:10")

    @property
    def fields(self) -> dict[str, str]:
        """Our name -> theirs, for the flat format."""
        return {ours: theirs for ours, _, theirs in (each.partition("=") for each in self.field)}

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest possible score."""
        return None if self.score_range is None else bounds_of(self.score_range)


def bounds_of(text: str) -> tuple[float, float]:
    """The numbers of LOW:HIGH. Raises ValueError."""
    low, _, high = text.partition(":")
    return float(low), float(high)


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
    some = ("text_field", "metric", "filter", "field", "score_range")  # others are for every format
    unread = [name for name in some if getattr(options, name) and name not in importer.options]
    if unread:
        raise ConfigError(f"--{unread[0].replace('_', '-')}: format '{importer.name}' does not read it")
    table, left_out = table_of_rows(importer.read(files, options), source, options.bounds)
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
