"""Gain of a retraining in knowledge of the experts once it learns from requests that several of them answered.

    python -m benchmarks.agreement [--tables FILE] [--only NAME ...]

Of a table with answers some prompts are graded, as probes are; of others only the log knows, and of a few of those
there is feedback. The rest says how good each expert is in each category. What is compared: the quality matrix of
the graded prompts alone, of these and the agreement on the others, and, as a bound, of all of them graded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml
from numpy.typing import NDArray

from benchmarks.strategies import TABLES
from eval.metrics.intervals import bootstrap_means, percentile_interval
from training.agreement import Anchors, agreement_cells, beliefs
from training.datasets.outcomes import read_outcomes
from training.expert_map import cell_sums, row_numbers, shrink, without_difficulty
from training.types import NOT_COMPARED, OutcomeTable

GRADED, LOGGED, FEEDBACK, DRAWS = 150, 3000, 0.02, 20
ALONE, BIAS = "graded prompts alone", "bias"


Cells = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
Found = tuple[float, float]
"""Root mean square error of the cells; mean score of what would be the best expert of each category."""


def quality_of(graded: OutcomeTable, names: list[str], more: Cells | None = None) -> Anchors:
    """Quality and counts of graded prompts, and of further cells beside them."""
    rows = row_numbers(graded, names)
    relative, difficulty = without_difficulty(graded.scores, rows, len(names))
    cells = cell_sums(relative, rows, len(names))
    if more is not None:
        cells = (cells[0] + more[0], cells[1] + more[1], cells[2] + more[2])
    return Anchors(np.clip(shrink(*cells)[0] + difficulty[:, None], 0, 1), cells[2])


def one_draw(table: OutcomeTable, n_logged: int, asked: int, rng: np.random.Generator) -> dict[str, Found]:
    """Results of each way of learning, and the mean of beliefs less truth, twice."""
    order = rng.permutation(len(table.texts))
    graded, logged, rest = (table.rows(part) for part in np.split(order, [GRADED, GRADED + n_logged]))
    names = sorted(set(table.categories))
    sums, _, counts = cell_sums(rest.scores, row_numbers(rest, names), len(names))
    true, mass = sums / np.maximum(counts, 1), counts.max(axis=1) / counts.max(axis=1).sum()
    assert logged.answers is not None
    keys = logged.answers.copy()
    for answers in keys:
        answers[rng.permutation(len(answers))[asked:]] = NOT_COMPARED
    served = np.array([max((int(k) for k in own if k >= 0), key=list(own).count, default=-1) for own in keys])
    is_right = np.array([logged.scores[i][list(keys[i]).index(s)] if s >= 0 else 0.0 for i, s in enumerate(served)])
    reward = np.where(rng.random(len(keys)) < FEEDBACK, is_right, np.nan)
    row, anchors = row_numbers(logged, names), quality_of(graded, names)
    agreed = agreement_cells(keys, row, served, reward, anchors)
    belief = beliefs(keys, row, served, reward, anchors)
    found = {
        ALONE: anchors.quality,
        "and agreement": quality_of(graded, names, agreed).quality,
        "all of them graded": quality_of(table.rows(order[: GRADED + n_logged]), names).quality,
    }
    result = {}
    for name, quality in found.items():
        error = float(np.sqrt((mass[:, None] * (quality - true) ** 2).mean(axis=1).sum()))
        result[name] = (error, float(mass @ true[np.arange(len(true)), quality.argmax(axis=1)]))
    bias = float((belief - logged.scores)[np.isfinite(belief)].mean())
    return result | {BIAS: (bias, bias)}


def main(
    tables: Annotated[Path, typer.Option(help="file of named tables; their sources lie beside it")] = TABLES,
    only: Annotated[list[str] | None, typer.Option(help="names of tables")] = None,
    asked: Annotated[int, typer.Option(help="experts asked of each logged request")] = 6,
) -> None:
    """Print the error of the map, and what it is worth, for each way of learning."""
    entries = yaml.safe_load(tables.read_text(encoding="utf-8"))
    for name in only or ["mmlu_pro_small_6", "zeroeval_coe5"]:
        table = read_outcomes(tables.parent / entries[name]["source"], experts=entries[name]["experts"])
        n_logged, rng = min(LOGGED, len(table.texts) // 2), np.random.default_rng(0)
        draws = [one_draw(table, n_logged, asked, rng) for _ in range(DRAWS)]
        print(f"\n{name}: {GRADED} graded, {n_logged} logged, {min(asked, len(table.experts))} experts asked\n")
        print("| learned from | error of a cell | less than alone | mean score of the map |\n" + "| --- " * 4 + "|")
        for way in (each for each in draws[0] if each != BIAS):
            error, score = np.array([draw[way] for draw in draws]).T
            gain = np.array([draw[ALONE][0] for draw in draws]) - error
            low, high = percentile_interval(bootstrap_means(gain[:, None], rng)[:, 0])
            less = f"{100 * gain.mean():.2f} ({100 * low:.2f} to {100 * high:.2f})"
            print(f"| {way} | {100 * error.mean():.2f} | {less} | {100 * score.mean():.2f} |")
        print(f"\nbeliefs less truth: {100 * np.mean([draw[BIAS][0] for draw in draws]):.1f} points")


if __name__ == "__main__":
    typer.run(main)
