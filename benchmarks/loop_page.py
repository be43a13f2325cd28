"""The page of the learning loop: what was measured, in tables and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from benchmarks.loop_baselines import EVENLY_EXPLORED
from benchmarks.loop_experiments import (
    BLOCK,
    QUANTITIES,
    Course,
    Coverage,
    GateTrial,
    Phase,
    recovery_decisions,
)
from benchmarks.loop_fleet import CALM, HARD, World
from benchmarks.loop_judge import GPT4
from benchmarks.loop_newcomers import (
    HALF,
    MOST,
    PROBES,
    SHARE,
    Joining,
)
from benchmarks.loop_stage import EXPLORATION

TABLE = "routerdc"
"""Table of all but the newcomers."""

DEGRADED, FACTOR = "dolphin-2.9-llama3-8b", 0.3

LOGGED = 10_000
"""Decisions of the log of a run of the first two experiments."""

EVERY = 500
NOISE = 0.1
EQUAL = 1e-9
BLOCKS = 8
RECOVERY = 0.9
ARMS = ("coe retrain", "no retraining", "averaging the log", "Beta bandit")
LEARNERS = (*ARMS, "told")
JUDGED = "coe retrain with a judge"
JOINING = ("coe retrain", JUDGED, "told")


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
    lines = ["| runs | live | candidate | difference | its mean error | its width |", "| --- " * 6 + "|"]
    for label, part in parts.items():
        cells = [share_with_interval(sum(run.covers[q] for run in part), len(part)) for q in QUANTITIES]
        error = f"{np.mean([run.error['difference'] for run in part]):+.4f}" if part else ""
        width = f"{np.median([run.width for run in part]):.3f}" if part else ""
        lines.append(f"| {label} | " + " | ".join([*cells, error, width]) + " |")
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
    columns = [f"{arm}: {share:.0%}" for arm in JOINING for share in (HALF, MOST)]
    columns = ["newcomer", "worth, points", *columns, "decisions until half, median; with a judge"]
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for newcomer in dict.fromkeys(run.newcomer for run in joined):
        own = [run for run in joined if run.newcomer == newcomer]
        worth = [run.worth for run in own if run.arm == JOINING[0]]  # that of the other arms' runs is the same
        cells = [f"{newcomer.name} ({newcomer.table})", mean_with_interval(worth)]
        for arm in JOINING:
            for share in (HALF, MOST):
                found = [run.decisions(share) for run in own if run.arm == arm]
                cells.append(f"{np.isfinite(found).sum()} of {len(found)}")
        medians = [float(np.median([run.decisions(HALF) for run in own if run.arm == arm])) for arm in JOINING[:2]]
        lines.append(f"| {' | '.join(cells)} | {'; '.join(decisions_in_words(each) for each in medians)} |")
    return lines


def decisions_in_words(number: float) -> str:
    return f"{number:.0f}" if np.isfinite(number) else "not reached"


def judge_line(joined: Sequence[Joining]) -> str:
    """Runs that learned a newcomer with a judge and without, and what the judge costs."""
    told = {arm: [run for run in joined if run.arm == arm] for arm in JOINING}
    halves = {
        (arm, is_expert): [np.isfinite(run.decisions(HALF)) for run in own if bool(run.newcomer.expert) is is_expert]
        for arm, own in told.items()
        for is_expert in (True, False)
    }
    of = {key: f"{sum(found)} of {len(found)}" for key, found in halves.items()}
    pairs = np.mean([run.pairs for run in told[JUDGED]]) / (BLOCKS * BLOCK) * 1000
    return (
        f"Half of the worth of new experts was learned in {of[JOINING[0], True]} runs and in {of[JUDGED, True]} with a "
        f"judge, that of new categories in {of[JOINING[0], False]} and {of[JUDGED, False]}. The judge compared "
        f"{pairs:.0f} pairs per 1,000 requests: {pairs:.0f} more calls of experts, and {4 * pairs:.0f} of the judge."
    )


def category_line(joined: Sequence[Joining]) -> str:
    """Runs of `coe retrain` that end with half of a new category's worth; takeovers there, and those for the worse."""
    alone = [run for run in joined if run.arm == "coe retrain"]
    taken = 100 * np.array([gain for run in alone for gain in run.taken] or [0.0])
    worse = taken[taken < -100 * EQUAL]
    found = share_with_interval(len(worse), sum(len(run.taken) for run in alone))
    own = [run.has[-1] >= HALF for run in alone if not run.newcomer.expert]
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
            f"Exploration is the shipped one ({EXPLORATION:.1%}). Scores are in percent; brackets and ± are "
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
            "Judged by what the candidate has learned from, evidence is flattered; so each answer judges a "
            "cross-fitted model that has not seen it. Evidence of 20 to 1 is asked for (docs/retrain.md).",
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
            f"retrains every {BLOCK} decisions. In the second, the scores of {DEGRADED} fall to {FACTOR:.0%}. The "
            "runs are draws of one world, the same table and the same expert, so ± says nothing of other worlds. Mean "
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
            f"*With a judge*: `judge:` with `queries: uncertain` and `share: {GPT4.share}` (docs/feedback.md). "
            "Its verdicts are simulated: of two answers that differ in score it calls "
            f"{GPT4.tied:.0%} a tie, and of the rest names the better one in {GPT4.right:.0%}; of two that do not "
            f"it calls {GPT4.tied_alike:.0%} a tie, and of the rest names either. GPT-4 agrees with people in 85% of "
            "votes that name an answer, and in 66% of all ([Zheng et al. 2023](https://arxiv.org/abs/2306.05685), "
            "table 5); on mathematics it errs more often than elsewhere.",
            "",
            judge_line(found.joined),
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
