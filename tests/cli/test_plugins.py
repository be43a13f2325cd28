"""The plugin of docs/plugins.md serves from a path, by a dotted name, and from an installed distribution."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml

from coe.base.errors import ConfigError
from coe.router import plugins
from coe.router.build import build_encoder, load_router
from coe.router.config.composition import load_config, parse_config
from coe.router.protocols import Encoder
from coe.training.fit_inputs import TrainRequest, fit_configured
from tests.training.trained_folder import CONFIG, EXPERTS, NOW, make_trained

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
ENCODER, PLACES, PROJECT = (
    re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0] for kind in ("python", "yaml", "toml")
)
FAMILIES = get_args(plugins.Family)
EXPERT_ENTRIES = {name: {"engine": "echo", "model": name} for name in EXPERTS}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is not there for the next."""
    monkeypatch.setattr(plugins, "_declared", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A composition as the page has it."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "letters.py").write_text(ENCODER)
    values = {**CONFIG, "experts": EXPERT_ENTRIES, **yaml.safe_load(PLACES)}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def check(config: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "coe", "check", "--config", str(config)]
    return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_a_path_in_experts_yaml_starts_at_its_folder(folder: Path) -> None:
    encoder = build_encoder(load_config(folder / "experts.yaml").router.encoder)
    assert isinstance(encoder, Encoder)
    np.testing.assert_allclose(encoder.encode(["abba", ""])[:, :2], [[0.5**0.5] * 2, [0, 0]], rtol=1e-6)
    assert "letters" in plugins.kinds("router.encoders")
    assert check(folder / "experts.yaml").returncode == 0


def test_options_of_a_plugin_are_checked_as_those_of_ours(folder: Path) -> None:
    text = (folder / "experts.yaml").read_text()
    (folder / "experts.yaml").write_text(text.replace("kind: letters", "kind: letters\n    leters: abc"))
    done = check(folder / "experts.yaml")
    assert done.returncode == 1
    assert "router.encoder: leters: unknown option; did you mean 'letters'?" in done.stdout + done.stderr


def test_a_dotted_name_is_a_module_that_python_finds(folder: Path) -> None:
    (folder / "own_package").mkdir()
    (folder / "own_package" / "letters.py").write_text(ENCODER)
    text = (folder / "experts.yaml").read_text()
    (folder / "experts.yaml").write_text(text.replace("plugins/letters.py", "own_package.letters"))
    assert check(folder / "experts.yaml", PYTHONPATH=str(folder)).returncode == 0
    done = check(folder / "experts.yaml")
    assert done.returncode == 1
    assert "kind 'letters' of router.encoders: own_package.letters cannot be imported" in done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder where the page's distribution is installed."""
    source, target = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "coe_letters.py").write_text(ENCODER)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def test_an_installed_distribution_needs_no_entry_in_experts_yaml(folder: Path, installed: Path) -> None:
    values = yaml.safe_load((folder / "experts.yaml").read_text())
    del values["plugins"]
    (folder / "experts.yaml").write_text(yaml.safe_dump(values))
    assert check(folder / "experts.yaml", PYTHONPATH=str(installed)).returncode == 0
    done = check(folder / "experts.yaml")
    assert done.returncode == 1
    assert "unknown kind 'letters' of router.encoders" in done.stdout + done.stderr


def test_a_classifier_of_ones_own_is_fitted_and_serves(tmp_path: Path) -> None:
    folder = make_trained(tmp_path)
    (folder / "mine.py").write_text("from coe.router.classifiers.logistic import *\n")
    values = yaml.safe_load((folder / "experts.yaml").read_text())
    values["router"]["classifier"] = {"kind": "mine"}
    values["plugins"] = {"router.classifiers": {"mine": "mine.py"}}
    (folder / "experts.yaml").write_text(yaml.safe_dump(values))
    request = TrainRequest(folder / "experts.yaml", folder / "data" / "outcomes" / "probes")
    fitted = fit_configured(folder / "data" / "routers", request, now=NOW)
    assert fitted.manifest.classifier.kind == "mine"
    router = load_router(load_config(folder / "experts.yaml"), folder / "data" / "routers" / fitted.manifest.version)
    assert router.classifier.categories_ == ("facts", "sql")


def test_the_page_names_every_family() -> None:
    _, _, table = PAGE.partition("\n## Families\n")
    assert {name for name in re.findall(r"`([\w.]+)`", table) if name in FAMILIES} == set(FAMILIES)


def test_a_name_of_ours_is_not_taken_over(folder: Path) -> None:
    places = {"router.encoders": {"hashing": "plugins/letters.py"}}
    with pytest.raises(ConfigError, match=r"plugins\.router\.encoders\.hashing: coe has a kind of that name"):
        parse_config({**CONFIG, "experts": EXPERT_ENTRIES, "plugins": places})


def test_a_gateway_that_runs_takes_no_other_plugins(folder: Path) -> None:
    """Whoever may change experts would have it run any file."""
    started = load_config(folder / "experts.yaml")
    values = {**CONFIG, "experts": EXPERT_ENTRIES, "plugins": {"router.encoders": {"other": "other.py"}}}
    with pytest.raises(ConfigError, match="plugins: take a restart"):
        parse_config(values, folder=folder, started=started)
    assert "other" not in plugins.kinds("router.encoders")
    again = parse_config(yaml.safe_load((folder / "experts.yaml").read_text()), folder=folder, started=started)
    assert again.plugins == started.plugins


def test_a_file_that_fails_is_named_and_tried_again(folder: Path) -> None:
    (folder / "plugins" / "letters.py").write_text("import no_such_package\n")
    config = load_config(folder / "experts.yaml")
    with pytest.raises(ConfigError, match=r"letters\.py cannot be imported \(No module named 'no_such_package'\)"):
        build_encoder(config.router.encoder)
    (folder / "plugins" / "letters.py").write_text(ENCODER)
    assert build_encoder(config.router.encoder).dim == 26
