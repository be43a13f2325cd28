"""The learning loop against a known truth: do intervals cover, does the gate err, does the loop recover?

    python -m benchmarks.learning_loop --data FOLDER [--runs 200] [--scenarios 24] [--out FILE] [--seed N]

The fleet is simulated, its truth is a table of graded answers: what an expert scores on a prompt is looked up. What
learns is the code of `coe retrain`. Nothing here talks to a model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.loop_experiments import (
    covering_run,
    promoting_run,
    scenario,
    scenario_run,
)
from benchmarks.loop_fleet import HARD, World, build_world, cached, sampled_table
from benchmarks.loop_judge import GPT4
from benchmarks.loop_newcomers import (
    NEWCOMERS,
    PER_CATEGORY,
    Place,
    joining_run,
    place_of,
)
from benchmarks.loop_page import BLOCKS, DEGRADED, EVERY, FACTOR, JOINING, LOGGED, NOISE, TABLE, Findings, page
from benchmarks.loop_stage import Settings, Stage, fit_stage
from coe.router.build import build_encoder
from coe.router.config import load_config
from coe.training.fit import one_thread
from coe.training.gate import DEFAULT_TERMS

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".." / "shared" / "data" / "routing"
RESULTS = ROOT / "docs" / "results" / "learning-loop.md"

LEFT_OUT = ("python_code",)
"""Category that falls into another one."""

ABSENT = "metamath-mistral-7b"


def experiment(
    world: World,
    stage: Stage,
    places: Sequence[Place],
    *,
    runs: int,
    scenarios: int,
    workers: int,
    seed: int,
    tell: Callable[[str], None],
) -> Findings:
    """All measurements; their figures follow from the seed, whatever the number of workers."""
    calm, hard = Settings(retrain_every=EVERY), Settings(retrain_every=EVERY, voices=HARD)
    kinds = {"calm": (calm, 0.0, runs), "hard": (hard, 0.0, runs // 2), "spoiled": (calm, NOISE, runs // 2)}
    absent = (ABSENT,)
    phases = scenario(world, DEGRADED, FACTOR, absent, BLOCKS)
    times = range(max(scenarios // 4, 1))
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        driving = [pool.submit(scenario_run, world, stage, Settings(), phases, seed + run) for run in range(scenarios)]
        covering = [
            pool.submit(covering_run, world, stage, calm, absent, LOGGED, 0.1, (seed, run)) for run in range(runs // 2)
        ]
        judging = {
            name: [
                pool.submit(promoting_run, world, stage, settings, absent, LOGGED, noise, (seed, run))
                for run in range(n)
            ]
            for name, (settings, noise, n) in kinds.items()
        }
        joining = [
            pool.submit(joining_run, place, settings, arm, BLOCKS, (seed, i, run))
            for i, place in enumerate(places)
            for arm, settings in zip(JOINING, (Settings(), Settings(judge=GPT4), Settings()), strict=True)
            for run in times
        ]
        imitating = [
            pool.submit(joining_run, place, Settings(), "coe retrain", BLOCKS, (seed, i, run), is_imitation=True)
            for i, place in enumerate(places)
            if place.newcomer.expert
            for run in range(scenarios)
        ]
        courses = tuple(course.result() for course in driving)
        tell(f"{scenarios} scenarios done")
        joined, imitations = (tuple(run.result() for run in each) for each in (joining, imitating))
        tell(f"{len(joined) + len(imitations)} newcomers done")
        coverage = tuple(run for run in (each.result() for each in covering) if run is not None)
        tell("coverage done")
        gate = {}
        for name, waiting in judging.items():
            gate[name] = [run.result() for run in waiting]
            tell(f"{len(waiting)} runs of '{name}' done")
    return Findings(coverage, gate, courses, tuple(phases), joined, imitations)


def main(
    data: Annotated[Path, typer.Option(help="folder of the outcome tables")] = DATA,
    runs: Annotated[int, typer.Option(help="loops of each kind")] = 400,
    scenarios: Annotated[int, typer.Option(min=1, help="runs of the scenario with drift")] = 24,
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

    rng = np.random.default_rng(seed)
    table = sampled_table(data / TABLE, PER_CATEGORY, rng)
    table = table.rows(np.flatnonzero(~np.isin(table.categories, LEFT_OUT)))
    kind = load_config(ROOT / "experts.yaml").router.encoder
    with one_thread():
        encoder = cached(build_encoder(kind), cache)
        world = build_world(table, encoder, rng)
        stage = fit_stage(world, kind, rng)
        places = [place_of(each, data, encoder, kind, seed) for each in NEWCOMERS]
        tell("worlds made")
        found = experiment(world, stage, places, runs=runs, scenarios=scenarios, workers=workers, seed=seed, tell=tell)
    command = f"python -m benchmarks.learning_loop --runs {runs} --scenarios {scenarios} --seed {seed}"
    out.parent.mkdir(parents=True, exist_ok=True)
    times = os.times()
    minutes = (times.user + times.children_user) / 60
    out.write_text(page(found, world, command, minutes, DEFAULT_TERMS.margin), encoding="utf-8")
    tell(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
