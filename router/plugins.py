"""The file name is the registry: `router/encoders/onnx.py` is `kind: onnx`.

Each plugin module has three public names: `Options` (a frozen pydantic model that refuses unknown keys),
`build(options)` (heavy imports happen inside) and `EXAMPLES` (valid Options, used by the contract tests). One that is
made of others has `inner(options)` too, which lists them; one that imports packages of an extra names them in
`IMPORTS`. Only names that exist as files can be loaded, so configuration never imports arbitrary code.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from base.errors import ConfigError, allowed_values, got_value
from base.extras import require_installed
from base.fault_words import fault_words


@dataclass(frozen=True)
class Inner:
    """A plugin that another is made of. `key` is its key among the other's options."""

    key: str
    family: str
    kind: str
    options: Mapping[str, object] = field(default_factory=dict)


def require_imports(plugin: ModuleType) -> None:
    """Raises MissingExtraError when a package that a plugin names is not installed. Imports nothing."""
    require_installed(f"kind '{plugin.__name__.rpartition('.')[2]}'", *getattr(plugin, "IMPORTS", ()))


def inner_of(plugin: ModuleType, options: BaseModel) -> tuple[Inner, ...]:
    """The plugins that one with such options is made of."""
    return tuple(plugin.inner(options)) if hasattr(plugin, "inner") else ()


def modules_of(family: str) -> dict[str, str]:
    """Kind -> module of each plugin of a family: of its package, and of the packages that it names `ELSEWHERE`."""
    package = importlib.import_module(family)
    homes = (package, *map(importlib.import_module, getattr(package, "ELSEWHERE", ())))
    found = ((each.name, home.__name__) for home in homes for each in pkgutil.iter_modules(home.__path__))
    return {kind: f"{home}.{kind}" for kind, home in found if not kind.startswith("_")}


def kinds(family: str) -> tuple[str, ...]:
    """Kinds of a family, sorted. `family` is a package such as `router.encoders`."""
    return tuple(sorted(modules_of(family)))


def load(family: str, kind: str) -> ModuleType:
    """The module of that kind.

    Raises:
        ConfigError: no such kind, with the kinds there are.
    """
    known = modules_of(family)
    if kind not in known:
        raise ConfigError(f"unknown kind '{kind}' of {family}{allowed_values(kind, sorted(known))}")
    return importlib.import_module(known[kind])


def validate_options(family: str, kind: str, options: Mapping[str, object]) -> BaseModel:
    """Options of a plugin from plain values; those of the plugins it is made of are looked at too.

    Raises:
        ConfigError: unknown kind, unknown or ill-typed option; one problem line per fault.
    """
    plugin = load(family, kind)
    try:
        checked: BaseModel = plugin.Options.model_validate(dict(options))
    except ValidationError as error:
        problems = [option_problem(plugin, fault) for fault in error.errors(include_url=False)]
        raise ConfigError(f"{family} '{kind}': " + "; ".join(problems), problems) from error
    problems = [problem for part in inner_of(plugin, checked) for problem in inner_problems(part)]
    if problems:
        raise ConfigError(f"{family} '{kind}': " + "; ".join(problems), problems)
    return checked


def parts_of(
    key: str, family: str, kind: str, options: Mapping[str, object]
) -> Iterator[tuple[str, ModuleType, BaseModel]]:
    """A plugin and all that it is made of, each with the key where it is and its options. Raises ConfigError."""
    checked, plugin = validate_options(family, kind, options), load(family, kind)
    yield key, plugin, checked
    for part in inner_of(plugin, checked):
        yield from parts_of(f"{key}.{part.key}", part.family, part.kind, part.options)


def inner_problems(part: Inner) -> list[str]:
    """Faults of a part, each after its key."""
    try:
        validate_options(part.family, part.kind, part.options)
    except ConfigError as error:
        return [f"{part.key}: {problem}" for problem in error.problems]
    return []


def option_problem(plugin: ModuleType, fault: Any) -> str:
    """One pydantic fault as a line: option, value, what is allowed."""
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{path}: unknown option{allowed_values(str(fault['loc'][-1]), plugin.Options.model_fields)}"
    if fault["type"] == "missing":
        return f"{path}: required option is missing"
    return f"{path}: {fault_words(fault)}{got_value(fault)}"


def build(family: str, kind: str, options: Mapping[str, object]) -> Any:
    """The live object of a plugin. Raises ConfigError as `validate_options` does, MissingExtraError without a package
    that it imports, and what the plugin raises."""
    checked, plugin = validate_options(family, kind, options), load(family, kind)
    require_imports(plugin)
    return plugin.build(checked)
