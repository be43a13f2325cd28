"""Terminal output of every command: a console and tables in which no foreign text can drive the terminal.

ruff keeps other modules from rich's own, and from typer.echo; `base.visible_text.echo` prints plain lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment
from rich.table import Table

from base.visible_text import visible, visible_line

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text


class Terminal(Console):
    """rich's console over text that others wrote: unsafe characters are shown as escapes, and neither markup nor names
    of emoji are read, nor numbers coloured, unless a call asks for it. Takes what `rich.console.Console` takes."""

    def __init__(self, *, markup: bool = False, emoji: bool = False, highlight: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, emoji=emoji, highlight=highlight, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Before it is measured, so that cells and wraps fit what is shown."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Also what never was a string: texts with a style of their own, spinners, columns of progress."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style)


WHOLE = 22
"""Width with padding up to which cells stay on one line; wider ones are wrapped before a table is divided."""


class Grid(Table):
    """rich's table with one line a cell, so that no foreign text looks like a row of its own. One that is wider than
    the terminal (80 columns in a pipe) is divided: further columns follow in a second table with the same row names,
    which are the first `names` columns.
    """

    names = 1

    def add_column(self, *args: Any, **options: Any) -> None:
        """Takes what rich's does; a word too long for its column is folded, where rich would cut it."""
        super().add_column(*args, **{"overflow": "fold", **options})

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(visible_line(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for place, part in enumerate(self._parts(console, options)):
            if place and self.box is None:
                yield ""
            yield from Table.__rich_console__(part, console, options)

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Tables of the row names and as many other columns as there is room for, in their order."""
        line = int(self.box is not None)
        widths = [self._measure_column(console, options, column) for column in self.columns]
        cells = [self._measure_column(console, options, replace(column, header="")) for column in self.columns]
        needs = [max(width.minimum, min(cell.maximum, WHOLE)) + line for width, cell in zip(widths, cells, strict=True)]
        named = list(range(len(needs)))[: self.names]
        groups = [named] if needs else []
        for number in range(len(named), len(needs)):
            width = sum(needs[each] for each in (*groups[-1], number)) + line
            if len(groups[-1]) > len(named) and width > options.max_width:
                groups.append(named)
            groups[-1] = [*groups[-1], number]
        for place, group in enumerate(groups):
            part = copy(self)
            part.columns = [replace(self.columns[old], _index=new) for new, old in enumerate(group)]
            part.title = self.title if place == 0 else None
            part.caption = self.caption if place == len(groups) - 1 else None
            spare = options.max_width - line - sum(needs[each] for each in group)
            for done, each in enumerate(sorted(group, key=lambda each: widths[each].maximum - needs[each])):
                if spare < 0:
                    break
                more = min(widths[each].maximum + line - needs[each], spare // (len(group) - done))
                column, spare = part.columns[group.index(each)], spare - more
                column.width = needs[each] - line + more - part._get_padding_width(column._index)
            yield part
