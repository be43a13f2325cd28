"""A data folder with a live router over three experts of which two are cheap, and grades of more prompts on request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.types import OutcomeTable
from tests.outcome_tables import scored_table
from tests.training.trained_folder import NOW, put_first_router, temporary_folder

EXPERTS = {"small": 0.1, "other": 0.2, "strong": 5.0}
"""USD per million tokens."""

RIGHT = {"small": 0.85, "other": 0.85, "strong": 0.9}
CATEGORIES = ("facts", "sql")
SAVER = {"strategy": "agree", "quality_floor": {"within": 0.01, "of": "strong"}}


def configuration(saver: dict[str, object] | None = None) -> dict[str, object]:
    return {
        "categories": {"facts": "short factual questions", "sql": "writing SQL", "general": "the rest"},
        "experts": {
            name: {"engine": "echo", "model": name, "price": {"input": usd, "output": usd}}
            for name, usd in EXPERTS.items()
        },
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}, "alpha": 0.9},
        "answers": {"facts": {"kind": "option"}, "sql": {"kind": "option"}},
        "policies": {"default": {}, "saver": saver or SAVER},
    }


def text_of(prompt: str) -> str:
    category, _, number = prompt.partition("-")
    return f"{category} question number {number}: which {category} option is right?"


def grades(prompts: Sequence[str], right: dict[str, float] = RIGHT, seed: int = 0) -> OutcomeTable:
    """What the experts answer to prompts such as `sql-007`: right ones are equal, wrong ones one of four."""
    scores, keys = np.zeros((len(prompts), 3)), np.zeros((len(prompts), 3), dtype=np.int64)
    for i, prompt in enumerate(prompts):
        rng = np.random.default_rng([seed, *prompt.encode()])
        scores[i] = rng.random(3) < np.array([right[name] for name in EXPERTS])
        keys[i] = np.where(scores[i] > 0, 0, rng.integers(1, 5, size=3))
    return scored_table(
        scores,
        [prompt.partition("-")[0] for prompt in prompts],
        tuple(EXPERTS),
        prompt_ids=tuple(prompts),
        texts=tuple(text_of(prompt) for prompt in prompts),
        answers=keys,
    )


def names(first: int, last: int) -> list[str]:
    return [f"{category}-{i:03}" for i in range(first, last) for category in CATEGORIES]


def write_probes(path: Path, prompts: Sequence[str]) -> Path:
    lines = [
        {
            "id": prompt,
            "text": text_of(prompt),
            "category": prompt.partition("-")[0],
            "grader": {"kind": "option", "right": "A"},
            "max_tokens": 16,
        }
        for prompt in prompts
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def certified_folder(folder: Path) -> Path:
    """experts.yaml, and `data` with a router that was fitted on 200 prompts."""
    shutil.copytree(made_once(), folder, dirs_exist_ok=True)
    return folder


@cache
def made_once() -> Path:
    folder = temporary_folder()
    (folder / "experts.yaml").write_text(yaml.dump(configuration()))
    outcomes = folder / "data" / "outcomes" / "probes"
    write_outcomes(grades(names(0, 100)), outcomes)
    put_first_router(folder / "experts.yaml", outcomes, folder / "data" / "routers", NOW)
    return folder
