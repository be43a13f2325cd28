"""A data folder with experts.yaml and a live router over two experts that knows facts and SQL."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from coe.fleet.router_registry import Registry
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.fit_inputs import TrainRequest, fit_configured
from coe.training.types import OutcomeTable
from tests.outcome_tables import scored_table

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXPERTS = ("left", "right")
CONFIG = {
    "categories": {"facts": "short factual questions", "sql": "writing SQL", "general": "the rest"},
    "experts": {name: {"engine": "echo", "model": name} for name in EXPERTS},
    "router": {
        "encoder": {"kind": "hashing"},
        "classifier": {"kind": "logistic"},
        "alpha": 0.9,
    },  # `coe train` wants a router that is sure
}

SCORES = {"facts": (0.6, 0.4), "sql": (0.6, 0.4), "general": (0.6, 0.4)}


def outcome_table(prompts: list[tuple[str, int]], experts: tuple[str, ...], scores: np.ndarray) -> OutcomeTable:
    return scored_table(
        scores,
        [c for c, _ in prompts],
        experts,
        prompt_ids=tuple(f"{c}-{i:03}" for c, i in prompts),
        texts=tuple(f"probe {i} of {c}" for c, i in prompts),
    )


def make_trained(
    folder: Path, per_category: int = 6, experts: tuple[str, str] = EXPERTS, encoder: str = "hashing"
) -> Path:
    """Writes it all into `folder`; outcomes in `data/outcomes/probes`."""
    shutil.copytree(trained_once(per_category, experts, encoder), folder, dirs_exist_ok=True)
    return folder


@cache
def trained_once(per_category: int, experts: tuple[str, str], encoder: str) -> Path:
    """The folder that tests copy."""
    folder = temporary_folder()
    entries = {name: {"engine": "echo", "model": name} for name in experts}
    router = {**CONFIG["router"], "encoder": {"kind": encoder}}
    (folder / "experts.yaml").write_text(yaml.dump({**CONFIG, "experts": entries, "router": router}))
    prompts = [(category, i) for category in SCORES for i in range(1, per_category + 1)]
    scores = np.array([SCORES[category] for category, _ in prompts])
    write_outcomes(outcome_table(prompts, experts, scores), folder / "data" / "outcomes" / "probes")
    put_first_router(folder / "experts.yaml", folder / "data" / "outcomes" / "probes", folder / "data" / "routers", NOW)
    return folder


def temporary_folder() -> Path:
    """A folder until the tests of this process have ended."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return folder


def put_first_router(config: Path, outcomes: Path, routers: Path, now: datetime) -> None:
    registry = Registry(routers)
    registry.promote(fit_configured(routers, TrainRequest(config, outcomes), now=now).manifest.version, now)
