"""The table of extras: true to pyproject.toml, and complete."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coe.base.extras import EXTRAS, MissingExtraError, extras_of, require_extras, require_installed

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


ALONG = {"annotated_types", "click", "httpx", "markupsafe", "multidict", "openai", "pydantic_core", "pygments"}
ALONG |= {"starlette", "yarl"}
"""Packages that those of the base, or litellm, bring along and import themselves."""


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def test_every_extra_of_the_project_is_in_the_table_with_packages_that_it_installs() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert {*EXTRAS} == {*extras} - {"demo", "dev"}
    brings = {
        package: {canonicalize_name(each) for each in found} for package, found in packages_distributions().items()
    }
    inner = {"huggingface_hub": {"tokenizers"}, "google": {"opentelemetry-exporter-otlp-proto-http"}}  # brought along
    inner["cryptography"] = {"pyjwt"}
    for extra, packages in EXTRAS.items():
        wanted = names(extras[extra])
        for package in packages:
            top = package.partition(".")[0]
            if top in brings:  # installed here
                assert inner.get(top, brings[top]) & wanted, f"{extra}: {package}"


def test_whatever_the_code_imports_is_in_the_base_or_in_the_table() -> None:
    base = names(PROJECT["project"]["dependencies"])
    known = {package.partition(".")[0] for packages in EXTRAS.values() for package in packages}
    brings = {
        package: {canonicalize_name(each) for each in found} for package, found in packages_distributions().items()
    }
    for path in (path for room in OURS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [str(node.module)]
            for top in {module.partition(".")[0] for module in modules} - {"coe", *sys.stdlib_module_names} - ALONG:
                assert top in known or brings.get(top, set()) & base, f"{path}: {top}"


def test_the_fewest_extras_that_bring_all_are_named() -> None:
    assert extras_of({"scipy"}) == ("budgets",)
    assert extras_of({"scipy", "tokenizers"}) == ("stores",)
    assert extras_of({"pyarrow", "sklearn"}) == ("train",)
    assert extras_of({"vl_convert", "sklearn"}) == ("train", "eval")
    assert extras_of({"nothing_of_ours"}) == ()


def test_all_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.base.extras.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"^a map needs the 'budgets' extra: pip install '.*\[budgets\]', or in"
    ):
        require_installed("a map", "scipy")
    with pytest.raises(
        MissingExtraError, match=r"^it needs the extras 'eval' and 'train': pip install '.*\[eval,train\]'"
    ):
        require_extras("it", ["eval", "train"])
