"""Two cheap systems that make the same call of a tool, and a strong one where they differ, on the Berkeley Function
Calling Leaderboard.

    python -m benchmarks.tool_calls [--outcomes DIR] [--strong 6] [--cheap 12] [--everything]

Every pair of cheap systems is played with every strong one. The strong ones are the best on train and valid prompts,
the cheap ones those after them. Figures are of test prompts, or of all with --everything. `coe eval routing` on the
same table has the product choose the pair.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from coe.eval.metrics.intervals import bootstrap_means, percentile_interval
from coe.router.strategies.agree import Agree
from coe.router.strategies.learned import play
from coe.training.datasets.outcomes import read_outcomes

ROOT = Path(__file__).parent.parent
OUTCOMES = ROOT / ".." / "shared" / "data" / "routing" / "bfcl"


def main(
    outcomes: Annotated[Path, typer.Option(help="outcome table whose prompts offer tools")] = OUTCOMES,
    strong: Annotated[int, typer.Option(help="how many strong systems")] = 6,
    cheap: Annotated[int, typer.Option(help="how many cheap systems, the next best ones")] = 12,
    everything: Annotated[bool, typer.Option("--everything", help="measure on all prompts, not on test")] = False,
) -> None:
    """Print a row for each strong system: mean gain over its cheap pairs, surely worse pairs, strong calls."""
    table = read_outcomes(outcomes)
    assert table.answers is not None, "the table has answers"
    is_test = np.array([split == "test" for split in table.splits])
    order = np.argsort(-table.scores[~is_test].mean(axis=0), kind="stable")
    rows = np.ones(len(is_test), dtype=bool) if everything else is_test
    keys, scores = table.answers[rows], table.scores[rows].astype(np.float64)
    pool = order[strong : strong + cheap].tolist()
    pairs = list(combinations(pool, 2))
    print(f"{len(keys)} prompts; cheap: {', '.join(table.experts[e] for e in pool)}\n")
    print("| strong system | alone | mean gain of pairs | worst, best pair | surely better | worse | strong calls |")
    print("| --- " * 7 + "|")
    rng, n_worse = np.random.default_rng(0), 0
    for arbiter in order[:strong].tolist():
        played = [play(keys, Agree(pair, arbiter)) for pair in pairs]
        gains = np.column_stack([each.scored(scores) - scores[:, arbiter] for each in played])
        bounds = np.array([percentile_interval(draw) for draw in bootstrap_means(gains, rng).T])
        mean = gains.mean(axis=0)
        worse = int((bounds[:, 1] < 0).sum())
        n_worse += worse
        print(
            f"| {table.experts[arbiter]} | {100 * scores[:, arbiter].mean():.1f} | {100 * mean.mean():+.1f} | "
            f"{100 * mean.min():+.1f}, {100 * mean.max():+.1f} | "
            f"{(bounds[:, 0] > 0).sum()} of {len(pairs)} | {worse} | "
            f"{100 * np.mean([each.asked[:, arbiter].mean() for each in played]):.0f}% |"
        )
    print(f"\nsurely worse: {n_worse} of {strong * len(pairs)} pairs")


if __name__ == "__main__":
    typer.run(main)
