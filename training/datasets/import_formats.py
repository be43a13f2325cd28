"""`coe outcomes import`: files of other tools become outcome tables. The file name is the registry:
`importers/lm_eval.py` is `--format lm_eval`.

Each importer module has three public names: `OPTIONS` (the fields of `ImportOptions` that it reads beside
the categories' and the score range), `PATTERNS` (which files of a folder are its own) and `read(files, options)`, which
yields what the files hold, row by row, and raises DataError with file, row and field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import typer
from pydantic import Field, field_validator

from base.errors import ConfigError, DataError, allowed_values
from base.options import require_folder, with_options
from base.progress import working
from base.visible_text import echo
from router.plugins import kinds, load
from router.types import Record
from training.datasets.outcome_rows import Reasons, table_of_rows, told
from training.datasets.outcomes import PROMPTS_FILE, write_outcomes
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
    def same_category(self) -> dict[str, str]:
        """The field `category` of all prompts, where one was named for all."""
        return {} if self.category is None else {"category": self.category}

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest possible score."""
        return None if self.score_range is None else bounds_of(self.score_range)


def bounds_of(text: str) -> tuple[float, float]:
    """The numbers of LOW:HIGH. Raises ValueError."""
    low, _, high = text.partition(":")
    return float(low), float(high)


def import_formats() -> tuple[str, ...]:
    """Names of all formats, sorted."""
    return kinds(FAMILY)


def load_importer(name: str) -> ModuleType:
    """The module of a format.

    Raises:
        ConfigError: no such format, with the formats there are.
    """
    if name not in import_formats():
        raise ConfigError(f"--format: unknown format '{name}'{allowed_values(name, import_formats())}")
    return load(FAMILY, name)


def read_outcomes_of(
    importer: ModuleType, files: Sequence[ImportFile], options: ImportOptions, source: str
) -> tuple[OutcomeTable, Reasons]:
    """An outcome table of another tool's rows, and why others are not in it. `source` names it.

    Raises:
        ConfigError: an option that the format does not read.
        DataError: a malformed file, with row and field.
    """
    some = ("text_field", "metric", "filter", "field", "score_range")  # others are for every format
    unread = [name for name in some if getattr(options, name) and name not in importer.OPTIONS]
    if unread:
        name = importer.__name__.rpartition(".")[2]
        raise ConfigError(f"--{unread[0].replace('_', '-')}: format '{name}' does not read it")
    return table_of_rows(importer.read(files, options), source, options.bounds)


def find_files(importer: ModuleType, arguments: Sequence[str]) -> tuple[ImportFile, ...]:
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
            paths = sorted({file for pattern in importer.PATTERNS for file in path.rglob(pattern)})
            if not paths:
                raise DataError(f"{path}: holds no file named {' or '.join(importer.PATTERNS)}")
        elif not path.is_file():
            raise DataError(f"{path}: no such file or folder")
        found += [ImportFile(file, name if is_named else None) for file in paths]
    return tuple(found)


@with_options
def import_outcomes(
    files: Annotated[
        list[str], typer.Argument(help="files, folders of files, or MODEL=FILE to name the model of a file")
    ],
    format_name: Annotated[str, typer.Option("--format", help=f"format of the files: {', '.join(import_formats())}")],
    out: Annotated[Path, typer.Option(help="folder of the new outcome table")],
    source: Annotated[str | None, typer.Option(help="name of the table; default: that of the folder")] = None,
    *,
    options: ImportOptions,
) -> None:
    """Make an outcome table of another tool's files."""
    importer = load_importer(format_name)
    require_folder(out)
    if (out / PROMPTS_FILE).exists():
        raise ConfigError(f"--out {out}: there is an outcome table already; name another folder, or remove it")
    if options.category is not None and options.category_field is not None:
        raise ConfigError("give either --category-field or --category")
    with working("reading files ..."):
        table, left_out = read_outcomes_of(importer, find_files(importer, files), options, source or out.resolve().name)
        write_outcomes(table, out)
    for line in (*summary(table, left_out), f"wrote {out}"):
        echo(line)


def summary(table: OutcomeTable, left_out: Reasons) -> list[str]:
    """Lines for a person about what was read and what was not."""
    known = np.isfinite(table.scores)
    experts = list(enumerate(table.experts))
    n_incomplete = int((~known.all(axis=1)).sum())
    lines = [
        f"{known.sum()} scores by {table.metric}: {len(table.prompt_ids)} prompts in "
        f"{len(set(table.categories))} categories, {len(table.experts)} models",
        *(f"  {name}: mean {np.nanmean(table.scores[:, e]):.3f} of {known[:, e].sum()}" for e, name in experts),
        *told(left_out),
    ]
    if n_incomplete:
        lines.append(f"{n_incomplete} prompts lack a score of some model; comparisons of all models leave these out")
    return lines
