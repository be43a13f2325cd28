"""Options that a record describes."""

from typing import Annotated

import pytest
import typer
from pydantic import Field

from coe.base.errors import ConfigError
from coe.cli.command_line import UsageError
from coe.cli.options import with_options
from coe.router.types import Record


class Terms(Record):
    margin: float = Field(default=0.5, ge=0, le=1, description="what is lost at most")
    name: str | None = Field(default=None, pattern="^[a-z]+$", description="whose they are")
    inner: int = 3


SEEN: list[tuple[Terms, int, bool]] = []


@with_options
def command(count: int = 1, is_loud: Annotated[bool, typer.Option("--loud")] = False, *, terms: Terms) -> None:
    """Show terms."""
    SEEN.append((terms, count, is_loud))


def call(*words: str) -> str:
    """Output of the command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    try:
        app(list(words), prog_name="coe terms", standalone_mode=False)
    except (ConfigError, UsageError) as error:
        return error.format_message() if hasattr(error, "format_message") else str(error)
    return ""


def test_described_fields_are_options_with_their_defaults() -> None:
    assert call() == ""
    assert call("--margin", "0.25", "--name", "ann", "--count", "2", "--loud") == ""
    assert SEEN[-2:] == [(Terms(), 1, False), (Terms(margin=0.25, name="ann"), 2, True)]


def test_what_the_record_refuses_is_refused_with_the_options_name() -> None:
    assert "--margin" in call("--margin", "1.5")
    assert call("--name", "X9") == "--name: must match the pattern ^[a-z]+$ (got 'X9')"
    with pytest.raises(ConfigError, match="--name"):
        command(name="X9")


def test_a_field_without_description_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "inner" in call("--inner", "1")
    call("--help")
    shown = capsys.readouterr().out
    assert "what is lost at most" in shown
    assert "0<=x<=1" in shown
    assert "inner" not in shown
