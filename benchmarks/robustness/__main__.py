"""Counts decisions of the live router that flip under harmless changes of a text: `python -m benchmarks.robustness`.

Texts are the fifth of the seed set that no router is fitted on, and the probes. With `--outcomes` they are the test
split of that table, whose scores price each flip. Calls no expert. Four minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.robustness.flips import KnownScores, measure_flips
from coe.base.shipped import seed_folder
from coe.cli.options import ConfigOption, DataOption, SeedOption
from coe.eval.probe_set import load_probes
from coe.router.build import live_router
from coe.router.config.composition import load_config
from coe.router.pipeline import Router
from coe.router.types import QueryBatch, RoutingDecision
from coe.training.datasets.outcomes import read_outcomes
from coe.training.fit_inputs import read_seed
from coe.training.types import split_of

ENCODE_BATCH = 64


def decide(router: Router, policy: str, texts: Sequence[str]) -> list[RoutingDecision]:
    """Decides texts as the gateway does, stripped, without exploration."""
    decisions: list[RoutingDecision] = []
    for start in range(0, len(texts), ENCODE_BATCH):
        part = [text.strip() for text in texts[start : start + ENCODE_BATCH]]
        batch = QueryBatch.of(part, router.encoder.encode(part))
        decisions.extend(router.decide_batch(batch, rng=np.random.default_rng(0), policy=policy))
    return decisions


def own_texts() -> tuple[str, ...]:
    held_out = [query.text for query in read_seed(seed_folder()) if split_of(query.text) == "test"]
    return tuple(dict.fromkeys([*held_out, *(probe.text for probe in load_probes())]))


def main(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    policy: Annotated[str, typer.Option(help="policy of experts.yaml")] = "default",
    outcomes: Annotated[Path | None, typer.Option(help="outcome table: its test prompts, and what flips cost")] = None,
    per_family: Annotated[int, typer.Option(min=1, help="maximum number of cases of a family for one text")] = 2,
    seed: SeedOption = 0,
) -> None:
    router = live_router(load_config(config), data_dir).without_exploration()
    texts, known = own_texts(), None
    if outcomes is not None:
        table = read_outcomes(outcomes, keep_partial=True)
        test = table.split("test") if "test" in table.splits else table
        texts, known = test.texts, KnownScores(test.experts, test.scores)
    found = measure_flips(
        lambda asked: decide(router, policy, asked), texts, seed, cases_per_family=per_family, known=known
    )
    print(found.model_dump_json(indent=1))


if __name__ == "__main__":
    typer.run(main)
