"""The learning loop against a known truth: do intervals cover, does the gate err, does the loop recover?

    python -m benchmarks.learning_loop --data FOLDER [--runs 200] [--scenarios 24] [--out FILE] [--seed N]

The fleet is simulated, its truth is a table of graded answers: what an expert scores on a prompt is looked up. What
learns is the code of `coe retrain`. Nothing here talks to a model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
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
from benchmarks.loop_baselines import EVENLY_EXPLORED
from benchmarks.loop_experiments import (
    BLOCK,
    ESTIMATORS,
    QUANTITIES,
    Course,
    Coverage,
    GateTrial,
    Phase,
    covering_run,
    promoting_run,
    recovery_decisions,
    scenario,
    scenario_run,
)
from benchmarks.loop_fleet import CALM, HARD, World, build_world, cached, sampled_table
from benchmarks.loop_newcomers import (
    HALF,
    MOST,
    NEWCOMERS,
    PER_CATEGORY,
    PROBES,
    SHARE,
    Joining,
    Place,
    joining_run,
    place_of,
)
from benchmarks.loop_stage import EXPLORATION, Settings, Stage, fit_stage
from router.build import build_encoder
from router.config import load_config
from training.gate import DEFAULT_TERMS

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".." / "shared" / "data" / "routing"
RESULTS = ROOT / "docs" / "results" / "learning-loop.md"

TABLE, LEFT_OUT = "routerdc", ("python_code",)
"""Table of all but the newcomers, without a category that falls into another one."""

ABSENT, DEGRADED, FACTOR = "metamath-mistral-7b", "dolphin-2.9-llama3-8b", 0.3

LOGGED = 10_000
"""Decisions of the log of a run of the first two experiments."""

EVERY = 500
NOISE = 0.1
EQUAL = 1e-9
BLOCKS = 8
RECOVERY = 0.9
ARMS = ("coe retrain", "no retraining", "averaging the log", "Beta bandit")
LEARNERS = (*ARMS, "told")


@dataclass(frozen=True)
class Findings:
    """Everything that was measured. `imitations` are of experts that are nowhere better."""

    coverage: tuple[Coverage, ...]
    gate: Mapping[str, Sequence[GateTrial | None]]
    courses: tuple[Course, ...]
    phases: tuple[Phase, ...]
    joined: tuple[Joining, ...]
    imitations: tuple[Joining, ...]


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
        "runs that the gate concludes from": [run for run in runs if run.is_conclusive],
    }
    lines = ["| runs | estimator | live | candidate | difference | its mean error | its width |", "| --- " * 7 + "|"]
    for label, part in parts.items():
        for name in ESTIMATORS:
            cells = [share_with_interval(sum(run.covers[name, q] for run in part), len(part)) for q in QUANTITIES]
            error = f"{np.mean([run.error[name, 'difference'] for run in part]):+.4f}" if part else ""
            width = f"{np.median([run.width[name] for run in part]):.3f}" if part else ""
            lines.append(f"| {label} | {name} | " + " | ".join([*cells, error, width]) + " |")
    return lines


BANDS: dict[str, Callable[[float, float], bool]] = {
    "better by more than the margin": lambda gain, margin: gain > margin,
    "better, within the margin": lambda gain, margin: EQUAL < gain <= margin,
    "worse": lambda gain, _: gain < -EQUAL,
    "of these, worse by more than the margin": lambda gain, margin: gain < -margin,
}


def gate_lines(kinds: Mapping[str, Sequence[GateTrial | None]], margin: float) -> list[str]:
    """A line for each kind of run and what its candidates are worth, and what was worse of all that was promoted."""
    lines = ["| runs | candidate, truly | promoted | decisions until then, median |", "| --- " * 4 + "|"]
    for label, runs in kinds.items():
        trials = [run for run in runs if run is not None]
        for band, belongs in BANDS.items():
            inside = [trial for trial in trials if belongs(trial.gain, margin)]
            done = [trial.decisions for trial in inside if trial.is_promoted]
            when = f"{np.median(done):.0f}" if done else ""
            lines.append(f"| {label} | {band} | {share_with_interval(len(done), len(inside))} | {when} |")
        promoted = [trial.gain for trial in trials if trial.is_promoted]
        worse, judged = sum(gain < -EQUAL for gain in promoted), sum(trial.worst < -EQUAL for trial in trials)
        for name, n in (
            ("**a worse one, of all runs that judged one**", judged),
            ("worse, of promoted", len(promoted)),
        ):
            lines.append(f"| {label} | {name} | {share_with_interval(worse, n)} | |")
    return lines


def promotion_line(courses: Sequence[Course], margin: float) -> str:
    rounds = [one for course in courses for one in course.rounds if one.gate is not None]
    promoted = [one.gain for one in rounds if one.is_promoted]
    worse = [gain for gain in promoted if gain < -EQUAL]
    much = sum(gain < -margin for gain in promoted)
    taken = [one.gain_of_takeover for one in rounds if one.gain_of_takeover is not None]
    return (
        f"In {len(rounds)} rounds of the scenario the candidate decided otherwise than the live router; "
        f"{sum(one.gain < -EQUAL for one in rounds)} of them were truly worse. {len(promoted)} were promoted, "
        "with a mean "
        f"true gain of {100 * np.mean(promoted or [0.0]):+.2f} points. Worse ones, of all promoted: "
        f"{share_with_interval(len(worse), len(promoted))} (mean loss {100 * -np.mean(worse) if worse else 0.0:.2f} "
        f"points), of which {much} by more than the margin. In {len(taken)} rounds the next best took over "
        "from an expert that fell, without the gate, with a mean true gain of "
        f"{100 * np.mean(taken or [0.0]):+.2f} points; worse ones: "
        f"{share_with_interval(sum(gain < -EQUAL for gain in taken), len(taken))}."
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
    lines = ["| phase | " + " | ".join(LEARNERS) + " |", "| --- " * (len(LEARNERS) + 1) + "|"]
    for phase in phases[1:]:
        cells = []
        for arm in LEARNERS:
            found = np.array([recovery_decisions(course, arm, phase.name, RECOVERY) for course in courses])
            within = int(np.isfinite(found).sum())
            middle = float(np.median(found))
            shown = f"{middle:.0f}" if np.isfinite(middle) else "not reached"
            cells.append(f"{shown} ({within} of {len(found)} runs)")
        lines.append(f"| {phase.name} | " + " | ".join(cells) + " |")
    return lines


def newcomer_lines(joined: Sequence[Joining]) -> list[str]:
    """A line for each newcomer: what it is worth, and in how many runs the router in force had so much of it."""
    arms = ("coe retrain", "told")
    columns = [f"{arm}: {share:.0%}" for arm in arms for share in (HALF, MOST)]
    lines = [f"| newcomer | worth, points | {' | '.join(columns)} | decisions until half, median |", "| --- " * 7 + "|"]
    for newcomer in dict.fromkeys(run.newcomer for run in joined):
        own = [run for run in joined if run.newcomer == newcomer]
        cells = [f"{newcomer.name} ({newcomer.table})", mean_with_interval([run.worth for run in own])]
        for arm in arms:
            for share in (HALF, MOST):
                found = [run.decisions(share) for run in own if run.arm == arm]
                cells.append(f"{np.isfinite(found).sum()} of {len(found)}")
        middle = float(np.median([run.decisions(HALF) for run in own if run.arm == arms[0]]))
        lines.append(f"| {' | '.join(cells)} | {f'{middle:.0f}' if np.isfinite(middle) else 'not reached'} |")
    return lines


def category_line(joined: Sequence[Joining]) -> str:
    """Runs of `coe retrain` that end with half of a new category's worth; takeovers there, and those for the worse."""
    taken = 100 * np.array([gain for run in joined for gain in run.taken] or [0.0])
    worse = taken[taken < -100 * EQUAL]
    found = share_with_interval(len(worse), sum(len(run.taken) for run in joined))
    own = [run.has[-1] >= HALF for run in joined if not run.newcomer.expert and run.arm == "coe retrain"]
    return (
        f"Of the new categories the router in force had half of the worth at the end in {sum(own)} of {len(own)} runs. "
        "Rounds in which a new category changed hands without the gate gained "
        f"{taken.mean():.2f} points of the traffic on average; worse ones: {found}, which lost "
        f"{-worse.sum() / max(len(worse), 1):.2f}."
    )


def share_lines(courses: Sequence[Course], phase: str) -> list[str]:
    """Share of a router's gap to the reachable that is recovered, by decisions since the phase began."""
    inside = [i for i, name in enumerate(courses[0].phases) if name == phase]
    after = [i for i in (500, 1000, 2000, 4000) if i <= len(inside) * BLOCK]
    lines = ["| decisions | " + " | ".join(LEARNERS) + " |", "| --- " * (len(LEARNERS) + 1) + "|"]
    for n in after:
        at = inside[n // BLOCK - 1]
        cells = []
        for arm in LEARNERS:
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
            "**Simulated traffic, real truth**: an expert's score on a prompt is looked up in a public table of "
            f"graded answers ([{TABLE}](sources.md); {len(world.traffic.experts)} experts, "
            f"{len(world.traffic.texts)} prompts of traffic in {len(set(world.traffic.categories))} categories). "
            f"A thumb is up with probability 0.1 + 0.8 x score; {CALM.keys} keys rate {CALM.up:.0%} of the answers. "
            "Encoder and classifier are the shipped ones. The first router of each run has seen 16 graded probes per "
            "category, drawn anew. Everything that explores, learns, estimates and decides is the code of the "
            "gateway and of `coe retrain`; only SQL is left out. "
            f"Exploration is the shipped one ({EXPLORATION.budget:.1%}). Scores are in percent; brackets and ± are "
            f"95% intervals. The run took {minutes:.0f} minutes of processor time.",
            "",
            "## Is the better router promoted, and the worse one not?",
            "",
            f"Loops over {LOGGED} decisions that retrain every {EVERY} and end with their first promotion. A run "
            "counts by what the promoted candidate is truly worth, or the last one that decided otherwise than the "
            "live router. So a *worse* run promoted a worse candidate in any of twenty rounds, or happens to have "
            "one in the last: the rate that may be 5% at most is that in bold, of all runs in which some round "
            "judged a worse candidate. *Calm*: ratings at random and at once. *Hard*: bad answers are rated twice as "
            f"often as good ones, ratings come {HARD.delay:.0f} decisions late on average, and one key asks "
            f"{HARD.poison:.0%} of everything and rates all of it the wrong way round. *Spoiled*: normal noise of "
            f"{NOISE:g} on every quality that a candidate learns, the same in every round.",
            "",
            *gate_lines(found.gate, margin),
            "",
            "Judged by what the candidate has learned from, evidence is flattered; so each answer judges a twin that "
            "has not seen it. Evidence of 20 to 1 is asked for (docs/retrain.md).",
            "",
            "## Do the intervals cover?",
            "",
            f"{len(found.coverage)} runs, each with a new log of {LOGGED} decisions, and a candidate that was named "
            "before it: the first router with normal noise on every quality. The stated rate is 95%. The gate "
            "concludes from a log only with an effective sample of at least 20 decisions on the queries that change "
            "hands, of which at most 5% are of categories where the candidate's expert had less than one chance in "
            "200. An interval allows for any truth where that was so.",
            "",
            *coverage_lines(found.coverage),
            "",
            "## Drift",
            "",
            f"{len(found.courses)} runs of {len(phases)} phases of {phases[0].blocks * BLOCK} decisions; the loop "
            f"retrains every {BLOCK} decisions. In the second, the scores of {DEGRADED} fall to {FACTOR:.0%}. Mean "
            "true score of the answers, explored ones included:",
            "",
            *served_lines(found.courses, phases),
            "",
            "`reachable` is the best map in hindsight over the rows that stage 1 decides. The bandit learns from "
            "every thumb at once and explores without a limit. Averaging takes the highest mean over the whole log, "
            f"every 500 decisions, and explores {EVENLY_EXPLORED:.0%} evenly. Neither is judged before it serves.",
            "",
            "*Told* says what can be learned within a phase. It is given time and place of every change of an "
            "expert, explores with all of its traffic evenly, whatever that costs, and follows each candidate "
            "unjudged.",
            "",
            f"Decisions until {RECOVERY:.0%} of the gap to `reachable` at the beginning of a phase is recovered by "
            "what the router in force wants (median over runs; number of runs in which it happened within the phase):",
            "",
            *recovery_lines(found.courses, phases),
            "",
            f"Share of that gap recovered by a number of decisions after {DEGRADED} degrades, in percent:",
            "",
            *share_lines(found.courses, phases[1].name),
            "",
            promotion_line(found.courses, margin),
            "",
            "## Newcomers",
            "",
            f"After {BLOCKS * BLOCK} decisions a category is added with 16 examples, or an expert with {PROBES} "
            f"adaptive probes; {SHARE:.0%} of the traffic is of that category, or of the one in which the expert is "
            "worth most. *Worth*: on the category's queries its best expert against the best map of those who know "
            "nothing of it; of an expert, where it is better than all others. A category counts as learned if half "
            f"of its queries are told apart as well. Runs in which the router in force had {HALF:.0%} and {MOST:.0%} "
            f"of the worth at the end of some round, within {BLOCKS * BLOCK} decisions:",
            "",
            *newcomer_lines(found.joined),
            "",
            category_line(found.joined),
            "",
            "*Told* is no upper limit here: to each of eight or nine experts it gives as many of the some 240 ratings "
            "that a new category gets.",
            "",
            "The same with an expert that is as good as who serves each category, and nowhere better; it was given a "
            f"category in {share_with_interval(sum(run.serves for run in found.imitations), len(found.imitations))}.",
            "",
        ]
    )


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
            pool.submit(joining_run, place, Settings(), arm, BLOCKS, (seed, i, run))
            for i, place in enumerate(places)
            for arm in ("coe retrain", "told")
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
