"""The wheel holds the product and nothing of the demo, and each distribution stands on what it names."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from email.message import Message
from importlib.metadata import PackageNotFoundError, packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coe.base import extras
from coe.base.errors import ConfigError
from coe.base.extras import MissingExtraError
from coe.fleet.setup.composition import Found, composition_text
from coe.router import plugins
from coe.router.config.composition import load_config, parse_text
from tests.installed import absent_beside, brought

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    project["name"]: (file.parent, project)
    for file in sorted(ROOT.glob("*/pyproject.toml"))
    for project in (tomllib.loads(file.read_text())["project"],)
}
IMPORT_ALL = """
import importlib, pkgutil, sys
absent, *places = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent.split(",")))
import coe
coe.__path__ = [f"{place}/coe" for place in places]
for each in pkgutil.walk_packages(coe.__path__[:1], "coe.", onerror=lambda name: None):
    try:
        importlib.import_module(each.name)
    except ModuleNotFoundError as error:
        print(error.name.partition(".")[0])
"""
"""Imports every module of the first of some places as if some packages were not installed; prints which it lacked."""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(out), str(ROOT)], check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with ZipFile(wheel) as content:
        return set(content.namelist())


def requirements(name: str, extras: frozenset[str] = frozenset()) -> tuple[list[Path], list[Requirement]]:
    """Places of a distribution and of those of ours that it names, and what all of them need of others."""
    folder, project = DISTRIBUTIONS[name]
    lines = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    places, others = [folder], list[Requirement]()
    for requirement in map(Requirement, lines):
        if requirement.name in DISTRIBUTIONS:
            more, needed = requirements(requirement.name, frozenset(requirement.extras))
            places, others = places + more, others + needed
        else:
            others.append(requirement)
    return places, others


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_imports_with_what_it_names_alone(name: str) -> None:
    """All but modules that an extra of it is for."""
    places, others = requirements(name)
    owners = packages_distributions()
    words = [sys.executable, "-c", IMPORT_ALL, absent_beside(brought(others)), *map(str, places)]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    own = [
        Requirement(each)
        for lines in DISTRIBUTIONS[name][1].get("optional-dependencies", {}).values()
        for each in lines
    ]
    allowed = {"protobuf", *(canonicalize_name(each.name) for each in own)}  # which the exporter of traces brings
    for each in own:
        if each.name in DISTRIBUTIONS:
            allowed |= {canonicalize_name(other.name) for other in requirements(each.name, frozenset(each.extras))[1]}
    lacking = {each: {*map(canonicalize_name, owners.get(each, [each]))} for each in done.stdout.split()}
    assert {each: own for each, own in lacking.items() if not own & allowed} == {}


LOAD = """
import sys
absent, *places, file, data = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent.split(",")))
import coe
coe.__path__ = [f"{place}/coe" for place in places]
from coe.router import Router, RouterError
try:
    Router.load(file, data)
except RouterError as error:
    print(type(error).__name__, error)
"""
"""Loads a router as if the distributions of some places were installed alone; prints the documented error."""


def test_the_library_reads_the_shipped_composition_and_names_what_its_experts_need(tmp_path: Path) -> None:
    """Its experts of kind `plugin` are of a family that coe-fleet brings, and its encoder of coe-offline."""
    places, others = requirements("coe-router")
    words = [sys.executable, "-c", LOAD, absent_beside(brought(others)), *map(str, places)]
    file = ROOT / "experts.yaml"
    done = subprocess.run([*words, str(file), str(tmp_path)], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("ArtifactError ")
    assert "there is no live router yet" in done.stdout


def test_a_plugin_that_needs_another_part_of_coe_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_declared", {})
    (tmp_path / "needy.py").write_text("import coe.absent_part\n")
    plugins.declare({"router.encoders": {"needy": str(tmp_path / "needy.py")}})
    with pytest.raises(
        ConfigError, match=r"\(No module named 'coe.absent_part'\); it needs the distribution coe-absent-part"
    ):
        plugins.load("router.encoders", "needy")


def test_an_extra_is_named_of_the_distribution_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pip install 'composition-of-experts[encoders]'" in str(MissingExtraError("x", "encoders"))

    def alone(name: str) -> Message:
        if name != "coe-router":
            raise PackageNotFoundError(name)
        found = Message()
        found["Provides-Extra"] = "encoders"
        return found

    monkeypatch.setattr(extras, "metadata", alone)
    assert "pip install 'coe-router[encoders]', or in the project's folder" in str(MissingExtraError("x", "encoders"))


def test_the_whole_has_the_versions_and_needs_of_its_parts() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    everything = {
        *whole["dependencies"],
        *(each for lines in whole["optional-dependencies"].values() for each in lines),
    }
    parts = {
        each
        for _, project in DISTRIBUTIONS.values()
        for lines in (project["dependencies"], *project.get("optional-dependencies", {}).values())
        for each in lines
    }
    assert {each for each in parts if not each.startswith("coe-")} <= everything
    assert {project["version"] for _, project in DISTRIBUTIONS.values()} == {whole["version"]}


def test_training_alone_ships_files_where_the_whole_does() -> None:
    included = [
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        for folder in ("", "training")
    ]
    assert set(included[1]["force-include"].values()) <= set(included[0]["force-include"].values())


def test_what_a_first_composition_needs_is_there(names: set[str]) -> None:
    wanted = ("examples/smollm2/seed/sql.jsonl", "examples/smollm2/probes/sql.jsonl")
    assert {"coe/fleet/setup/starter.yaml.jinja", *(f"coe/shipped/{each}" for each in wanted)} <= names


def test_nothing_of_the_demo_is_there(names: set[str]) -> None:
    shipped = {name.removeprefix("coe/shipped/examples/smollm2/") for name in names if name.startswith("coe/shipped/")}
    assert {name.partition("/")[0] for name in shipped} == {"seed", "probes"}
    assert not [name for name in names if name.startswith(("examples", "coe_offline")) or "adapter_model" in name]


EMBEDS = {"kind": "openai", "url": "http://127.0.0.1:1/v1", "model": "e", "dim": 3, "query_prefix": "query: "}


@pytest.mark.parametrize("embeddings", [{}, {"e": EMBEDS}])
def test_a_first_composition_has_the_categories_of_the_queries_and_no_kind_of_the_demo(
    embeddings: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An install without coe-offline takes it: the encoder is a model of an endpoint, or one of the hub."""
    demo = load_config(ROOT / "experts.yaml")
    monkeypatch.setattr(plugins, "installed_modules", lambda family: {"openai": "coe.fleet.encoders.openai"})
    found = Found({"mine": {"engine": "openai", "model": "m", "url": "http://127.0.0.1:1/v1"}}, embeddings=embeddings)
    config = parse_text(composition_text(found), file="experts.yaml")
    assert (config.categories, config.policies) == (demo.categories, demo.policies)
    assert config.router.encoder.options["parts"][0]["kind"] == ("openai" if embeddings else "static")
    assert (config.retrieval is None, config.plugins) == (not embeddings, {})
