"""Plugins of every family, by the name of their kind: encoders, classifiers, scorers, kinds of answers, providers ...

A kind is looked up in three places. The first is a file of the family's package (`router/encoders/onnx.py` is `kind:
onnx`); the second an entry of `plugins` in experts.yaml (a path or a dotted name). The third is an entry point of an
installed distribution, in the group `coe.` and the family: `coe.router.encoders`. Only these names can be loaded, so
neither data nor a router artifact imports other code.

Each plugin module has three public names: `Options` (a frozen pydantic model that refuses unknown keys),
`build(options)` (heavy imports happen inside) and `EXAMPLES` (valid Options, used by the contract tests). A plugin that
is made of others has `inner(options)` too, which lists them. A plugin that imports packages of an extra names them in
`IMPORTS`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from coe.base.errors import ConfigError, allowed_values, got_value
from coe.base.extras import require_installed
from coe.base.fault_words import fault_words

Family = Literal[
    "fleet.providers",
    "retrieval.experts",
    "router.answers",
    "router.classifiers",
    "router.encoders",
    "router.scorers",
]
"""The packages whose files are kinds."""

Places = Mapping[Family, Mapping[str, str]]
"""The user's own plugins by family and kind: a path that ends in .py or a dotted name each."""

_declared: Final[dict[tuple[str, str], str]] = {}


def declare(places: Places) -> None:
    """Register the plugins of a configuration, whose paths are absolute, in this process."""
    _declared.update({(family, kind): place for family, found in places.items() for kind, place in found.items()})


def absolute(places: Places, folder: Path) -> Places:
    """Return the places with paths resolved against `folder`."""
    return {
        family: {
            kind: str((folder / place).resolve()) if place.endswith(".py") else place for kind, place in found.items()
        }
        for family, found in places.items()
    }


def taken_names(places: Places) -> Iterator[str]:
    """Yield a fault for each name that a file of the family has already."""
    for family, found in places.items():
        for kind in found.keys() & own_modules(family).keys():
            yield f"plugins.{family}.{kind}: coe has a kind of that name; allowed: another name"


@dataclass(frozen=True)
class Inner:
    """A plugin that another is made of. `key` is its key among the other's options."""

    key: str
    family: str
    kind: str
    options: Mapping[str, object] = field(default_factory=dict)


def require_imports(plugin: ModuleType) -> None:
    """Check that the packages that a plugin names are installed, without an import. It raises MissingExtraError if one
    is not."""
    if needed := getattr(plugin, "IMPORTS", ()):
        require_installed(f"kind '{plugin.__name__.rpartition('.')[2]}'", *needed)


def inner_of(plugin: ModuleType, options: BaseModel) -> tuple[Inner, ...]:
    """Return the plugins that a plugin with such options is made of."""
    return tuple(plugin.inner(options)) if hasattr(plugin, "inner") else ()


@cache
def own_modules(family: str) -> dict[str, str]:
    """Map kinds to modules for the files of a family's package; empty if its distribution is not installed."""
    package = f"coe.{family}"
    try:
        found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    except ModuleNotFoundError as error:
        if not f"{package}.".startswith(f"{error.name}."):
            raise
        return {}
    return {each.name: f"{package}.{each.name}" for each in found if not each.name.startswith("_")}


@cache
def installed_modules(family: str) -> dict[str, str]:
    """Map kinds to modules for the entry points of a family."""
    return {each.name: each.value for each in entry_points(group=f"coe.{family}")}


def kinds(family: str) -> tuple[str, ...]:
    """Return the kinds of a family, sorted. `family` is a package such as `router.encoders`."""
    declared = (kind for named, kind in _declared if named == family)
    return tuple(sorted({*installed_modules(family), *declared, *own_modules(family)}))


def load(family: str, kind: str) -> ModuleType:
    """Return the module of that kind.

    Raises:
        ConfigError: no such kind, with the kinds there are; or its module cannot be imported or is no plugin.
    """
    if kind in own_modules(family):
        return importlib.import_module(own_modules(family)[kind])
    place = _declared.get((family, kind)) or installed_modules(family).get(kind)
    if place is None:
        raise ConfigError(
            f"unknown kind '{kind}' of {family}{allowed_values(kind, kinds(family))}; an installed plugin, such as "
            "coe-offline, or `plugins` in experts.yaml may bring more"
        )
    try:
        return module_at(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, SyntaxError) as error:
        hint = part_hint(str(getattr(error, "name", "")))
        raise ConfigError(f"kind '{kind}' of {family}: {place} cannot be imported ({error}){hint}") from error


def part_hint(module: str) -> str:
    """Return a hint at a part of coe that is not installed; empty for modules of others."""
    owner, _, part = module.partition(".")
    name = f"coe-{part.partition('.')[0].replace('_', '-')}"
    return f"; it needs the distribution {name}, see 'As a library' in README.md" if owner == "coe" and part else ""


def module_at(path: Path) -> ModuleType:
    """Import the module of a file, which may import its neighbours (`from ._shared import ...`).

    Raises:
        ImportError: it cannot be imported; further errors are those of the file itself.
    """
    package = f"coe_plugins_{sha256(bytes(path.parent)).hexdigest()[:16]}"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(path.parent)]
    return importlib.import_module(f"{package}.{path.stem}")


def validate_options(family: str, kind: str, options: Mapping[str, object]) -> BaseModel:
    """Validate options of a plugin from plain values, and those of the plugins it is made of.

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
    """Yield a plugin and all that it is made of, each with the key where it is and its options. Errors are those of
    `validate_options`."""
    checked, plugin = validate_options(family, kind, options), load(family, kind)
    yield key, plugin, checked
    for part in inner_of(plugin, checked):
        yield from parts_of(f"{key}.{part.key}", part.family, part.kind, part.options)


def inner_problems(part: Inner) -> list[str]:
    """Return faults of a part, each after its key."""
    try:
        validate_options(part.family, part.kind, part.options)
    except ConfigError as error:
        return [f"{part.key}: {problem}" for problem in error.problems]
    return []


def option_problem(plugin: ModuleType, fault: Any) -> str:
    """Render one pydantic fault as a line: option, value, what is allowed."""
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{path}: unknown option{allowed_values(str(fault['loc'][-1]), plugin.Options.model_fields)}"
    if fault["type"] == "missing":
        return f"{path}: required option is missing"
    return f"{path}: {fault_words(fault)}{got_value(fault)}"


def build(family: str, kind: str, options: Mapping[str, object]) -> Any:
    """Build the live object of a plugin; further errors are those of the plugin.

    Raises:
        ConfigError: as `validate_options` raises it.
        MissingExtraError: a package that it imports is not installed.
    """
    checked, plugin = validate_options(family, kind, options), load(family, kind)
    require_imports(plugin)
    return plugin.build(checked)
