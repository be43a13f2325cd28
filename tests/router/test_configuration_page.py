"""docs/configuration.md lists every key of experts.yaml with its default, every variable and every kind."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from coe.router import plugins
from coe.router.config.composition import CoeConfig
from coe.router.section import Section

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

FAMILIES = {
    "Encoders": "router.encoders",
    "Classifiers": "router.classifiers",
    "Scorers": "router.scorers",
    "Kinds of answers": "router.answers",
    "Retrieval experts": "retrieval.experts",
}
LIKE_THE_ENCODER = {("Retrieval experts", "openai"), ("Retrieval experts", "sentence_transformer")}
"""Their row says "those of the encoder" and names only what is added to them."""


def rows_under(heading: str) -> dict[str, list[str]]:
    """The table below a heading: cells of each row after the first, by what stands in backticks in the first."""
    _, found, rest = PAGE.partition(f"\n{heading}\n")
    assert found, f"no heading '{heading}'"
    lines = re.split(r"\n#{2,3} ", rest)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].split("`")[1]: row[1:] for row in cells}


def sections(model: type[BaseModel] = CoeConfig, path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The model of every part of experts.yaml, by key path."""
    yield path, model
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        inside = f"{path}.{name}".lstrip(".")
        if get_origin(annotation) in (Union, types.UnionType):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        if get_origin(annotation) is dict:
            annotation, inside = get_args(annotation)[1], f"{inside}.<name>"
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from sections(annotation, inside)


@pytest.mark.parametrize(("path", "model"), list(sections()))
def test_every_key_is_there_with_its_default(path: str, model: type[BaseModel]) -> None:
    rows = rows_under(f"### `{path}`" if path else "## experts.yaml")
    assert list(rows) == list(model.model_fields)
    for name, field in model.model_fields.items():
        said, default = rows[name][0], field.get_default(call_default_factory=True)
        if default is PydanticUndefined:
            assert said == "required", name
        elif isinstance(default, str | int | float | bool):
            assert yaml.safe_load(said.strip("`")) == default, name
        else:
            assert said != "required", name


@pytest.mark.parametrize(("heading", "family"), list(FAMILIES.items()))
def test_every_kind_is_there_with_its_options(heading: str, family: str) -> None:
    rows = rows_under(f"### {heading}")
    assert tuple(sorted(rows)) == plugins.kinds(family)
    for kind, cells in rows.items():
        fields = set(plugins.load(family, kind).Options.model_fields)
        named = re.findall(r"`(\w+)`", cells[-1])
        if (heading, kind) in LIKE_THE_ENCODER:
            fields -= set(plugins.load("router.encoders", kind).Options.model_fields)
        assert fields <= set(named), kind
        assert (cells[-1] == "none") == (not fields), kind


def test_every_environment_variable_is_there() -> None:
    sources = [path for package in ("router", "gateway", "training", "eval") for path in (ROOT / package).rglob("*.py")]
    named = re.compile(r'"(COE_[A-Z_]+|REDIS_URL|DATABASE_URL|OPENBLAS_NUM_THREADS)"')
    read = {name for path in sources for name in named.findall(path.read_text(encoding="utf-8"))}
    assert read <= set(rows_under("## Environment variables"))


@pytest.mark.parametrize("header", ["x-session-id", "x-request-id", "x-coe-debug", "x-coe-probe"])
def test_the_gateway_reads_the_headers_of_the_page(header: str) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    assert f"`{header}" in PAGE
    assert any(f'b"{header}"' in text for text in sources)
