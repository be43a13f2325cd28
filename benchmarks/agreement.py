"""How much better a retraining knows the experts once it learns from requests that several of them answered.

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
from eval.metrics.bootstrap import bootstrap_means, percentile_interval
from training.datasets.outcomes import read_outcomes
from training.expert_map import cell_sums, row_numbers, shrink, without_difficulty
from training.strategies.agreement import Anchors, agreement_cells, beliefs
from training.types import NOT_COMPARED, OutcomeTable

GRADED, LOGGED, FEEDBACK, DRAWS = 150, 1000, 0.02, 10


def quality_of(graded: OutcomeTable, logged: OutcomeTable, anchored: tuple[NDArray[np.float64], ...] | None) -> tuple[NDArray[np.float64], ...]:
    """(k + 1, m) quality and counts of the graded prompts, and of the cells of agreement beside them."""
    names = sorted(set(graded.categories) | set(logged.categories))
    rows = row_numbers(graded, names)
    relative, difficulty = without_difficulty(graded.scores, rows, len(names))
    cells = cell_sums(relative, rows, len(names))
    if anchored is not None:
        cells = tuple(own + more for own, more in zip(cells, anchored, strict=True))  # type: ignore[assignment]
    quality, _ = shrink(*cells)
    return np.clip(quality + difficulty[:, None], 0, 1), cells[2]


def one_draw(table: OutcomeTable, rng: np.random.Generator, asked: int) -> dict[str, tuple[float, float]]:
    """Root mean square error of the cells, and the mean score of the best expert of each category, by way of learning."""
    order = rng.permutation(len(table.texts))
    graded, logged, rest = (table.rows(part) for part in np.split(order, [GRADED, GRADED + LOGGED]))
    names = sorted(set(table.categories))
    truth = cell_sums(rest.scores, row_numbers(rest, names), len(names))
    mass = truth[2].max(axis=1)
    true = truth[0] / np.maximum(truth[2], 1)
    assert logged.answers is not None
    keys = logged.answers.copy()
    for row in keys:
        row[rng.permutation(len(row))[asked:]] = NOT_COMPARED
    served = np.array([max((int(k) for k in row if k >= 0), key=list(row).count, default=-1) for row in keys])
    has_feedback = rng.random(len(keys)) < FEEDBACK
    right = np.array([logged.scores[i][list(keys[i]).index(s)] if s >= 0 else 0.0 for i, s in enumerate(served)])
    reward = np.where(has_feedback, right, np.nan)
    alone, count = quality_of(graded, logged, None)
    anchors = Anchors(alone, count)
    row = row_numbers(logged, names)
    more = agreement_cells(keys, row, served, reward, anchors)
    found = {"graded prompts alone": alone, "and agreement": quality_of(graded, logged, more)[0]}
    both = table.rows(order[: GRADED + LOGGED])
    found["all of them graded"] = quality_of(both, logged, None)[0]
    belief = beliefs(keys, row, served, reward, anchors)
    asked_cells = np.isfinite(belief)
    bias = float((belief - logged.scores)[asked_cells].mean())
    result = {}
    for name, quality in found.items():
        error = float(np.sqrt((mass[:, None] * (quality - true) ** 2).sum() / (mass.sum() * true.shape[1])))
        choice = quality.argmax(axis=1)
        result[name] = (error, float((mass * true[np.arange(len(true)), choice]).sum() / mass.sum()))
    return result | {"bias of beliefs": (bias, bias)}


def main(
    tables: Annotated[Path, typer.Option(help="file of named tables; their sources lie beside it")] = TABLES,
    only: Annotated[list[str] | None, typer.Option(help="names of tables")] = None,
    asked: Annotated[int, typer.Option(help="experts asked of each logged request")] = 6,
) -> None:
    """Print the error of the map, and what it is worth, for each way of learning."""
    entries = yaml.safe_load(tables.read_text(encoding="utf-8"))
    for name in only or ["mmlu_pro_small_6", "zeroeval_coe5"]:
        table = read_outcomes(tables.parent / entries[name]["source"], experts=entries[name]["experts"])
        n = min(LOGGED, len(table.texts) // 2)
        rng = np.random.default_rng(0)
        draws = [one_draw(table, rng, asked) for _ in range(DRAWS)]
        print(f"\n{name}: {GRADED} graded, {n} logged, {asked} experts asked\n")
        print("| learned from | error of a cell | less than graded alone | mean score of the map |\n" + "| --- " * 4 + "|")
        for way in draws[0]:
            values = np.array([draw[way] for draw in draws])
            gain = np.array([draw["graded prompts alone"][0] - draw[way][0] for draw in draws])
            low, high = percentile_interval(bootstrap_means(gain[:, None], rng)[:, 0])
            print(f"| {way} | {values[:, 0].mean():.4f} | {gain.mean():.4f} ({low:.4f} to {high:.4f}) | {100 * values[:, 1].mean():.2f} |")


if __name__ == "__main__":
    typer.run(main)
