"""The wheel holds the product, and nothing of the demo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from coe.fleet.setup.composition import Found, composition_text
from coe.router.config import load_config, parse_text

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(out), str(ROOT)], check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with ZipFile(wheel) as content:
        return set(content.namelist())


def test_what_a_first_composition_needs_is_there(names: set[str]) -> None:
    wanted = ("examples/smollm2/seed/sql.jsonl", "examples/smollm2/probes/sql.jsonl")
    assert {"fleet/coe/fleet/setup/starter.yaml", *(f"coe/shipped/{each}" for each in wanted)} <= names


def test_nothing_of_the_demo_is_there(names: set[str]) -> None:
    shipped = {name.removeprefix("coe/shipped/examples/smollm2/") for name in names if name.startswith("coe/shipped/")}
    assert {name.partition("/")[0] for name in shipped} == {"seed", "probes"}
    assert not [name for name in names if name.startswith(("examples", "coe_offline")) or "adapter_model" in name]


def test_a_first_composition_has_the_categories_of_the_queries_and_no_plugin_of_the_demo() -> None:
    found = Found(experts={"mine": {"engine": "openai", "model": "m", "url": "http://127.0.0.1:1/v1"}})
    config, demo = parse_text(composition_text(found), file="experts.yaml"), load_config(ROOT / "experts.yaml")
    assert (config.categories, config.router, config.policies) == (demo.categories, demo.router, demo.policies)
    assert config.plugins == {}
