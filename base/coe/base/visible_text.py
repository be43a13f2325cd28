"""Escapes for foreign text (prompts, answers, names, server errors) before a terminal, log or spreadsheet shows it."""

from __future__ import annotations

import re

# C0 without tab and line feed, DEL, C1; what sets the direction of text (UAX #9); separators of lines and paragraphs;
# surrogates, which no encoding writes.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
BREAKS = re.compile("[\t\n]")


def visible(text: str) -> str:
    """Escape characters that could drive a terminal or reorder a line, as in JSON; JSON keeps its meaning."""
    return UNSAFE.sub(escaped, text)


def visible_line(text: str) -> str:
    """Escape breaks and tabs as well, so that a text cannot forge a line of a log."""
    return BREAKS.sub(escaped, visible(text))


def escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def echo(text: str, *, to_stderr: bool = False) -> None:
    """Print text with unsafe characters escaped."""
    import typer

    typer.echo(visible(text), err=to_stderr)
