"""The command `coe outcomes import`: converts other tools' files, a row for each score, to an outcome table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from pydantic import Field, field_validator

from coe.base.errors import ConfigError, DataError, allowed_values
from coe.base.record_files import Record as FileRecord
from coe.base.record_files import ending_of, read_records
from coe.base.visible_text import echo
from coe.cli.options import require_folder, with_options
from coe.cli.progress import working
from coe.router.types import Record
from coe.training.datasets.outcome_rows import PROMPTS_FILE, PromptRow, Scored, ScoreRow, table_of, write_outcomes
from coe.training.types import OutcomeTable

ENDINGS: Final = (".csv", ".jsonl", ".parquet")
FIELDS: Final = (
    *("prompt_id", "prompt", "category", "split", "model", "score"),
    *("metric", "output_tokens", "cost_usd", "latency_ms"),
)
"""Names of fields. prompt, category and score are required, and model if no file argument names it."""


UNIT_RANGE = (0.0, 1.0)
ROUNDING = 1e-6
"""Share of the range by which a score may leave it: scores of 1 / 3 were rounded."""


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """The contents of a row of a file. `score_field` is the file's name for the score."""

    record: FileRecord
    prompt: PromptRow
    score: ScoreRow
    score_field: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of a file that is not in the table, and the reason."""

    place: str
    reason: str


Reasons = Mapping[str, tuple[int, str]]
"""The reasons to leave rows out, each with their number and the first place."""


def describe_reasons(left_out: Reasons) -> list[str]:
    """Describe each reason in one line."""
    return [f"left out: {n} x {reason} (first: {first})" for reason, (n, first) in left_out.items()]


def table_of_rows(
    rows: Iterable[OutcomeRow | LeftOut], source: str, score_range: tuple[float, float] | None
) -> tuple[OutcomeTable, Reasons]:
    """Build an outcome table with the prompts in the order of the rows and the models sorted. Return also why rows are
    left out.

    Args:
        score_range: lowest and highest possible score, which become 0 and 1; None: scores are in [0, 1] already.

    Raises:
        DataError: a score is out of range, a pair is scored twice, rows of a prompt differ, or no row has a score.
    """
    prompts: dict[str, tuple[str, PromptRow]] = {}
    scores: list[Scored] = []
    left_out: dict[str, tuple[int, str]] = {}  # not the rows: a metric or filter may leave out nearly all of a file
    for row in rows:
        if isinstance(row, LeftOut):
            n, first = left_out.get(row.reason, (0, row.place))
            left_out[row.reason] = n + 1, first
            continue
        place, prompt = row.record.place, row.prompt
        score = scale_score(row, score_range or UNIT_RANGE)
        prompt_id = prompt.prompt_id or hashlib.sha256(json.dumps([prompt.text]).encode()).hexdigest()[:16]
        first_place, known = prompts.setdefault(prompt_id, (place, prompt))
        for name in ("text", "category", "split"):
            if getattr(known, name) != getattr(prompt, name):
                raise DataError(f"{place}: prompt '{prompt_id}' has another {name} than at {first_place}")
        scores.append((place, row.score.model_copy(update={"score": score, "prompt_id": prompt_id})))
    if not prompts:
        raise DataError("; ".join([f"{source}: no score was found", *describe_reasons(left_out)]))
    return table_of({name: prompt for name, (_, prompt) in prompts.items()}, scores, source), left_out


def scale_score(row: OutcomeRow, score_range: tuple[float, float]) -> float:
    """Return the score scaled to [0, 1]; raise DataError if it is out of range."""
    (low, high), score = score_range, row.score.score or 0.0
    slack = ROUNDING * (high - low)
    if not low - slack <= score <= high + slack:
        hint = "" if score_range != UNIT_RANGE else "; name the range of these scores with --score-range LOW:HIGH"
        raise row.record.fault(row.score_field, f"{score:g} is not allowed; expected {low:g} to {high:g}{hint}")
    return min(1.0, max(0.0, (score - low) / (high - low)))


class ImportOptions(Record):
    """The options of `coe outcomes import`."""

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
        """The file's name of each of our fields, by our name."""
        names = {name: name for name in FIELDS} | dict(each.split("=", 1) for each in self.field)
        return names | {"text": names["prompt"]}


def bounds_of(text: str) -> tuple[float, float]:
    """Parse the numbers of LOW:HIGH; raise ValueError if a part is not a number."""
    low, _, high = text.partition(":")
    return float(low), float(high)


def read_scores(files: Sequence[str], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Read the rows of files, each `FILE` or `MODEL=FILE`; raise DataError if one cannot be read or its ending is
    wrong."""
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
    """Describe in lines what was imported and what was left out."""
    known = np.isfinite(table.scores)
    experts = list(enumerate(table.experts))
    n_incomplete = int((~known.all(axis=1)).sum())
    lines = [
        f"{known.sum()} scores by {table.metric}: {len(table.prompt_ids)} prompts in "
        f"{len(set(table.categories))} categories, {len(table.experts)} models",
        *(f"  {name}: mean {np.nanmean(table.scores[:, e]):.3f} of {known[:, e].sum()}" for e, name in experts),
        *describe_reasons(left_out),
    ]
    if n_incomplete:
        lines.append(f"{n_incomplete} prompts lack a score of some model; comparisons of all models leave these out")
    return lines
