"""A report as data, and the one template that draws it: a single HTML file that loads nothing.

A block of a section is a paragraph (a string; `code` between backticks), a note, a table, a chart, a fold, quotes, a
list of facts or a command. Whatever is shown is escaped here, so a report passes on names and texts as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from eval.report.sections import Spec as Spec
from eval.report.sections import script_json as script_json
from eval.report.sections import write_files


@dataclass(frozen=True)
class Cell:
    """A figure of a table: its text, an interval below it, and `good`, `bad` or nothing."""

    text: str
    interval: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, how it was made, its cells, and whether it is what the report is about."""

    name: str
    cells: Sequence[Cell | str]
    how: str = ""
    is_own: bool = False


@dataclass(frozen=True)
class Table:
    """`columns` names the rows' own column first; those in `texts` are aligned left, all others hold figures."""

    kind: ClassVar = "table"
    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    texts: Sequence[str] = ()
    is_wide: bool = False


T = TypeVar("T")
Columns = Mapping[str, Callable[[str, T], Cell | str]]
"""Title of a column -> its cell, from the name and the content of a row."""


def table_of(
    heading: str,
    items: Mapping[str, T],
    columns: Columns[T],
    *,
    caption: str = "",
    label: Callable[[str, T], str] = lambda name, _: name,
    how: Callable[[T], str] = lambda _: "",
    own: str | None = None,
) -> Table:
    """A table of figures with a row for every item, the one named `own` marked; a column without figures is left out.
    `label` is what readers call an item."""
    made = {title: [cell(*item) for item in items.items()] for title, cell in columns.items()}
    filled = {title: cells for title, cells in made.items() if any(cell not in ("", Cell("")) for cell in cells)}
    rows = [
        Row(label(name, item), [cells[i] for cells in filled.values()], how(item), name == own)
        for i, (name, item) in enumerate(items.items())
    ]
    return Table([heading, *filled], rows, caption, is_wide=len(filled) > 5)


@dataclass(frozen=True)
class Chart:
    """A chart under its id, with what a reader must know of it. A chart without data is None in its place."""

    kind: ClassVar = "chart"
    id: str
    spec: Spec
    caption: str


@dataclass(frozen=True)
class Line:
    """A paragraph that explains a table or a chart (`note`), a title within a section (`heading`), or a command line as
    it was typed (`command`)."""

    kind: str
    text: str


Note, Heading, Command = partial(Line, "note"), partial(Line, "heading"), partial(Line, "command")


@dataclass(frozen=True)
class Pairs:
    """Names and values, one below the other (`facts`), or quoted texts, each below a line about it (`quotes`)."""

    kind: str
    rows: Sequence[tuple[str, str]]


Facts, Quotes = partial(Pairs, "facts"), partial(Pairs, "quotes")


@dataclass(frozen=True)
class Fold:
    """Blocks below a line that opens and closes them."""

    kind: ClassVar = "fold"
    title: str
    blocks: Sequence[Block]
    is_open: bool = False


Block = str | Line | Pairs | Table | Chart | Fold | None


@dataclass(frozen=True)
class Section:
    """A part of a page that its table of contents leads to; closed until a reader opens it, unless `is_open`."""

    id: str
    title: str
    blocks: Sequence[Block]
    is_open: bool = False


@dataclass(frozen=True)
class Figure:
    """One of the few numbers at the top of a page, with what belongs below it."""

    name: str
    value: str
    below: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report. `first` has the ids of charts that are shown above all sections, by the titles they get there;
    `tone` colours the title: `good`, `bad` or nothing."""

    kind: str
    title: str
    lead: str
    figures: Sequence[Figure]
    sections: Sequence[Section]
    first: Mapping[str, str]
    tone: str = ""

    @property
    def charts(self) -> dict[str, Chart]:
        """Every chart by its id."""
        return {chart.id: chart for section in self.sections for chart in charts_in(section.blocks)}


def charts_in(blocks: Sequence[Block]) -> Iterator[Chart]:
    for block in blocks:
        if isinstance(block, Chart):
            yield block
        elif isinstance(block, Fold):
            yield from charts_in(block.blocks)


def write_report(report: BaseModel, page: Page, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html and returns their paths. Raises MissingExtraError, DataError."""
    return write_files(report, render(page), folder)


def render(page: Page) -> str:
    """The page as HTML."""
    import vl_convert
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def prose(text: str) -> Markup:
        return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))

    environment = Environment(
        loader=PackageLoader("eval.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    charts = page.charts
    return environment.get_template("page.html.jinja").render(
        page=page,
        charts=charts,
        style=(files("eval.report") / "page.css").read_text(encoding="utf-8"),
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        specs=script_json({name: chart.spec for name, chart in charts.items()}),
    )
