"""Terminal output of every command: a console and tables in which foreign text cannot drive the terminal.

Ruff bans rich's own classes and typer.echo elsewhere; `base.visible_text.echo` prints plain lines.
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
    """A rich console for foreign text: unsafe characters are escaped.

    Markup and emoji names are not interpreted, and numbers not coloured, unless a call asks for it. It takes the
    arguments of `rich.console.Console`.
    """

    def __init__(self, *, markup: bool = False, emoji: bool = False, highlight: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, emoji=emoji, highlight=highlight, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print without cutting lines at the width of the terminal."""
        super().print(*objects, **{"crop": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape a text before it is measured, so that cells and line breaks fit what is shown."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escape rendered segments as well: styled texts, spinners and progress columns never were strings."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style)


WIDEST = 10_000
"""Columns of text that a table may use."""


class Grid(Table):
    """A rich table with one line per row; text wider than the terminal stays whole, so that it can be copied."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(visible_line(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(width=WIDEST)
        width = self.__rich_measure__(console, wide).maximum
        return super().__rich_console__(console, options.update(width=max(width, options.max_width)))
