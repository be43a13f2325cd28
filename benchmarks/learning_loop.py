"""The learning loop against a known truth: does it pay, does it err, does it recover?

    python -m benchmarks.learning_loop --data FOLDER [--runs 8] [--out FILE] [--seed N]

The fleet is simulated, its truth is a table of graded answers: what an expert scores on a prompt is looked up. What
learns is the code of `coe retrain`. Nothing here talks to a model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.loop_experiments import BLOCK, Paid, drifting_run, paying_run
from benchmarks.loop_fleet import Voices, World, build_world, cached, sampled_table
from benchmarks.loop_judge import GPT4
from benchmarks.loop_newcomers import FASTEVAL, NEWCOMERS, PER_CATEGORY, SMALL, Place, joining_run, place_of
from benchmarks.loop_page import (
    BLOCKS,
    DEGRADED,
    FACTOR,
    GRADED,
    JOINING,
    LOGGED,
    TABLE,
    TABLES,
    Findings,
    page,
)
from benchmarks.loop_stage import Settings, Stage, fit_stage
from coe.router.build import build_encoder
from coe.router.config.composition import load_config
from coe.router.protocols import Encoder
from coe.router.section import PluginConfig
from coe.training.fit import one_thread

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".." / "shared" / "data" / "routing"
RESULTS = ROOT / "docs" / "results" / "learning-loop.md"

LEFT_OUT = ("python_code",)
"""Category that falls into another one."""

ABSENT = "metamath-mistral-7b"
COE5 = ("qwen2-7b-instruct", "gemma-2-9b-it", "gemma-2-27b-it", "llama-3.1-70b-instruct", "qwen2-72b-instruct")
EXPERTS = {
    "fasteval": FASTEVAL,
    "mmlu_pro_cot": SMALL,
    "zeroeval": COE5,
}
FEEDBACK = {"all": Voices(down=1.0, up=1.0), "thumbs": Voices(down=0.10, up=0.05)}


def world_of(
    name: str, data: Path, encoder: Encoder, kind: PluginConfig, seed: int, graded: int | None
) -> tuple[World, Stage]:
    """The world of a table with so many graded prompts, or the usual ones of each category, and its stage 1."""
    rng = np.random.default_rng(seed)
    table = sampled_table(data / name, PER_CATEGORY, rng, EXPERTS.get(name))
    table = table.rows(np.flatnonzero(~np.isin(table.categories, LEFT_OUT)))
    more = {} if graded is None else {"probes_per_category": max(round(graded / len(set(table.categories))), 1)}
    world = build_world(table, encoder, rng, **more)
    return world, fit_stage(world, kind, rng)


Runs = Mapping[tuple[str, str], Sequence[Future[Paid]]]


def experiment(
    worlds: Mapping[str, tuple[World, Stage]],
    fallen: tuple[World, Stage],
    places: Sequence[Place],
    *,
    runs: int,
    workers: int,
    seed: int,
    tell: Callable[[str], None],
) -> Findings:
    """All measurements; their figures follow from the seed, whatever the number of workers."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:

        def paying(*, is_null: bool) -> Runs:
            return {
                (feedback, name): [
                    pool.submit(
                        paying_run,
                        *worlds[name],
                        Settings(voices=voices),
                        LOGGED // BLOCK,
                        (seed, run),
                        is_null=is_null,
                    )
                    for run in range(runs)
                ]
                for feedback, voices in FEEDBACK.items()
                for name in worlds
            }

        paid, nulls = paying(is_null=False), paying(is_null=True)
        falls = [
            pool.submit(drifting_run, *fallen, Settings(), (DEGRADED, FACTOR), (ABSENT,), BLOCKS, (seed, run))
            for run in range(2 * runs)
        ]
        joining = [
            pool.submit(joining_run, place, settings, arm, BLOCKS, (seed, i, run))
            for i, place in enumerate(places)
            for arm, settings in zip(JOINING, (Settings(), Settings(judge=GPT4)), strict=True)
            for run in range(runs)
        ]
        imitating = [
            pool.submit(joining_run, place, Settings(), "coe retrain", BLOCKS, (seed, i, run), is_imitation=True)
            for i, place in enumerate(places)
            if place.newcomer.expert
            for run in range(2 * runs)
        ]

        def done(found: Runs, words: str) -> dict[tuple[str, str], list[Paid]]:
            made = {key: [each.result() for each in own] for key, own in found.items()}
            tell(words)
            return made

        return Findings(
            done(paid, "worlds done"),
            done(nulls, "null worlds done"),
            [each.result() for each in falls],
            [each.result() for each in joining],
            [each.result() for each in imitating],
        )


def main(
    data: Annotated[Path, typer.Option(help="folder of the outcome tables")] = DATA,
    runs: Annotated[int, typer.Option(min=1, help="loops of each kind and table")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="processes at once")] = 1,
    cache: Annotated[Path | None, typer.Option(help="folder that keeps embeddings")] = None,
    out: Annotated[Path, typer.Option(help="page to write")] = RESULTS,
    seed: Annotated[int, typer.Option(help="of every random draw")] = 0,
) -> None:
    """Measure the learning loop."""
    if not data.is_dir():
        raise SystemExit(f"{data}: no such folder; name an outcome table with --data")
    start, console = time.monotonic(), Console(stderr=True)

    def tell(message: str) -> None:
        console.print(f"{time.monotonic() - start:5.0f} s  {message}", markup=False, highlight=False)

    kind = load_config(ROOT / "experts.yaml").router.encoder
    with one_thread():
        encoder = cached(build_encoder(kind), cache)
        worlds = {name: world_of(name, data, encoder, kind, seed, GRADED) for name in TABLES}
        fallen = world_of(TABLE, data, encoder, kind, seed, None)
        places = [place_of(each, data, encoder, kind, seed) for each in NEWCOMERS]
        tell("worlds made")
        found = experiment(worlds, fallen, places, runs=runs, workers=workers, seed=seed, tell=tell)
    command = f"python -m benchmarks.learning_loop --runs {runs} --seed {seed}"
    out.parent.mkdir(parents=True, exist_ok=True)
    times = os.times()
    minutes = (times.user + times.children_user) / 60
    out.write_text(page(found, command, minutes), encoding="utf-8")
    tell(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
