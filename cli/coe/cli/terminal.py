"""Terminal output of every command: a console and tables in which no foreign text can drive the terminal.

ruff keeps other modules from rich's own, and from typer.echo; `base.visible_text.echo` prints plain lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment
from rich.table import Table

from coe.base.visible_text import visible, visible_line

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text


class Terminal(Console):
    """rich's console over text that others wrote: unsafe characters are shown as escapes, and neither markup nor names
    of emoji are read, nor numbers coloured, unless a call asks for it. Takes what `rich.console.Console` takes."""

    def __init__(self, *, markup: bool = False, emoji: bool = False, highlight: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, emoji=emoji, highlight=highlight, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Cuts nothing off at the width of the terminal."""
        super().print(*objects, **{"crop": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Before it is measured, so that cells and wraps fit what is shown."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Also what never was a string: texts with a style of their own, spinners, columns of progress."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style)


WIDEST = 10_000


class Grid(Table):
    """rich's table with one line a cell, so that no foreign text looks like a row of its own. One that is wider than
    the terminal goes on beyond it: names stay whole, so that they can be copied."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(visible_line(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(width=WIDEST)
        width = self.__rich_measure__(console, wide).maximum
        return super().__rich_console__(console, options.update(width=max(width, options.max_width)))
