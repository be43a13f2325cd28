"""The page of the learning loop: what was measured, in tables and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from benchmarks.loop_experiments import BLOCK, NULL_SPAN, Drift, Paid
from benchmarks.loop_judge import GPT4
from benchmarks.loop_newcomers import HALF, MOST, PROBES, SHARE, Joining
from benchmarks.loop_stage import EXPLORATION

TABLES = ("routerdc", "fasteval", "mmlu_pro_cot", "zeroeval")
TABLE = "routerdc"
"""Table of the fall."""

DEGRADED, FACTOR = "dolphin-2.9-llama3-8b", 0.3
GRADED = 100
LOGGED = 20_000
BLOCKS = 8
EQUAL = 1e-9
JUDGED = "coe retrain with a judge"
JOINING = ("coe retrain", JUDGED)


@dataclass(frozen=True)
class Findings:
    """Everything that was measured: runs by feedback and table, the same in null worlds, falls, newcomers, and
    `imitations`, experts that are nowhere better."""

    paid: Mapping[tuple[str, str], Sequence[Paid]]
    nulls: Mapping[tuple[str, str], Sequence[Paid]]
    drifts: Sequence[Drift]
    joined: Sequence[Joining]
    imitations: Sequence[Joining]


def share_with_interval(hits: int, n: int) -> str:
    """Percent with Clopper and Pearson's exact 95% interval."""
    if n == 0:
        return "none"
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))
    return f"{100 * hits / n:.1f}% [{100 * low:.1f}, {100 * high:.1f}] of {n}"


def mean_with_interval(values: Sequence[float], form: str = "+.2f") -> str:
    """Mean in percent and twice its standard error."""
    own = 100 * np.array(values, dtype=np.float64)
    return f"{own.mean():{form}} ± {2 * own.std(ddof=1) / len(own) ** 0.5 if len(own) > 1 else 0.0:.2f}"


def moves_for_the_worse(runs: Sequence[Paid]) -> str:
    """Runs that ever moved a category for the worse, of all."""
    return share_with_interval(sum(any(gain < -EQUAL for gain in run.moves) for run in runs), len(runs))


COLUMNS: Mapping[str, Callable[[Paid], float]] = {
    "served": lambda run: float(run.served.mean()),
    "last quarter": lambda run: float(run.served[-(len(run.served) // 4) :].mean()),
    "last map": lambda run: run.mapped,
    "best single": lambda run: run.single,
    "reachable": lambda run: run.reachable,
}


def paid_lines(paid: Mapping[tuple[str, str], Sequence[Paid]]) -> list[str]:
    """A row for each feedback and table, and one for all tables."""
    names = ["feedback", "table", "runs", *COLUMNS, "moves", "runs with a move for the worse"]
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for feedback in dict.fromkeys(name for name, _ in paid):
        own = {table: runs for (name, table), runs in paid.items() if name == feedback}
        for table, runs in {**own, "**all**": [run for each in own.values() for run in each]}.items():
            cells = [mean_with_interval([value(run) for run in runs]) for value in COLUMNS.values()]
            moves = sum(len(run.moves) for run in runs)
            row = [feedback, table, str(len(runs)), *cells, str(moves), moves_for_the_worse(runs)]
            lines.append(f"| {' | '.join(row)} |")
    return lines


def drift_line(drifts: Sequence[Drift]) -> list[str]:
    """Shares recovered after so many decisions."""
    after = [n for n in (500, 1000, 2000, 4000) if n <= BLOCKS * BLOCK]
    shares = [mean_with_interval([run.recovered[n // BLOCK - 1] for run in drifts], ".0f") for n in after]
    reached = [sum(run.recovered[: 2000 // BLOCK].max() >= bar for run in drifts) for bar in (0.5, 0.75, 0.9)]
    n = len(drifts)
    return [
        "| decisions | " + " | ".join(map(str, after)) + " |",
        "| --- " * (len(after) + 1) + "|",
        "| share recovered, % | " + " | ".join(shares) + " |",
        "",
        f"Within 2,000 decisions half was recovered in {reached[0]} of {n} runs, three quarters in {reached[1]}, nine "
        f"tenths in {reached[2]}.",
    ]


def newcomer_lines(joined: Sequence[Joining]) -> list[str]:
    names = ["newcomer", "worth, points", *(f"{arm}: {bar:.0%}" for arm in JOINING for bar in (HALF, MOST))]
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for newcomer in dict.fromkeys(run.newcomer for run in joined):
        own = [run for run in joined if run.newcomer == newcomer]
        cells = [f"{newcomer.name} ({newcomer.table})", mean_with_interval([run.worth for run in own], ".1f")]
        for arm in JOINING:
            runs = [run for run in own if run.arm == arm]
            cells += [f"{sum(np.isfinite(r.decisions(bar)) for r in runs)} of {len(runs)}" for bar in (HALF, MOST)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def judge_line(joined: Sequence[Joining]) -> str:
    """Runs that learned a newcomer, with a judge and without."""
    said = []
    for arm in JOINING:
        own = [run for run in joined if run.arm == arm]
        parts = []
        for kind, is_expert in (("new experts", True), ("new categories", False)):
            runs = [run for run in own if bool(run.newcomer.expert) is is_expert]
            parts.append(f"{sum(np.isfinite(run.decisions(HALF)) for run in runs)} of {len(runs)} runs of {kind}")
        said.append(f"{arm}: {' and '.join(parts)}")
    return f"Half of the worth was served in: {'; '.join(said)}."


def page(found: Findings, command: str, minutes: float) -> str:
    return "\n".join(
        [
            "# The learning loop against a known truth (simulation)",
            "",
            f"    {command}",
            "",
            "**Simulated traffic, real truth**: an expert's score on a prompt is looked up in a public table of graded "
            "answers ([sources](sources.md)). A thumb is up with probability 0.1 + 0.8 x score, and 40 keys ask. "
            "Encoder and classifier are the shipped ones. Everything that explores, learns and decides is the code of "
            "the gateway and of `coe retrain`; only SQL is left out. Exploration is the shipped one "
            f"({EXPLORATION:.1%}), a round every {BLOCK} decisions. Scores are in points; ± is twice the standard "
            f"error over runs, brackets are exact 95% intervals. The run took {minutes:.0f} minutes of processor time.",
            "",
            "## Does it pay?",
            "",
            f"{LOGGED:,} decisions from a first router that some {GRADED} graded prompts made, drawn anew in each run, "
            "over the quality of that first map. *Served*: the mean of all answers, those of challengers included. "
            "*Last map*: that of the final map, without challengers. *Reachable*: the best map in hindsight over the "
            "rows that stage 1 decides. *All*: every answer is rated, as by tests or schemas. *Thumbs*: 10% of the "
            "bad answers and 5% of the good ones are.",
            "",
            *paid_lines(found.paid),
            "",
            "## In a world without better maps",
            "",
            "The same with the best single expert serving everything, which is the best in every category, by up to "
            f"{100 * NULL_SPAN:g} points over each other one. Stage 1 errs, so some of its rows have better experts "
            "all the same. Challengers cost what they are worse by while they look better.",
            "",
            *paid_lines(found.nulls),
            "",
            "## When an expert falls",
            "",
            f"After {BLOCKS * BLOCK:,} decisions with 30% rated, the scores of {DEGRADED} ({TABLE}) fall to "
            f"{FACTOR:.0%}. Share of the gap to the best map in hindsight that is served again, {len(found.drifts)} "
            "worlds, each dealt anew:",
            "",
            *drift_line(found.drifts),
            "",
            "## Newcomers",
            "",
            f"After {BLOCKS * BLOCK:,} decisions a category is added with 16 examples, or an expert with {PROBES} "
            f"adaptive probes; {SHARE:.0%} of the traffic is of that category, or of the one in which the expert is "
            "worth most. *Worth*: on the category's queries its best expert against the best map of those who know "
            "nothing of it; of an expert, where it is better than all others. A category counts as learned if half "
            f"of its queries are told apart as well. Runs in which {HALF:.0%} and {MOST:.0%} of the worth were served "
            f"at the end of some round, challengers included, within {BLOCKS * BLOCK:,} decisions:",
            "",
            *newcomer_lines(found.joined),
            "",
            f"*With a judge*: `judge:` with `queries: uncertain` and `share: {GPT4.share}` (docs/feedback.md), which "
            f"is right in {GPT4.right:.0%} of the verdicts that name an answer ([Zheng et al. 2023]"
            "(https://arxiv.org/abs/2306.05685), table 5).",
            "",
            judge_line(found.joined),
            "",
            "An expert that is as good as who serves each category, and nowhere better, was given one in "
            f"{share_with_interval(sum(run.serves for run in found.imitations), len(found.imitations))}.",
            "",
        ]
    )
