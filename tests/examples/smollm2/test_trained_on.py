"""What the shipped adapters learned from, and the held-out probes of their scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coe.eval.probe_set import load_probe_file
from coe.training.lora.examples import read_examples, split_examples

ADAPTERS = Path(__file__).parents[3] / "examples" / "smollm2" / "adapters"
RECIPES = [json.loads(file.read_text()) for file in sorted(ADAPTERS.glob("*/recipe.json"))]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe["expert"])
def test_the_examples_of_an_adapter_are_all_there_and_no_held_out_probe_is_among_them(recipe: dict) -> None:
    task = recipe["task"]
    examples = read_examples(ADAPTERS / "trained_on" / f"{task}.jsonl", task)
    assert len(examples) == recipe["training_examples"] == recipe["steps"] * recipe["batch_size"]
    assert sum(map(len, split_examples(examples))) > 0.9 * len(examples)  # `coe experts train-lora` takes them
    probes = load_probe_file(ADAPTERS / "held_out" / f"{task}.jsonl", task)
    assert len([probe.grader.build() for probe in probes]) == 40
    assert not {probe.text for probe in probes} & {example.prompt for example in examples}


def test_every_adapter_has_its_examples() -> None:
    assert len(RECIPES) == 5
    for folder in ("trained_on", "held_out"):
        assert {file.stem for file in (ADAPTERS / folder).iterdir()} == {recipe["task"] for recipe in RECIPES}
