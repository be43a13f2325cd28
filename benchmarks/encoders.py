"""Encoders of stage 1: what they cost per query, and how well the categories are told apart with them.

    python -m benchmarks.encoders [--fresh] [--out docs/results/encoders.md]

Three figures of accuracy: cross-validated on the training part of the seed set, where choices are made; on the held-out
fifth, which no choice may look at; and with --fresh on benchmarks/fresh_prompts, 300 prompts in 16 languages that were
written after the last choice. Differences are paired, query by query, with the first encoder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.uncertainty import fit_request
from coe.base.errors import MissingWeightsError
from coe.base.extras import MissingExtraError
from coe.base.shares import Z_95
from coe.base.shipped import DEFAULT_CONFIG, seed_folder, shipped_root
from coe.cli.progress import silent
from coe.router.build import build_encoder
from coe.router.config.composition import load_config
from coe.router.protocols import Encoder
from coe.router.section import PluginConfig
from coe.router.types import GENERAL, FloatArray, Metric
from coe.training.fit import one_thread
from coe.training.fit_inputs import read_seed
from coe.training.stage_one import (
    LabelledEmbeddings,
    StageOne,
    embed,
    fit_stage_one,
    label_numbers,
    stage_one_metrics,
    wilson,
)
from coe.training.types import LabelledQuery, split_of

FRESH = Path(__file__).parent / "fresh_prompts"
ALPHA = 0.05
OTHERS: dict[str, dict[str, object]] = {
    "without hashed words": {
        "kind": "concat",
        "parts": [
            {"kind": "use_multilingual", "options": {"opening_tokens": 10}},
        ],
    },
    "with MiniLM in float32": {
        "kind": "concat",
        "parts": [
            {"kind": "use_multilingual"},
            {"kind": "bert", "options": {"max_tokens": 128}, "weight": 0.7},
        ],
    },
    "use_multilingual": {"kind": "use_multilingual"},
    "hashed words": {"kind": "hashing", "options": {"dim": 512}},
}
COLUMNS = (
    "encoder",
    "d",
    "load s",
    "ms p50 / p99",
    "cross-validated",
    "held out",
    "coverage",
    "wrong when sure",
    "fresh",
)


@dataclass(frozen=True)
class Parts:
    """The seed set's queries, those never trained on, and the fresh ones."""

    learned: tuple[LabelledQuery, ...]
    held_out: tuple[LabelledQuery, ...]
    fresh: tuple[LabelledQuery, ...]
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """Queries (n,) of a part: `known` ones are of a category, `sure` ones are not sent to `general`, and none of no
    category is `right`."""

    queries: tuple[LabelledQuery, ...]
    known: NDArray[np.bool_]
    sure: NDArray[np.bool_]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """One encoder's row, and what it makes of each part's queries."""

    name: str
    cells: tuple[str, ...]
    parts: dict[str, Judged]
    figures: dict[str, Metric]

    @property
    def right(self) -> dict[str, NDArray[np.bool_]]:
        """(n,) of the queries of a category, by part."""
        return {name: part.right[part.known] for name, part in self.parts.items()}


def read_parts(with_fresh: bool) -> Parts:
    queries = read_seed(seed_folder())
    return Parts(
        tuple(query for query in queries if split_of(query.text) != "test"),
        tuple(query for query in queries if split_of(query.text) == "test"),
        read_seed(FRESH) if with_fresh else (),
        tuple(sorted({query.category for query in queries} - {GENERAL})),
    )


def timed(encoder: Encoder, texts: Sequence[str]) -> tuple[FloatArray, NDArray[np.float64]]:
    """Vectors of texts one by one, and the milliseconds that each took."""
    vectors, times = [], []
    for text in texts:
        start = time.perf_counter()
        vectors.append(encoder.encode([text]))
        times.append(1000 * (time.perf_counter() - start))
    return np.concatenate(vectors), np.array(times)


def labelled(queries: Sequence[LabelledQuery], embeddings: FloatArray, categories: Sequence[str]) -> LabelledEmbeddings:
    return LabelledEmbeddings(embeddings, label_numbers(queries, categories))


def judged(stage: StageOne, queries: tuple[LabelledQuery, ...], data: LabelledEmbeddings, probs: FloatArray) -> Judged:
    """Queries with their calibrated probabilities (n, k)."""
    sure = stage.is_sure(data.embeddings, probs, ALPHA)
    return Judged(queries, data.labels < probs.shape[1], sure, probs.argmax(axis=1) == data.labels)


def measure(name: str, config: PluginConfig, parts: Parts) -> Measured:
    """Raises MissingWeightsError, MissingExtraError."""
    start = time.perf_counter()
    encoder = build_encoder(config)
    load_s = time.perf_counter() - start
    vectors, times = timed(encoder, [query.text for query in parts.held_out])
    learned = labelled(parts.learned, embed(encoder, [q.text for q in parts.learned], silent), parts.categories)
    request = replace(fit_request(parts.categories), classifier=PluginConfig(kind="logistic"))
    with one_thread():
        stage = fit_stage_one(learned, request, np.random.default_rng(0))
    held_out = labelled(parts.held_out, vectors, parts.categories)
    found = {
        "cross-validated": judged(stage, parts.learned, learned, stage.unseen),
        "held out": judged(stage, parts.held_out, held_out, stage.probs(held_out.embeddings)),
    }
    if parts.fresh:
        fresh = labelled(parts.fresh, encoder.encode([q.text for q in parts.fresh]), parts.categories)
        found["fresh"] = judged(stage, parts.fresh, fresh, stage.probs(fresh.embeddings))
    p50, p99 = np.percentile(times, [50, 99])
    cells = (str(encoder.dim), f"{load_s:.1f}", f"{p50:.2f} / {p99:.2f}")
    return Measured(name, cells, found, stage_one_metrics(stage, held_out, ALPHA))


def shown(metric: Metric) -> str:
    interval = metric.interval
    return f"{metric.value:.3f}" + ("" if interval is None else f" [{interval.low:.3f}, {interval.high:.3f}]")


def difference(right: NDArray[np.bool_], first: NDArray[np.bool_]) -> str:
    """Mean paired difference in accuracy with its 95% normal interval."""
    gains = right.astype(float) - first.astype(float)
    half = Z_95 * gains.std(ddof=1) / len(gains) ** 0.5
    return f"{gains.mean():+.3f} [{gains.mean() - half:+.3f}, {gains.mean() + half:+.3f}]"


def row_of(measured: Measured, first: Measured) -> list[str]:
    shares = {part: shown(wilson(int(right.sum()), len(right))) for part, right in measured.right.items()}
    if measured is not first:
        shares = {
            part: f"{share}; {difference(measured.right[part], first.right[part])}" for part, share in shares.items()
        }
    stage = [shown(measured.figures[name]) for name in ("coverage", "error_when_sure")]
    return [
        measured.name,
        *measured.cells,
        shares["cross-validated"],
        shares["held out"],
        *stage,
        shares.get("fresh", "not looked at"),
    ]


LENGTHS = (60, 200)
"""Characters up to which a query is short, and from which it is long."""


def groups_of(query: LabelledQuery) -> tuple[str, ...]:
    """The groups that a query belongs to."""
    short, long = LENGTHS
    n = len(query.text)
    length = f"up to {short} characters" if n <= short else f"over {long}" if n > long else f"{short + 1} to {long}"
    return ("English" if query.language == "en" else "other languages", length, query.category)


def group_lines(measured: Measured) -> list[str]:
    """A table of the promise by group: of its queries that are not sent to `general`, how many are misclassified."""
    parts = {name: part for name, part in measured.parts.items() if name != "fresh"}
    header = [f"{name}: {figure}" for name in parts for figure in ("right", "accepted", "wrong when sure")]
    lines = [f"| group | {' | '.join(header)} |", f"|{' --- |' * (len(header) + 1)}"]
    asked = {name: [groups_of(query) for query in part.queries] for name, part in parts.items()}
    for group in [name for own in zip(*asked["cross-validated"], strict=True) for name in sorted(set(own))]:
        cells = []
        for name, part in parts.items():
            inside = np.array([group in groups for groups in asked[name]], dtype=bool)
            known, sure = inside & part.known, inside & part.sure
            shares = ((part.right & known, known), (sure, inside), (sure & ~part.right, sure))
            cells += [shown(wilson(int(own.sum()), int(of.sum()))) if of.any() else "" for own, of in shares]
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return lines


def page(results: Sequence[Measured], parts: Parts) -> str:
    sizes = f"{len(parts.learned)} queries to learn from, {len(parts.held_out)} held out"
    lines = [
        "# Encoders of stage 1",
        "",
        f"    {COMMAND}{' --fresh' if parts.fresh else ''}",
        "",
        f"{sizes}, {len(parts.fresh)} fresh ones; classifier logistic, alpha {ALPHA}. Intervals are 95%: Wilson's for",
        "shares, normal for paired differences with the first row. `d` is the length of a vector, `coverage` the share",
        "that is not sent to `general`, `wrong when sure` the share of those that is misclassified. One text at a",
        "time, one thread.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(f"| {' | '.join(row_of(result, results[0]))} |" for result in results),
        "",
        f"## {results[0].name} by group",
        "",
        *group_lines(results[0]),
    ]
    return "\n".join(lines) + "\n"


COMMAND = "python -m benchmarks.encoders"


def main(
    fresh: Annotated[bool, typer.Option(help="look at the fresh prompts too: once, after the last choice")] = False,
    only_default: Annotated[bool, typer.Option(help="measure the shipped encoder alone")] = False,
    out: Annotated[Path | None, typer.Option(help="file of the page")] = None,
) -> None:
    console = Console(width=200)
    parts = read_parts(fresh)
    shipped = load_config(shipped_root() / DEFAULT_CONFIG).router.encoder
    setups = {"shipped default": shipped}
    if not only_default:
        setups |= {name: PluginConfig.model_validate(values) for name, values in OTHERS.items()}
    results = []
    for name, config in setups.items():
        try:
            results.append(measure(name, config, parts))
        except (MissingExtraError, MissingWeightsError) as error:
            console.print(f"{name}: left out, {error}")
            continue
        console.print(" | ".join(row_of(results[-1], results[0])))
    text = page(results, parts)
    if out is None:
        console.print(text)
    else:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
