"""Held-out quality and cost of maps that know prices, against those that do not, on public outcome tables.

    python -m benchmarks.map_prices [--tables FILE]

Maps are fitted on draws of a table's fit prompts and judged on its test prompts, both by their true labels, so that
nothing but the rule differs (router.quality.cautious_quality). Where a cost was not recorded, list prices count, and
200 tokens of answer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.outcome_tables import write_chosen
from benchmarks.routing import TABLES
from coe.router.quality import cautious_quality
from coe.router.types import Float64Array
from coe.training.datasets.outcomes import read_models, read_outcomes
from coe.training.expert_map import measure_quality, row_numbers
from coe.training.types import OutcomeTable

SIZES, DEALS = (112, 448, 1792, None), 16
MORE = {"routerbench": {"source": "routerbench"}}
ANSWER_TOKENS = 200


def prices(table: OutcomeTable, folder: Path) -> Float64Array:
    """(m,) mean cost of a query, USD; the highest where it is unknown."""
    facts, tokens = read_models(folder / "models.parquet"), np.mean([len(text) / 4 for text in table.texts])
    found = np.full(len(table.experts), np.nan)
    for column, name in enumerate(table.experts):
        known = table.cost_usd[:, column][np.isfinite(table.cost_usd[:, column])]
        fact = facts.get(name)
        if len(known):
            found[column] = known.mean()
        elif fact and fact.price is not None:
            found[column] = (tokens * fact.price.of_text[0] + ANSWER_TOKENS * fact.price.of_text[1]) / 1e6
    return np.where(np.isfinite(found), found, np.nanmax(found) if np.isfinite(found).any() else 0.0)


def gains(table: OutcomeTable, cost: Float64Array, size: int | None) -> tuple[Float64Array, float] | None:
    """(n,) mean gain of each test prompt over the draws, and the ratio of the costs; None where there are too few."""
    fit, test = table.rows(np.array([split != "test" for split in table.splits])), table.split("test")
    if size is not None and size > len(fit.texts):
        return None
    found, paid = [], np.zeros(2)
    for deal in range(DEALS if size else 1):
        order = np.random.default_rng(1000 * deal + (size or 0)).permutation(len(fit.texts))[:size]
        part, at = fit.rows(order), np.arange(len(test.texts))
        categories = part.learned_categories()
        evidence, rows = measure_quality(part, categories), row_numbers(test, categories)
        each = np.broadcast_to(cost.astype(np.float32), evidence.quality.shape)
        now, before = (cautious_quality(evidence, price).argmax(axis=1)[rows] for price in (each, 0.0))
        found.append(test.scores[at, now] - test.scores[at, before])
        paid += [cost[now].mean(), cost[before].mean()]
    return np.mean(found, axis=0, dtype=np.float64), float(paid[0] / max(paid[1], 1e-12))


def interval(values: Float64Array) -> str:
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{100 * values.mean():+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def named_tables(tables: Path) -> Iterator[tuple[str, OutcomeTable]]:
    """The tables that a file names, and those of `MORE`."""
    entries: dict[str, Any] = {**yaml.safe_load(tables.read_text(encoding="utf-8")), **MORE}
    for name, entry in entries.items():
        if name == "pairs":
            continue
        labels = "language" if entry["source"] == "m_ifeval" else "category"
        chosen = {key: entry.get(key) for key in ("benchmark", "metric")}
        with tempfile.TemporaryDirectory() as scratch:
            folder = write_chosen(tables.parent / entry["source"], Path(scratch), category=labels, **chosen)
            yield name, read_outcomes(folder, experts=entry.get("experts"))


def main(tables: Annotated[Path, typer.Option(help="file of named tables")] = TABLES) -> None:
    """Print the points of each table, then their means."""
    means: dict[int | None, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for name, table in named_tables(tables):
        cost = prices(table, tables.parent)
        for size in SIZES:
            if (found := gains(table, cost, size)) is not None:
                means[size].append((float(found[0].mean()), found[1]))
                print(f"{name}, {size or 'all'} prompts: {interval(found[0])} points at {found[1]:.2f} of the cost")
    for size, each in means.items():
        points, ratios = np.array(each).T
        print(f"mean of {len(each)}, {size or 'all'}: {interval(points)}, {np.exp(np.log(ratios).mean()):.2f}")


if __name__ == "__main__":
    typer.run(main)
