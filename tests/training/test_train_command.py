"""`coe train` again: what it does to the live router and to a trial, and what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.base.shipped import query_folder, seed_folder
from coe.cli.command_line import run
from coe.fleet.router_registry import Registry
from coe.router.build import load_router
from coe.router.config.composition import load_config
from coe.router.live_pointer import LIVE_FILE, Trial
from coe.router.types import Query
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.fit_inputs import TrainRequest, fit_configured
from coe.training.fit_options import FitOptions
from tests.training.trained_folder import CONFIG, NOW, make_trained, outcome_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_trained(tmp_path)


def train(folder: Path, *words: str) -> int:
    where = ["--config", str(folder / "experts.yaml"), "--data-dir", str(folder / "data")]
    return run("train", [*words, *where])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_the_same_router_again_changes_nothing_and_a_trial_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(folder / "data" / "routers")
    outcomes = folder / "data" / "outcomes" / "probes"
    other = fit_configured(
        registry.root, TrainRequest(folder / "experts.yaml", outcomes, options=FitOptions(scorer="soft_map")), now=NOW
    ).manifest.version
    trial = Trial(version=other, share=0.1, started_at=1e9)
    before = registry.try_out(trial)
    assert train(folder) == 0
    assert registry.live() == before
    changed = f"router {before.version} is live already: nothing changed, and the trial of {other} continues"
    assert changed in said(capsys)


@pytest.mark.parametrize(("score", "is_doubted"), [(0.02, True), (0.1, False)])
def test_experts_of_whom_none_is_any_good_are_doubted_and_served(
    folder: Path, capsys: pytest.CaptureFixture[str], score: float, is_doubted: bool
) -> None:
    prompts = [(category, i) for category in ("facts", "sql", "general") for i in range(1, 13)]
    scores = np.array([[score, 0.0]] * len(prompts))
    write_outcomes(outcome_table(prompts, ("left", "right"), scores), folder / "data" / "outcomes" / "probes")
    assert train(folder) == 0
    assert (
        said(capsys).count("scores only 2.0% on average, so these grades do not show which expert is better")
        == is_doubted
    )
    assert Registry(folder / "data" / "routers").live().history


def test_an_expert_that_nobody_grades_any_more_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [(category, i) for category in ("facts", "sql", "general") for i in range(1, 7)]
    outcomes = folder / "data" / "outcomes" / "probes"
    write_outcomes(outcome_table(prompts, ("right",), np.full((len(prompts), 1), 0.5)), outcomes)
    assert train(folder) == 0
    text = said(capsys)
    assert "no longer on the map, because no table in" in text
    assert "grades them: left; `coe experts probe NAME`" in text


def test_a_damaged_pointer_is_mended(folder: Path) -> None:
    (folder / "data" / "routers" / LIVE_FILE).write_text("{")
    assert train(folder) == 0
    assert Registry(folder / "data" / "routers").live() is not None


def test_a_category_without_a_labelled_query_is_named_before_anything_is_encoded(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load((folder / "experts.yaml").read_text())
    values["categories"] = {**CONFIG["categories"], "poems": "verse"}
    (folder / "experts.yaml").write_text(yaml.dump(values))

    def refuse(*_: object) -> None:
        raise AssertionError("the encoder was opened")

    monkeypatch.setattr("coe.training.fit_inputs.build_encoder", refuse)
    assert train(folder) == 1
    assert "no labelled query for category poems: add some" in capsys.readouterr().err


def test_a_router_that_is_never_sure_is_not_made_live_and_what_to_change_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(folder / "data" / "routers")
    before = registry.live()
    values = yaml.safe_load((folder / "experts.yaml").read_text())
    values["router"]["alpha"] = 1e-6
    (folder / "experts.yaml").write_text(yaml.safe_dump(values))
    assert train(folder, "--seed", "4") == 1
    assert registry.live() == before
    captured = capsys.readouterr()
    found = re.search(r"raise router\.alpha to ([0-9.]+) or more", captured.err)
    assert "is never sure of a category, so everything would go to general" in captured.err
    assert "too few for router.alpha=1e-06. It was not made live" in captured.err
    values["router"]["alpha"] = float(found[1])
    (folder / "experts.yaml").write_text(yaml.safe_dump(values))
    assert train(folder, "--seed", "4") == 0
    assert registry.live() != before


def test_a_category_of_five_examples_is_served_and_its_doubt_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((folder / "experts.yaml").read_text())
    config["categories"]["recipes"] = "what to cook"
    asked = ["bake a cake", "cook rice", "cook an egg", "bake a quiche with leek", "cook a soup"]
    config["examples"] = {"recipes": asked}
    (folder / "experts.yaml").write_text(yaml.dump(config))
    assert train(folder) == 0
    found = said(capsys)
    assert re.search(r"recipes is new: [0-6] of its 6 queries were served as it when left out \(\d+% to \d+%\)", found)
    assert "no answer is graded there" in found
    registry = Registry(folder / "data" / "routers")
    router = load_router(load_config(folder / "experts.yaml"), registry.folder(registry.live().version))
    rng = np.random.default_rng(0)
    assert router.decide(Query(id="q", text="how do I bake a cake with rice"), rng=rng).category == "recipes"
    config["examples"] = {"recepies": asked}
    (folder / "experts.yaml").write_text(yaml.dump(config))
    assert train(folder) != 0
    assert "examples: unknown category 'recepies'" in capsys.readouterr().err


def test_labelled_queries_of_the_data_folder_take_the_place_of_the_shipped_ones(folder: Path, tmp_path: Path) -> None:
    assert query_folder(tmp_path) == seed_folder()
    own = folder / "data" / "queries"
    own.mkdir()
    lines = [json.dumps({"text": f"sum number {number}"}) for number in range(3)]
    (own / "wrong.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert query_folder(folder / "data") == own
    assert train(folder) == 1, "they lack its categories"
