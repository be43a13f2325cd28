"""A report as data, and the one template that renders it: a single HTML file that loads nothing.

A page has a verdict, a sentence, a few figures, a picture, and sections of a sentence, a table and at most one chart.
This module escapes all shown text, so a report passes names and texts unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from coe.base.errors import DataError
from coe.eval.metrics.intervals import Range
from coe.router.types import Interval

JSON_FILE = "report.json"
HTML_FILE = "report.html"

Spec = dict[str, Any]
"""A Vega-Lite specification."""

T = TypeVar("T")


class Measured(Protocol):
    """The interface of a value with its interval."""

    @property
    def value(self) -> float: ...
    @property
    def interval(self) -> Range | Interval | None: ...


Form = Callable[[Any], str]
"""The type of a function that formats a figure or a mapping."""
COUNT: Form = "{:,}".format
Shown = str | float | Measured | Mapping[str, Any] | None
"""The content of a cell; None if it is unknown."""


def ends_of(found: Measured) -> Range | None:
    """Return the (low, high) of a value's interval; None without one."""
    interval = found.interval
    return (interval.low, interval.high) if isinstance(interval, Interval) else interval


@dataclass(frozen=True)
class Cell:
    """A figure as text, its interval, and `good`, `bad` or nothing."""

    text: str
    interval: str = ""
    tone: str = ""


def cell_of(found: Shown, form: Form = COUNT, *, is_difference: bool = False) -> Cell:
    """Build a cell from a text, or a figure formatted by `form`; a difference whose interval excludes zero has a
    tone."""
    if found is None or isinstance(found, str):
        return Cell(found or "")
    if isinstance(found, int | float | Mapping):
        return Cell(form(found))
    ends = ends_of(found)
    if ends is None:
        return Cell(form(found.value))
    tone = ("good" if ends[0] > 0 else "bad" if ends[1] < 0 else "") if is_difference else ""
    return Cell(form(found.value), f"{form(ends[0])} to {form(ends[1])}", tone)


def cite(found: Measured, form: Form, unit: str = "") -> str:
    """Format a figure with its interval for a sentence, as in +4.2 points (+1.0 to +7.4)."""
    made = cell_of(found, form)
    return f"{made.text}{unit}" + (f" ({made.interval})" if made.interval else "")


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table: what it reads from the record of a row, and how it formats that."""

    title: str
    get: Callable[[T], Shown]
    form: Form = COUNT
    is_difference: bool = False


@dataclass(frozen=True)
class InTable:
    """The annotation of a record's field that is a column of its tables."""

    title: str
    form: Form = COUNT
    is_difference: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its name, what the name means, its cells, and whether the report is about it."""

    name: str
    how: str
    cells: Sequence[Cell]
    is_own: bool = False


@dataclass(frozen=True)
class Table:
    """The columns and rows of a table. `texts` has the titles of left-aligned columns; all others hold figures."""

    columns: Sequence[str]
    rows: Sequence[Row]
    texts: frozenset[str] = frozenset()


def table_of(
    heading: str,
    items: Mapping[str, T] | Sequence[tuple[str, T]],
    columns: Sequence[Column[T]],
    *,
    own: str | None = None,
    how: Callable[[T], str] = lambda _: "",
) -> Table:
    """Build a table with a row for every item, the one named `own` marked; a column without content is left out."""
    named = list(items.items()) if isinstance(items, Mapping) else items
    got = {column.title: [column.get(item) for _, item in named] for column in columns}
    filled = [column for column in columns if any(value not in (None, "") for value in got[column.title])]
    rows = [
        Row(
            name,
            how(item),
            [cell_of(got[c.title][i], c.form, is_difference=c.is_difference) for c in filled],
            name == own,
        )
        for i, (name, item) in enumerate(named)
    ]
    texts = frozenset(c.title for c in filled if any(isinstance(value, str) for value in got[c.title]))
    return Table([heading, *(column.title for column in filled)], rows, texts)


def record_table(heading: str, records: Mapping[str, BaseModel] | Sequence[BaseModel], *more: Column[Any]) -> Table:
    """Build a table of records of one kind: a column for each field with `InTable`, then `more`. A row is named by
    its key, or else by the first field; `unknown` of a record says why it lacks figures."""
    listed = list(records.values()) if isinstance(records, Mapping) else records
    fields = type(listed[0]).model_fields if listed else {}
    names = records if isinstance(records, Mapping) else [str(getattr(one, next(iter(fields)))) for one in listed]
    columns = [
        Column[Any](shown.title, attrgetter(name), shown.form, shown.is_difference)
        for name, field in fields.items()
        for shown in field.metadata
        if isinstance(shown, InTable)
    ]
    named = list(zip(names, listed, strict=True))
    return table_of(heading, named, [*columns, *more], how=lambda one: getattr(one, "unknown", ""))


def facts_of(facts: Mapping[str, str]) -> Table:
    """Build a table of names and texts; an empty text is left out."""
    return table_of("About", {name: text for name, text in facts.items() if text}, [Column("Value", str)])


@dataclass(frozen=True)
class Chart:
    """A chart with the sentence below it, which describes the chart to readers who cannot see it."""

    caption: str
    spec: Spec


@dataclass(frozen=True)
class Section:
    """A part of a page with an entry in its table of contents; the note below says how it was measured."""

    title: str
    sentence: str = ""
    table: Table | None = None
    chart: Chart | None = None
    note: str = ""

    @property
    def id(self) -> str:
        return re.sub("[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def is_empty(self) -> bool:
        return not (self.sentence or self.chart or (self.table and self.table.rows))


@dataclass(frozen=True)
class Figure:
    """A number at the top of a page; the cell's interval, or another short text, stands below it."""

    name: str
    cell: Cell


@dataclass(frozen=True)
class Page:
    """A whole report; `tone` colours the title: `good`, `bad` or nothing. Empty sections are left out."""

    kind: str
    title: str
    lead: str
    figures: Sequence[Figure]
    picture: Chart | None
    sections: Sequence[Section]
    tone: str = ""
    warnings: Sequence[str] = ()

    @property
    def shown(self) -> list[Section]:
        return [section for section in self.sections if not section.is_empty]

    @property
    def charts(self) -> dict[str, Chart]:
        """The charts by id."""
        found = {"picture": self.picture} | {f"chart-{one.id}": one.chart for one in self.shown}
        return {id: chart for id, chart in found.items() if chart is not None}


def write_report(report: BaseModel, page: Page, folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.html; return their paths. Raise DataError or, without a library,
    MissingExtraError."""
    return write_files(report, render(page), folder)


def write_files(report: BaseModel, html: str, folder: Path) -> tuple[Path, Path]:
    """Write a report and its page under their names; raise DataError if the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON_FILE).write_text(report.model_dump_json(indent=1), encoding="utf-8")
        (folder / HTML_FILE).write_text(html, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out: the report cannot be written to {folder} ({error.strerror})") from error
    return folder / JSON_FILE, folder / HTML_FILE


def render(page: Page) -> str:
    """Render the page as HTML."""
    import vl_convert
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("coe.eval.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        page=page,
        style=(files("coe.eval.report") / "page.css").read_text(encoding="utf-8"),
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        specs=script_json({name: chart.spec for name, chart in page.charts.items()}),
    )


def script_json(specs: Mapping[str, Spec]) -> str:
    """Return JSON for the inside of a script element: no text in it can end that element."""
    return json.dumps(specs, ensure_ascii=False).replace("<", "\\u003c")
