"""Options that several commands share, options from the fields of a model, and an early check of `--out`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from annotated_types import Ge, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from coe.base.errors import ConfigError
from coe.base.fault_words import fault_words

GATEWAY_URL = f"http://127.0.0.1:{os.environ.get('COE_PORT') or 8000}/v1"
"""API root of this host's gateway, on the default port of `coe serve` and `coe up`."""


def api_key() -> str | None:
    """Return the API key from COE_API_KEY, if any. An option would show it in lists of processes."""
    return os.environ.get("COE_API_KEY") or None


def unix_time(value: str | float, option: str = "--since") -> float:
    """Return the Unix seconds of an ISO date or time, in UTC if it names no zone; numbers pass unchanged.

    Raises:
        ConfigError: not an ISO date or time; the message names `option`.
    """
    if isinstance(value, float):
        return value
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise ConfigError(
            f"{option}: '{value}' is not an ISO date or time such as 2026-11-25 or 2026-11-25T08:00"
        ) from error
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def cache_folder(default: Path) -> Path:
    """Return the folder of the embedding cache: COE_CACHE_DIR, else the command's default."""
    return Path(os.environ.get("COE_CACHE_DIR") or default)


ConfigOption = Annotated[Path, typer.Option("--config", envvar="COE_CONFIG", hidden=True)]
DataOption = Annotated[Path, typer.Option("--data-dir", envvar="COE_DATA_DIR", hidden=True)]
"""Options of `coe` itself, which has their help; each command that reads one accepts it too."""
JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="seed of every random draw")]
SinceOption = Annotated[
    float,
    typer.Option(
        "--since",
        parser=unix_time,
        metavar="TIME",
        show_default=False,
        help="ISO date or time; what is older is left out",
    ),
]


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option for each described field of its parameters that are pydantic models.

    The option takes name, type, default, bounds and help from the field; a field without a description is no option.
    The command is called with the model.

    Raises:
        ConfigError: when the command runs, for a value that the model rejects.
    """
    parameters: list[inspect.Parameter] = []
    models: dict[str, tuple[type[BaseModel], list[str]]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            options = list(options_of(kind))
            models[parameter.name] = kind, [option.name for option in options]
            parameters += options
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    signature = inspect.Signature(parameters)

    @wraps(command)
    def run(**given: Any) -> Any:
        for name, (kind, fields) in models.items():
            values = {field: given.pop(field) for field in fields if field in given}
            try:
                given[name] = kind(**values)
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                option = f"--{fault['loc'][0]}".replace("_", "-") if fault["loc"] else name
                raise ConfigError(f"{option}: {fault_words(fault)} (got {fault['input']!r})") from error
        return command(**given)

    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def options_of(model: type[BaseModel]) -> Iterator[inspect.Parameter]:
    """Yield an option for each described field of a model."""
    for name, field in model.model_fields.items():
        if field.description is not None:
            names = [f"--{name.replace('_', '-')}"] if field.default is False else []  # no --no-NAME
            option = typer.Option(*names, help=field.description, **bounds_of(field))
            yield inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.is_required() else field.get_default(),
                annotation=Annotated[field.annotation, option],
            )


def bounds_of(field: FieldInfo) -> dict[str, Any]:
    """Return the smallest and greatest allowed value of a field, inclusive, as arguments of a typer option."""
    names: dict[type, str] = {Ge: "min", Le: "max"}
    return {
        names[type(rule)]: getattr(rule, "ge", getattr(rule, "le", None))
        for rule in field.metadata
        if type(rule) in names
    }


def require_folder(out: Path) -> None:
    """Check that a folder for output exists or can be created, and is writable.

    Raises:
        ConfigError: it is not; the message names what prevents it.
    """
    for place in (out, *out.absolute().parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise ConfigError(f"--out {out}: cannot be written because {place} is read-only; name another")
            return
        if place.exists() or place.is_symlink():
            raise ConfigError(f"--out {out}: cannot be written because {place} is not a folder; name another")
