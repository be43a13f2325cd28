"""What published scores are worth to a first map: `python -m benchmarks.published_scores [--out PAGE]`.

The models of public tables that published_scores.yaml knows are compared on each table's own prompts. Published scores
of the benchmarks that a table is made of are left out. Maps are fitted and judged as benchmarks.first_map does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.first_map import DEALS, interval, prices, read_table
from benchmarks.routing import TABLES
from coe.router.quality import cautious_quality
from coe.router.types import Float64Array
from coe.training.expert_map import measure_quality, row_numbers
from coe.training.published_scores import WEIGHT, Source, published_qualities, read_sources
from coe.training.types import OutcomeTable

SIZES = (0, 20, 112, 448)
OWN: dict[str, tuple[str, ...]] = {
    "zeroeval_coe5": ("MMLU", "MMLU-redux", "GSM8K", "MATH", "MATH-500"),
    "ollb_4": ("MMLU-Pro", "IFEval"),
    "bbh_4": (),
    "shaberi_4": (),
    "m_ifeval_17": ("IFEval",),
    "mmlu_pro_cot": ("MMLU-Pro",),
}
"""Tables with several known models, and the published benchmarks that their prompts are from."""

HEAD = """# What published scores are worth before and beside a user's own grades

Written by `python -m benchmarks.published_scores` on {date}. \
[certificate.md](../certificate.md#without-a-single-grade) says how they are used. *Difference*: how far published \
differences between models are from those on the table, root mean square. *Worth*: the graded prompts, each asked of \
both models, whose means differ from the truth as far. *Best*: points that the best model by published scores loses to \
the best by all prompts. The benchmarks that a table is made of are left out.

| table | known models | correlation | difference | worth, prompts | best |
| --- | --- | --- | --- | --- | --- |
"""
MAPS = """
Points of a map over the best single expert in hindsight, {deals} draws of graded prompts, without and with published \
scores (weight {weight:.0f} prompts), and the paired difference with its 95% interval over draws. Without any grade, \
the first column is an expert drawn at random.

| table | graded prompts | grades alone | with published scores | difference |
| --- | --- | --- | --- | --- |
"""


def without(benchmarks: Sequence[str]) -> tuple[Source, ...]:
    """Return the shipped sources without some benchmarks."""
    found = []
    for entry in read_sources():
        keep = [i for i, name in enumerate(entry.benchmarks) if name not in benchmarks]
        scores = {model: tuple(values[i] for i in keep) for model, values in entry.scores.items()}
        found.append(
            entry.model_copy(update={"benchmarks": tuple(entry.benchmarks[i] for i in keep), "scores": scores})
        )
    return tuple(found)


def known_models(table: OutcomeTable, published: Float64Array) -> OutcomeTable:
    """Return the table of the experts with published scores."""
    keep = np.flatnonzero(np.isfinite(published))
    cells: dict[str, Any] = {name: values[:, keep] for name, values in table.matrices.items()}
    return replace(table, experts=tuple(table.experts[i] for i in keep), **cells)


def agreement(table: OutcomeTable, published: Float64Array) -> list[str]:
    """Return the cells of the first table's row."""
    scores = table.scores[np.isfinite(table.scores).all(axis=1)].astype(np.float64)
    own = scores.mean(axis=0)
    errors, worth = [], []
    for i in range(len(own)):
        for j in range(i):
            errors.append((own[i] - own[j]) - (published[i] - published[j]))
            worth.append((scores[:, i] - scores[:, j]).var())
    squared = float(np.mean(np.square(errors)))
    return [
        f"{len(own)}",
        f"{np.corrcoef(own, published)[0, 1]:.2f}",
        f"{100 * squared**0.5:.1f} points",
        f"{np.mean(worth) / squared:.0f}",
        f"{100 * (own.max() - own[published.argmax()]):.1f}",
    ]


def draws(table: OutcomeTable, cost: Float64Array, published: Float64Array, size: int) -> Float64Array | None:
    """Return the points of both maps, (deals, 2), or None if the table has too few prompts."""
    fit, test = table.rows(np.array([split != "test" for split in table.splits])), table.split("test")
    if size > len(fit.texts):
        return None
    scores = np.where(np.isfinite(test.scores), test.scores, np.nanmean(test.scores))
    found = []
    for deal in range(DEALS):
        part = fit.rows(np.random.default_rng(1000 * deal + size).permutation(len(fit.texts))[:size])
        categories = part.learned_categories()
        rows, points = row_numbers(test, categories), []
        for prior in ((), tuple(published)):
            evidence = measure_quality(part, categories, prior)
            each = np.broadcast_to(cost.astype(np.float32), evidence.quality.shape)
            serves = cautious_quality(evidence, each).argmax(axis=1)[rows]
            served = scores[np.arange(len(rows)), serves].mean() if size or prior else scores.mean()
            points.append(100 * (served - scores.mean(axis=0).max()))
        found.append(points)
    return np.array(found)


def main(
    tables: Annotated[Path, typer.Option(help="file of named tables")] = TABLES,
    out: Annotated[Path | None, typer.Option(help="page to write")] = None,
) -> None:
    """Print how well published scores predict each table, and what they add to its first map."""
    entries: dict[str, Any] = yaml.safe_load(tables.read_text(encoding="utf-8"))
    agree, maps = [], []
    means: dict[int, list[Float64Array]] = {size: [] for size in SIZES}
    for name, benchmarks in OWN.items():
        table = read_table(name, entries.get(name, {"source": name}), tables.parent)
        every = np.array(published_qualities(table.experts, without(benchmarks)))
        table, published = known_models(table, every), every[np.isfinite(every)]
        agree.append(f"| {' | '.join([name, *agreement(table, published)])} |")
        cost = prices(table, tables.parent)
        for size in SIZES:
            if (points := draws(table, cost, published, size)) is not None:
                means[size].append(points.mean(axis=0))
                gain = points[:, 1] - points[:, 0]
                both = [f"{value:+.2f}" for value in points.mean(axis=0)]
                cells = [name, str(size), *both, interval(gain) if size else f"{gain.mean():+.2f}"]
                maps.append(f"| {' | '.join(cells)} |")
    for size, each in means.items():
        alone, both = np.mean(each, axis=0)
        maps.append(f"| mean of {len(each)} tables | {size} | {alone:+.2f} | {both:+.2f} | {both - alone:+.2f} |")
    text = HEAD.format(date=date.today()) + "\n".join(agree) + "\n" + MAPS.format(deals=DEALS, weight=WEIGHT)
    text += "\n".join(maps) + "\n"
    print(text) if out is None else out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
