"""The learning loop against a known truth: do intervals cover, does the gate err, does the loop recover?

    python -m benchmarks.learning_loop --data FOLDER [--runs 200] [--scenarios 24] [--out FILE] [--seed N]

The fleet is simulated, its truth is a table of graded answers: what an expert scores on a prompt is looked up. What
learns is the code of `coe retrain`. Nothing here talks to a model.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from scipy.stats import beta

from base.blas import one_thread
from benchmarks.loop_arms import EXPLORATION, RESPONSE_RATE, Settings, fit_stage
from benchmarks.loop_experiments import (
    BLOCK,
    ESTIMATORS,
    QUANTITIES,
    Course,
    Coverage,
    GateTrial,
    Phase,
    is_conclusive,
    judged_run,
    recovery_decisions,
    scenario,
    scenario_run,
)
from benchmarks.loop_fleet import World, build_world, cached, moment_of, sampled_table
from router.build import build_encoder
from training.table_fit import encoder_config

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".." / "shared" / "data" / "routing" / "routerdc"
RESULTS = ROOT / "docs" / "results" / "learning-loop.md"

PER_CATEGORY = 250
NEWCOMER, ADDED, DEGRADED = "python_code", "metamath-mistral-7b", "dolphin-2.9-llama3-8b"
FACTOR, NEWCOMER_SHARE = 0.3, 0.2
LOGGED = 10_000
"""Decisions of the log of a run of the first two experiments."""

NOISES = (0.05, 0.1, 0.2)
BLOCKS = 8
RECOVERY = 0.9
ARMS = ("coe retrain", "no retraining", "averaging the log", "Beta bandit")


@dataclass(frozen=True)
class Findings:
    """Everything that was measured."""

    coverage: tuple[Coverage, ...]
    natural: tuple[GateTrial, ...]
    spoiled: tuple[GateTrial, ...]
    courses: tuple[Course, ...]
    phases: tuple[Phase, ...]


def share_with_interval(hits: int, n: int) -> str:
    """A share in percent with its exact 95% interval (Clopper & Pearson 1934)."""
    if n == 0:
        return "none"
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))
    return f"{100 * hits / n:.1f}% [{100 * low:.1f}, {100 * high:.1f}] of {n}"


def mean_with_interval(values: Sequence[float]) -> str:
    """Mean in percent with its normal 95% interval over runs."""
    array = 100 * np.asarray(values)
    half = 1.96 * array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else float("nan")
    return f"{array.mean():.1f} ± {half:.1f}"


def coverage_lines(runs: Sequence[Coverage]) -> list[str]:
    parts = {
        "all runs": list(runs),
        "runs that the gate concludes from": [run for run in runs if is_conclusive(run)],
    }
    lines = ["| runs | estimator | live | candidate | difference | mean error of the difference |", "| --- " * 6 + "|"]
    for label, part in parts.items():
        for name in ESTIMATORS:
            cells = [share_with_interval(sum(run.covers[name, q] for run in part), len(part)) for q in QUANTITIES]
            error = f"{np.mean([run.error[name, 'difference'] for run in part]):+.4f}" if part else ""
            lines.append(f"| {label} | {name} | " + " | ".join([*cells, error]) + " |")
    return lines


def gate_lines(natural: Sequence[GateTrial], spoiled: Sequence[GateTrial], margin: float) -> list[str]:
    bands: dict[str, Callable[[float], bool]] = {
        f"worse by more than the margin ({margin:g})": lambda d: d < -margin,
        "worse, within the margin": lambda d: -margin <= d < -1e-9,
        "equal": lambda d: abs(d) <= 1e-9,
        "better": lambda d: d > 1e-9,
    }
    lines = ["| candidate | truly | promoted |", "| --- " * 3 + "|"]
    for label, trials in (("as retraining makes it", natural), ("spoiled", spoiled)):
        for band, belongs in bands.items():
            inside = [trial for trial in trials if belongs(trial.difference)]
            lines.append(
                f"| {label} | {band} | {share_with_interval(sum(t.is_promoted for t in inside), len(inside))} |"
            )
        worse = sum(t.is_promoted and t.difference < -1e-9 for t in trials)
        lines.append(
            f"| {label} | **runs in which a worse one was promoted** | {share_with_interval(worse, len(trials))} |"
        )
    return lines


def promotion_line(courses: Sequence[Course], margin: float) -> str:
    rounds = [one for course in courses for one in course.rounds]
    promoted = [one.candidate_value - one.live_value for one in rounds if one.is_promoted]
    worse = [d for d in promoted if d < -1e-9]
    much = sum(d < -margin for d in promoted)
    return (
        f"Over {len(rounds)} rounds of the scenario {len(promoted)} candidates were promoted, with a mean true gain of "
        f"{100 * np.mean(promoted):+.2f} points. Worse ones: {share_with_interval(len(worse), len(rounds))} rounds "
        f"(mean loss {100 * -np.mean(worse) if worse else 0.0:.2f} points), of which {much} by more than the margin."
    )


def served_lines(courses: Sequence[Course], phases: Sequence[Phase]) -> list[str]:
    lines = ["| phase | " + " | ".join(ARMS) + " | reachable |", "| --- " * (len(ARMS) + 2) + "|"]
    for phase in phases:
        inside = np.array([name == phase.name for name in courses[0].phases])
        cells = [mean_with_interval([course.served[arm][inside].mean() for course in courses]) for arm in ARMS]
        best = mean_with_interval([course.reachable[inside].mean() for course in courses])
        lines.append(f"| {phase.name} | " + " | ".join([*cells, best]) + " |")
    cells = [mean_with_interval([course.served[arm].mean() for course in courses]) for arm in ARMS]
    best = mean_with_interval([course.reachable.mean() for course in courses])
    lines.append("| **all** | " + " | ".join([*cells, best]) + " |")
    return lines


def recovery_lines(courses: Sequence[Course], phases: Sequence[Phase]) -> list[str]:
    lines = ["| phase | " + " | ".join(ARMS) + " |", "| --- " * (len(ARMS) + 1) + "|"]
    for phase in phases[1:]:
        cells = []
        for arm in ARMS:
            found = np.array([recovery_decisions(course, arm, phase.name, RECOVERY) for course in courses])
            within = int(np.isfinite(found).sum())
            middle = float(np.median(found))
            shown = f"{middle:.0f}" if np.isfinite(middle) else "not reached"
            cells.append(f"{shown} ({within} of {len(found)} runs)")
        lines.append(f"| {phase.name} | " + " | ".join(cells) + " |")
    return lines


def share_lines(courses: Sequence[Course], phase: str) -> list[str]:
    """Share of a router's gap to the reachable that is recovered, by decisions since the phase began."""
    inside = [i for i, name in enumerate(courses[0].phases) if name == phase]
    after = [i for i in (500, 1000, 2000, 4000) if i <= len(inside) * BLOCK]
    lines = ["| decisions | " + " | ".join(ARMS) + " |", "| --- " * (len(ARMS) + 1) + "|"]
    for n in after:
        at = inside[n // BLOCK - 1]
        cells = []
        for arm in ARMS:
            shares = [
                (c.value[arm][at] - c.start[arm, phase]) / (c.reachable[at] - c.start[arm, phase]) for c in courses
            ]
            cells.append(mean_with_interval(shares))
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return lines


def page(found: Findings, world: World, command: str, minutes: float, margin: float) -> str:
    phases = found.phases
    return "\n".join(
        [
            "# The learning loop against a known truth (simulation)",
            "",
            f"    {command}",
            "",
            f"**Simulated traffic, real truth**: an expert's score on a prompt is looked up in a public table of "
            f"graded answers ({len(world.traffic.experts)} experts, {len(world.traffic.texts)} prompts of traffic in "
            f"{len(set(world.traffic.categories))} categories). A person rates {RESPONSE_RATE:.0%} of the answers; a "
            "thumb is up with probability 0.1 + 0.8 x score. The first router has seen 16 graded probes per category. "
            "Everything that learns, estimates and decides is the code of `coe retrain`. Scores are in percent; "
            f"brackets and ± are 95% intervals. The run took {minutes:.0f} minutes on one core.",
            "",
            "## Do the intervals cover?",
            "",
            f"{len(found.coverage)} runs, each with a new log of {LOGGED} decisions, explored at a budget of "
            f"{EXPLORATION.budget:.1%}. "
            "Half of the questions judge. The stated rate is 95%. The gate concludes from a log only with an "
            "effective sample of at least 20 decisions on the queries that change hands.",
            "",
            *coverage_lines(found.coverage),
            "",
            "## Does the gate promote a worse router?",
            "",
            "From the same logs: the candidate that retraining makes of each, and one spoiled by normal noise of "
            f"{', '.join(map(str, NOISES))} on every measured quality.",
            "",
            *gate_lines(found.natural, found.spoiled, margin),
            "",
            "## Drift",
            "",
            f"{len(found.courses)} runs of {len(phases)} phases of {phases[0].blocks * BLOCK} decisions; "
            f"the loop retrains every {BLOCK} decisions. First, the scores of "
            f"{DEGRADED} fall to {FACTOR:.0%}. Then {NEWCOMER_SHARE:.0%} of the traffic belongs to a category that "
            f"neither stage 1 nor a probe has seen. Then {ADDED} joins with its probes. Mean true score of "
            "the answers:",
            "",
            *served_lines(found.courses, phases),
            "",
            "`reachable` is the best map in hindsight over the rows that stage 1 decides, less the cost of "
            "exploration. "
            "The bandit learns from every thumb at once and explores without a limit. Averaging takes the highest mean "
            "over the whole log, every 500 decisions. Neither is judged before it serves.",
            "",
            f"Decisions until {RECOVERY:.0%} of the gap to `reachable` at the beginning of a phase is recovered "
            "(median over runs; number of runs in which it happened within the phase):",
            "",
            *recovery_lines(found.courses, phases),
            "",
            f"Share of that gap recovered by a number of decisions after {DEGRADED} degrades, in percent:",
            "",
            *share_lines(found.courses, phases[1].name),
            "",
            promotion_line(found.courses, margin),
            "",
        ]
    )


def experiment(
    world: World, settings: Settings, runs: int, scenarios: int, workers: int, seed: int, tell: Callable[[str], None]
) -> Findings:
    """All measurements; their figures follow from the seed, whatever the number of workers."""
    stage = fit_stage(world, np.random.default_rng(seed))
    moment = moment_of(world, absent=(ADDED,))
    phases = scenario(world, DEGRADED, FACTOR, ADDED, NEWCOMER_SHARE, BLOCKS)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting = [
            pool.submit(judged_run, world, stage, settings, moment, LOGGED, NOISES[run % len(NOISES)], (seed, run))
            for run in range(runs)
        ]
        driving = [pool.submit(scenario_run, world, stage, settings, phases, seed + run) for run in range(scenarios)]
        judged = []
        for done in waiting:
            judged.append(done.result())
            if len(judged) % 20 == 0:
                tell(f"judged {len(judged)} of {runs} logs")
        courses = [course.result() for course in driving]
    coverage, natural, spoiled = zip(*judged, strict=True)
    return Findings(coverage, natural, spoiled, tuple(courses), tuple(phases))


def main(
    data: Annotated[Path, typer.Option(help="folder of the outcome table")] = DATA,
    runs: Annotated[int, typer.Option(help="logs that are judged")] = 200,
    scenarios: Annotated[int, typer.Option(help="runs of the scenario with drift")] = 24,
    workers: Annotated[int, typer.Option(min=1, help="processes at once")] = 1,
    encoder: Annotated[str, typer.Option(help="kinds of encoders of stage 1, joined by +")] = "hashing",
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
    table = sampled_table(data, PER_CATEGORY, rng)
    with one_thread(), tempfile.TemporaryDirectory(prefix="coe-loop-") as folder:
        world = build_world(table, cached(build_encoder(encoder_config(encoder)), cache), rng, newcomer=NEWCOMER)
        settings = Settings(Path(folder))
        found = experiment(world, settings, runs, scenarios, workers, seed, tell)
    command = "python -m benchmarks.learning_loop"
    out.parent.mkdir(parents=True, exist_ok=True)
    times = os.times()
    minutes = (times.user + times.children_user) / 60
    out.write_text(page(found, world, command, minutes, settings.terms.margin), encoding="utf-8")
    tell(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
