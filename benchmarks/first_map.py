"""What a first map wins by how many graded prompts it rests on: `python -m benchmarks.first_map [--out PAGE]`.

Maps are fitted on draws of a table's fit prompts and judged on its test prompts, both by their true labels, so that
nothing but the rule differs (router.quality.cautious_quality). Where a cost was not recorded, list prices count, and
200 tokens of answer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.outcome_tables import write_chosen
from benchmarks.routing import TABLES
from coe.router.quality import CAUTION, CHEAPER, EQUAL, cautious_quality
from coe.router.types import Float64Array, IntArray
from coe.training.datasets.outcomes import read_models, read_outcomes
from coe.training.expert_map import cell_sums, measure_quality, row_numbers
from coe.training.types import OutcomeTable

SIZES, DEALS = (20, 112, 448, 1600, None), 16
MORE = {"routerbench": {"source": "routerbench"}}
ANSWER_TOKENS = 200
HEAD = """# What a first map wins, by graded prompts

Written by `python -m benchmarks.first_map` on {date}: {deals} draws of as many graded prompts from the fit part of \
each public table, judged on its test part, with the true category of every prompt. Points over the best single expert \
in hindsight, which a few grades cannot name; intervals are 95% over the draws. *Map*: the map of `coe train`, where a \
lead counts less {caution} standard errors, and of experts within {equal:.1f} points the cheapest serves if it costs \
less than {cheaper:.0%}. *Mean of each category*: who has the best plain mean there. *Best on average*: who has the \
best mean of all grades.

| table | graded prompts | map | mean of each category | best on average | cost of the map, of the latter's |
| --- | --- | --- | --- | --- | --- |
"""


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


def rules(part: OutcomeTable, categories: tuple[str, ...], cost: Float64Array) -> list[IntArray]:
    """(k+1,) the expert of each row of the map, by each rule."""
    evidence = measure_quality(part, categories)
    sums, _, counts = cell_sums(part.scores, row_numbers(part, categories), len(categories))
    overall = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), overall)
    each = np.broadcast_to(cost.astype(np.float32), evidence.quality.shape)
    single = np.full(len(means), overall.argmax())
    return [cautious_quality(evidence, each).argmax(axis=1), means.argmax(axis=1), single]


def draws(table: OutcomeTable, cost: Float64Array, size: int | None) -> tuple[Float64Array, Float64Array] | None:
    """(deals, rules) points over the best single expert, and mean costs; None where there are too few prompts."""
    fit, test = table.rows(np.array([split != "test" for split in table.splits])), table.split("test")
    if size is not None and size > len(fit.texts):
        return None
    scores = np.where(np.isfinite(test.scores), test.scores, np.nanmean(test.scores))
    points, paid, at = [], [], np.arange(len(test.texts))
    for deal in range(DEALS if size else 1):
        order = np.random.default_rng(1000 * deal + (size or 0)).permutation(len(fit.texts))[:size]
        part = fit.rows(order)
        categories = part.learned_categories()
        if not categories:
            continue
        rows = row_numbers(test, categories)
        served = [who[rows] for who in rules(part, categories, cost)]
        points.append([100 * (scores[at, who].mean() - scores.mean(axis=0).max()) for who in served])
        paid.append([cost[who].mean() for who in served])
    return np.array(points), np.array(paid)


def interval(values: Float64Array) -> str:
    """A mean over draws with its 95% normal interval; one draw has none."""
    if len(values) < 2:
        return f"{values.mean():+.2f}"
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.2f} [{values.mean() - half:+.2f}, {values.mean() + half:+.2f}]"


def read_table(name: str, entry: Mapping[str, Any], folder: Path) -> OutcomeTable:
    labels = "language" if entry["source"] == "m_ifeval" else "category"
    chosen = {name: entry.get(name) for name in ("benchmark", "metric")}
    with tempfile.TemporaryDirectory() as scratch:
        table = write_chosen(folder / entry["source"], Path(scratch), category=labels, **chosen)
        return read_outcomes(table, experts=entry.get("experts"))


def main(
    tables: Annotated[Path, typer.Option(help="file of named tables")] = TABLES,
    out: Annotated[Path | None, typer.Option(help="page to write")] = None,
) -> None:
    """Print the points of each table, then their means."""
    entries: dict[str, Any] = {**yaml.safe_load(tables.read_text(encoding="utf-8")), **MORE}
    means: dict[int | None, list[Float64Array]] = {size: [] for size in SIZES}
    lines = [
        HEAD.format(date=date.today(), deals=DEALS, caution=CAUTION, equal=100 * EQUAL, cheaper=CHEAPER).rstrip("\n")
    ]
    for name, entry in entries.items():
        if name == "pairs":
            continue
        table = read_table(name, entry, tables.parent)
        cost = prices(table, tables.parent)
        for size in SIZES:
            if (found := draws(table, cost, size)) is not None and len(found[0]):
                points, paid = found
                ratio = paid[:, 0].mean() / max(paid[:, 2].mean(), 1e-12)
                means[size].append(np.array([*points.mean(axis=0), np.log(max(ratio, 1e-12))]))
                cells = [name, str(size or "all"), *map(interval, points.T), f"{ratio:.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
    for size, each in means.items():
        *points, ratio = np.mean(each, axis=0)
        cells = [f"{point:+.2f}" for point in points]
        lines.append(f"| mean of {len(each)} tables | {size or 'all'} | {' | '.join(cells)} | {np.exp(ratio):.2f} |")
    text = "\n".join(lines) + "\n"
    print(text) if out is None else out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
