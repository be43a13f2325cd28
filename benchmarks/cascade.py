"""A cascade, a router and mixtures of a cheap and a strong expert at equal cost, on simulated answers.

    python benchmarks/cascade.py [--out docs/results/cascade.md]

Nothing here was measured on a model: no outcome data with log-probabilities exists in this project. What the length of
a reply tells, which outcome data does hold, is measured by benchmarks/routing.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from router.blas import one_thread
from router.cascade import Gate
from router.uncertainty import expected_calibration_error
from training.cascade import fit_gate
from training.cascade_simulation import Arm, SimulatedQueries, compare, simulate

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "cascade.md"
AUROCS = (0.5, 0.65, 0.75, 0.85)
COST_RATIOS = (2.0, 5.0, 20.0)
SHARES = (0.2, 0.5)
FIT_QUERIES, TEST_QUERIES = 4000, 20000
SEED = 0

HEAD = f"""# A cascade on the cheap answer's log-probabilities (simulation)

    {{command}}

What a cascade wins that goes by the length of the cheap reply is measured, not simulated: see
[routing.md](routing.md), "Cheap and strong".

**Simulated**: the outcome data of this project holds no log-probabilities, so how telling those of a real model are is
an assumption here (the column AUROC: the probability that the confidence behind a right cheap answer is above that
behind a wrong one; the tokens add noise). The router is given the exact probability of a right answer that the query
allows, so it is the best router there can be; the gate is fitted on {FIT_QUERIES} answers and tested on {TEST_QUERIES}.
Seed {SEED}.

A cheap answer costs 1, a strong one the ratio. The arms of a line are set to cost 1 + share x ratio on average; as
thresholds come from the fitting queries, "costs" says what they came to. Right answers in percent. `cascade` escalates
where P(correct) is least, `by gain` where the strong expert's prior is furthest above it. The last column is `by gain`
minus the router with its 95% interval over queries. Always cheap {{cheap:.1f}} at cost 1; always strong
{{strong:.1f}} at cost 2, 5 or 20.
"""

COLUMNS = ("AUROC", "ratio", "escalated", "costs", "random", "router", "cascade", "by gain", "perfect gate")


def difference(first: Arm, second: Arm) -> str:
    """Paired difference in points with its 95% interval."""
    gain: NDArray[np.float64] = 100 * (first.right.astype(np.float64) - second.right)
    half = 1.96 * gain.std() / np.sqrt(len(gain))
    return f"{gain.mean():+.1f} [{gain.mean() - half:+.1f}, {gain.mean() + half:+.1f}]"


def line_of(auroc: float, ratio: float, share: float, arms: dict[str, Arm]) -> str:
    costs = [arms[name].cost for name in ("router", "cascade", "cascade_by_gain")]
    shown = [
        f"{100 * arms[n].accuracy:.1f}" for n in ("random", "router", "cascade", "cascade_by_gain", "perfect_gate")
    ]
    cells = [f"{auroc}", f"{ratio:.0f}", f"{share:.0%}", f"{min(costs):.2f} to {max(costs):.2f}", *shown]
    return f"| {' | '.join([*cells, difference(arms['cascade_by_gain'], arms['router'])])} |"


def gate_error(fitted_on: SimulatedQueries, tested_on: SimulatedQueries) -> float:
    """Expected calibration error of P(correct) on the test queries."""
    gate = Gate.from_state(fit_gate(fitted_on.features, fitted_on.cheap_right, np.random.default_rng(SEED)))
    prob = gate.prob_correct(tested_on.features)
    return expected_calibration_error(np.column_stack([1 - prob, prob]), tested_on.cheap_right.astype(np.int64))


def main(out: Annotated[Path, typer.Option(help="Markdown file to write")] = RESULTS) -> None:
    console = Console(width=140)
    lines, errors, arms = [], [], {}
    for auroc in AUROCS:
        rng = np.random.default_rng([SEED, round(100 * auroc)])
        fitted_on, tested_on = simulate(rng, FIT_QUERIES, auroc), simulate(rng, TEST_QUERIES, auroc)
        with one_thread():
            errors.append(f"{gate_error(fitted_on, tested_on):.3f}")
            for ratio in COST_RATIOS:
                for share in SHARES:
                    arms = compare(fitted_on, tested_on, escalated_share=share, cost_ratio=ratio, rng=rng)
                    lines.append(line_of(auroc, ratio, share, arms))
                    console.print(lines[-1])
    command = f"python benchmarks/cascade.py --out {out}" if out != RESULTS else "python benchmarks/cascade.py"
    head = HEAD.format(
        command=command, cheap=100 * arms["always_cheap"].accuracy, strong=100 * arms["always_strong"].accuracy
    )
    table = [f"| {' | '.join(COLUMNS)} | gain - router |", "| --- " * (len(COLUMNS) + 1) + "|", *lines]
    calibration = f"Calibration error of P(correct) on the test queries, by AUROC: {', '.join(errors)}."
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join([head, *table, "", calibration, ""]), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
