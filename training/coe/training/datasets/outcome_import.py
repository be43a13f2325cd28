"""`coe outcomes import`: rows of a score each, in files of other tools, become an outcome table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from pydantic import Field, field_validator

from coe.base.errors import ConfigError, DataError, allowed_values
from coe.base.record_files import ending_of, read_records
from coe.base.visible_text import echo
from coe.cli.options import require_folder, with_options
from coe.cli.progress import working
from coe.router.types import Record
from coe.training.datasets.outcome_rows import LeftOut, OutcomeRow, PromptRow, Reasons, ScoreRow, table_of_rows, told
from coe.training.datasets.outcomes import PROMPTS_FILE, write_outcomes
from coe.training.types import OutcomeTable

ENDINGS: Final = (".csv", ".jsonl", ".parquet")
FIELDS: Final = (
    *("prompt_id", "prompt", "category", "split", "model", "score"),
    *("metric", "output_tokens", "cost_usd", "latency_ms"),
)
"""prompt, category and score are required, and model where no file argument names it."""


class ImportOptions(Record):
    """Choices of a person who imports files of another tool."""

    category: str | None = Field(default=None, pattern=r"\S", description="one category for all prompts")
    metric: str | None = Field(default=None, description="which score, where there are several")
    field: list[str] = Field(
        default=[], description="OURS=THEIRS, another name of a field; dots lead into objects; may be repeated"
    )
    score_range: str | None = Field(
        default=None, description="LOW:HIGH, the lowest and highest possible score; they become 0 and 1"
    )

    @field_validator("field")
    @classmethod
    def _name_fields_of_ours(cls, given: list[str]) -> list[str]:
        for each in given:
            ours, _, theirs = each.partition("=")
            if not ours or not theirs:
                raise ValueError(f"'{each}' is not allowed; expected OURS=THEIRS, such as score=accuracy")
            if ours not in FIELDS:
                raise ValueError(f"unknown name '{ours}'{allowed_values(ours, FIELDS)}")
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
    def names(self) -> dict[str, str]:
        """Our name of a field -> theirs."""
        names = {name: name for name in FIELDS} | dict(each.split("=", 1) for each in self.field)
        return names | {"text": names["prompt"]}


def bounds_of(text: str) -> tuple[float, float]:
    """The numbers of LOW:HIGH. Raises ValueError."""
    low, _, high = text.partition(":")
    return float(low), float(high)


def read_scores(files: Sequence[str], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Contents of files, each `FILE` or `MODEL=FILE`. Raises DataError."""
    names = options.names
    category = {} if options.category is None else {"category": options.category}
    for argument in files:
        named, equals, rest = argument.partition("=")
        is_named = bool(equals) and "/" not in named and not Path(argument).exists()
        path, model = Path(rest if is_named else argument), {"model": named} if is_named else {}
        if ending_of(path) not in ENDINGS:
            raise DataError(f"{path}: ending '{ending_of(path)}' is not allowed; expected {', '.join(ENDINGS)}")
        for record in read_records(path):
            prompt, score = record.read(PromptRow, names, **category), record.read(ScoreRow, names, **model)
            if options.metric not in (None, score.metric):
                yield LeftOut(record.place, f"a score by another metric than '{options.metric}'")
            elif score.score is None:
                yield LeftOut(record.place, "no score")
            else:
                yield OutcomeRow(record, prompt, score, names["score"])


@with_options
def import_outcomes(
    files: Annotated[
        list[str], typer.Argument(help=f"files ({', '.join(ENDINGS)}), or MODEL=FILE to name the model of a file")
    ],
    out: Annotated[Path, typer.Option(help="folder of the new outcome table")],
    *,
    options: ImportOptions,
) -> None:
    """Make an outcome table of another tool's files: a row for each score."""
    require_folder(out)
    if (out / PROMPTS_FILE).exists():
        raise ConfigError(f"--out {out}: there is an outcome table already; name another folder, or remove it")
    with working("reading files ..."):
        bounds = None if options.score_range is None else bounds_of(options.score_range)
        table, left_out = table_of_rows(read_scores(files, options), out.resolve().name, bounds)
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
