"""Terminal output of every command: a console and tables in which no foreign text can drive the terminal.

ruff keeps other modules from rich's own, and from typer.echo; `base.visible_text.echo` prints plain lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment
from rich.table import Table

from base.visible_text import visible, visible_line

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.text import Text


class Terminal(Console):
    """rich's console over text that others wrote: unsafe characters are shown as escapes, and neither markup nor names
    of emoji are read unless a call asks for them. Takes what `rich.console.Console` takes."""

    def __init__(self, *, markup: bool = False, emoji: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, emoji=emoji, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Before it is measured, so that cells and wraps fit what is shown."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Also what never was a string: texts with a style of their own, spinners, columns of progress."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style)


class Grid(Table):
    """rich's table with one line a cell, so that no foreign text looks like a row of its own."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(visible_line(cell) if isinstance(cell, str) else cell for cell in cells), **options)
