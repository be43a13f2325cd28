"""First maps by how many prompts were graded: today's rule, plain and shrunk means, and a hierarchical posterior.

    python -m benchmarks.first_maps [--tables FILE] [--deals 40]

Maps are fitted on draws of a table's fit prompts, in the table's own mix, and judged on its test prompts, both by their
true labels, so that nothing but the rule differs. benchmarks/LOG.md says why the posterior does not serve.

Shapes: k learned categories (row k is `general`), m experts, t standard deviations of a grid.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.map_prices import interval, named_tables, prices
from benchmarks.routing import TABLES
from coe.router.quality import CHEAPER, cautious_quality
from coe.router.types import Float64Array, IntArray
from coe.training.expert_map import cell_sums, measure_quality, row_numbers, shrink, without_difficulty
from coe.training.types import OutcomeTable

SIZES = (20, 100, 450, 1600)
MOST_OF_FIT = 0.7
"""Share of the fit prompts above which draws differ too little to be several."""

SPREADS = np.array([0.003, 0.01, 0.02, 0.03, 0.045, 0.065, 0.09, 0.125, 0.17, 0.24, 0.34])
"""Standard deviations, of experts and of cells around their expert, that are equally likely before there are grades."""

POOLED = 10.0
"""Answers' worth of the variance over all experts that each expert's variance within its cells is pooled with."""

TOLERANCE = 0.01
"""Expected shortfall, in quality, up to which a cheaper expert serves."""

RULES = ("today", "plain means", "shrunk means", "posterior", "posterior, cheaper")


def posterior(
    sums: Float64Array, squares: Float64Array, counts: Float64Array, spreads: Float64Array = SPREADS
) -> tuple[Float64Array, Float64Array]:
    """Means and standard errors (k+1, m) of cells whose difficulty was taken off.

    Normal hierarchy: score ~ N(theta_ce, s2_e), theta_ce ~ N(mu_e, t2), mu_e ~ N(0, u2). Given t and u all is closed
    form; both are integrated over the grid by their marginal likelihood (Gelman et al. 2013, 5.4).
    """
    has = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=has)
    error = within(squares - counts * means**2, counts) / np.maximum(counts, 1e-9)
    t2 = spreads[:, None, None] ** 2
    precision = np.where(has, 1 / (t2 + error), 0.0)
    total = np.maximum(precision.sum(axis=1), 1e-12)
    level = (precision * means).sum(axis=1) / total
    logs = np.log(precision, out=np.zeros_like(precision), where=has) - precision * (means - level[:, None]) ** 2
    u2, total, level = spreads[None, :, None] ** 2, total[:, None], level[:, None]
    likely = logs.sum(axis=1)[:, None] - np.log1p(u2 * total) - level**2 / (u2 + 1 / total)
    weight = np.exp((likely.sum(axis=-1) - likely.sum(axis=-1).max()) / 2)
    weight = (weight / weight.sum())[:, :, None, None]
    share = np.where(has, t2 / (t2 + error), 0.0)[:, None]
    centre, doubt = level * u2 * total / (1 + u2 * total), u2 / (1 + u2 * total)
    mean = share * means + (1 - share) * centre[:, :, None]
    variance = np.where(has, share * error, t2[:, None]) + (1 - share) ** 2 * doubt[:, :, None]
    found = (weight * mean).sum(axis=(0, 1))
    spread = (weight * (variance + mean**2)).sum(axis=(0, 1)) - found**2
    return found, np.sqrt(np.maximum(spread, 0.0))


def within(deviations: Float64Array, counts: Float64Array) -> Float64Array:
    """(m,) variance of an answer within the cells of each expert, by sums of squared deviations (k+1, m)."""
    squares, free = np.maximum(deviations, 0.0).sum(axis=0), np.maximum(counts - 1, 0.0).sum(axis=0)
    pooled = (squares.sum() + 0.1) / (free.sum() + 2)
    return np.asarray((squares + POOLED * pooled) / (free + POOLED))


def cheaper_within(quality: Float64Array, price: Float64Array) -> IntArray:
    """(k+1,) the cheapest expert of those whose expected shortfall, that of posterior means, is at most TOLERANCE and
    who are cheaper than the best; the best where none is."""
    rows, best = np.arange(len(quality)), quality.argmax(axis=1)
    allowed = quality >= quality[rows, best][:, None] - TOLERANCE
    allowed &= price < CHEAPER * price[best][:, None]
    allowed[rows, best] = True
    return np.asarray(np.where(allowed, price, np.inf).argmin(axis=1))


def maps(part: OutcomeTable, categories: tuple[str, ...], price: Float64Array) -> dict[str, IntArray]:
    """The expert of every row (k+1,) by each rule."""
    rows, k = row_numbers(part, categories), len(categories)
    cells = cell_sums(without_difficulty(part.scores, rows, k)[0], rows, k)
    evidence = measure_quality(part, categories)
    overall = part.scores.mean(axis=0, dtype=np.float64)
    plain = np.stack(
        [part.scores[rows == row].mean(axis=0) if (rows == row).any() else overall for row in range(k + 1)]
    )
    quality = posterior(*cells)[0]
    each = np.broadcast_to(price.astype(np.float32), quality.shape)
    found = (
        cautious_quality(evidence, each).argmax(axis=1),
        (plain + 1e-6 * overall).argmax(axis=1),  # of equals the better one overall
        shrink(*cells)[0].argmax(axis=1),
        quality.argmax(axis=1),
        cheaper_within(quality, price),
    )
    return dict(zip(RULES, found, strict=True))


def gains(
    table: OutcomeTable, price: Float64Array, size: int, deals: int
) -> tuple[dict[str, Float64Array], dict[str, float]] | None:
    """By rule, (n,) gain of each test prompt over the best single expert in hindsight, a mean over draws, and mean
    cost; None where the fit prompts are too few."""
    fit, test = table.rows(np.array([split != "test" for split in table.splits])), table.split("test")
    if size > MOST_OF_FIT * len(fit.texts):
        return None
    at, single = np.arange(len(test.texts)), test.scores[:, int(test.scores.mean(axis=0).argmax())]
    found: dict[str, list[Float64Array]] = defaultdict(list)
    paid: dict[str, list[float]] = defaultdict(list)
    for deal in range(deals):
        part = fit.rows(np.random.default_rng([deal, size]).permutation(len(fit.texts))[:size])
        categories = part.learned_categories()
        rows = row_numbers(test, categories)
        for rule, expert_of in maps(part, categories, price).items():
            found[rule].append((test.scores[at, expert_of[rows]] - single).astype(np.float64))
            paid[rule].append(float(price[expert_of[rows]].mean()))
    return {rule: np.mean(each, axis=0) for rule, each in found.items()}, {
        k: float(np.mean(v)) for k, v in paid.items()
    }


def main(
    tables: Annotated[Path, typer.Option(help="file of named tables")] = TABLES,
    deals: Annotated[int, typer.Option(help="draws of graded prompts")] = 40,
) -> None:
    """Print the points of each table and rule, then means over tables with an interval that resamples tables."""
    points: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    for name, table in named_tables(tables):
        price = prices(table, tables.parent)
        for size in SIZES:
            if (judged := gains(table, price, size, deals)) is None:
                continue
            gain, paid = judged
            for rule in RULES:
                points[size, rule].append((float(gain[rule].mean()), paid[rule] / max(paid["today"], 1e-12)))
                over = " ".join(f"over {rival}: {interval(gain[rule] - gain[rival])}" for rival in RULES[:2])
                print(
                    f"{name}, {size}, {rule}: {100 * gain[rule].mean():+.2f} over the best single; {over}", flush=True
                )
    for (size, rule), each in points.items():
        own, cost = np.array(each).T
        over = " ".join(f"over {rival}: {interval(own - np.array(points[size, rival])[:, 0])}" for rival in RULES[:2])
        ratio = np.exp(np.log(cost).mean())
        print(f"mean of {len(own)}, {size}, {rule}: {interval(own)}; {over}; {ratio:.2f} of today's cost")


if __name__ == "__main__":
    typer.run(main)
