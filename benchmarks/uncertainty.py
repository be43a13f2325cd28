"""Does the promise behind `general` hold: of the queries not sent there, at most alpha are misclassified?

    python benchmarks/uncertainty.py [--data DIR] [--splits 100] [--fit 3000] [--test 3000] [--cache DIR] [--out FILE]

Random splits of labelled queries into a part that classifier, temperature and uncertainty are fitted on, exactly as
`coe train` fits them, and a part they are measured on. Texts are embedded once. Shapes: n queries, d dimensions.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from coe.base.shares import calibration_error
from coe.router import plugins
from coe.router.protocols import Encoder
from coe.router.quality import QualityMatrix
from coe.router.reading.uncertainty import apply_temperature
from coe.router.section import PluginConfig
from coe.router.types import GENERAL, FloatArray
from coe.training.fit import one_thread
from coe.training.stage_one import (
    FitRequest,
    LabelledEmbeddings,
    StageOne,
    embed,
    fit_stage_one,
    label_numbers,
    stage_one_metrics,
)
from coe.training.types import LabelledQuery

DATA = Path(__file__).parent.parent / ".." / "shared" / "data"
RESULTS = Path(__file__).parent.parent / "docs" / "results" / "uncertainty.md"
ALPHAS = (0.05, 0.1, 0.2)
ECE_LIMIT = 0.03
SEED = 0
MIN_QUERIES = 100
"""Rarer categories are left out: a fit part of a tenth would hold too few to fold."""

PARTS = [{"kind": "use_multilingual"}, {"kind": "hashing", "weight": 0.5}]
INVERSE_L2 = 30.0
"""The logistic classifier's C; what its own cross-validation chose on both sets, fixed to keep a split to seconds."""


@dataclass(frozen=True)
class LabelSet:
    """Queries with their categories; those of `general` belong to no category."""

    name: str
    note: str
    queries: tuple[LabelledQuery, ...]


def read_rows(path: Path) -> list[dict[str, Any]]:
    from pyarrow.parquet import read_table

    columns = ["messages", "category", "coarse", "core_hash"]
    return cast("list[dict[str, Any]]", read_table(path, columns=columns).to_pylist())


def last_user_text(row: dict[str, Any]) -> str:
    return str([m["content"] for m in json.loads(row["messages"]) if m["role"] == "user"][-1]).strip()


def read_clinc(data: Path) -> LabelSet:
    labels = {
        last_user_text(row): GENERAL if row["category"] == "out_of_scope" else str(row["category"])
        for row in read_rows(data / "clinc150" / "prompts.parquet")
    }
    note = "10 domains; its out-of-scope queries belong to `general`"
    return LabelSet("clinc150", note, tuple(LabelledQuery(text, label) for text, label in labels.items()))


def read_coarse(data: Path) -> tuple[LabelSet, LabelSet]:
    """The common labels of the scored sources, without and with the prompts that are labelled `general`.

    A question that several sources ask counts once (the core hash), with a topical label if any source has one.
    """
    chosen: dict[str, LabelledQuery] = {}
    for scores in sorted(data.glob("*/scores.parquet")):
        for row in read_rows(scores.with_name("prompts.parquet")):
            known = chosen.get(row["core_hash"])
            if known is None or (known.category == GENERAL and row["coarse"] != GENERAL):
                chosen[row["core_hash"]] = LabelledQuery(last_user_text(row), str(row["coarse"]))
    queries = list({query.text: query for query in chosen.values()}.values())
    counts = Counter(query.category for query in queries)
    kept = tuple(query for query in queries if counts[query.category] >= MIN_QUERIES)
    topical = tuple(query for query in kept if query.category != GENERAL)
    hard = (
        "prompts labelled `general` count as queries of no category, though that label also holds prompts of any topic"
    )
    return (
        LabelSet("coarse", "topical labels; no query belongs to `general`", topical),
        LabelSet("coarse with general", hard, kept),
    )


def embedded(encoder: Encoder, texts: Sequence[str], cache: Path, console: Console) -> FloatArray:
    """(n, d) unit rows, from the cache if the same encoder embedded the same texts before."""
    key = hashlib.sha256("\0".join([encoder.fingerprint, *texts]).encode()).hexdigest()[:16]
    path = cache / f"{key}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        np.save(path, embed(encoder, texts, lambda line: None).astype(np.float16))
        console.print(f"embedded {len(texts)} texts in {time.monotonic() - start:.0f} s")
    vectors = np.load(path).astype(np.float32)
    return cast(FloatArray, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def fit_request(categories: Sequence[str]) -> FitRequest:
    """Stage 1 only: the evidence on experts is empty."""
    cells, row = np.zeros((len(categories) + 1, 1), np.float32), np.zeros(len(categories) + 1, np.float32)
    return FitRequest(
        encoder_config=PluginConfig.model_validate({"kind": "concat", "parts": PARTS}),
        classifier=PluginConfig.model_validate({"kind": "logistic", "inverse_l2": INVERSE_L2}),
        scorer=PluginConfig(kind="map"),
        categories=tuple(categories),
        experts=("none",),
        evidence=QualityMatrix(cells, cells, cells, row, row, cells, cells),
        alpha=ALPHAS[0],
        data_fingerprints={},
    )


FIGURES = ("error_when_sure", "coverage", "general_recall")


@dataclass(frozen=True)
class Measured:
    """Over s splits: `figures` (s, alphas, FIGURES), and (s,) each of the rest. `ece_floor` is what probabilities that
    are exactly right would show on as many queries."""

    figures: NDArray[np.float64]
    ece: NDArray[np.float64]
    ece_before: NDArray[np.float64]
    ece_floor: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def measure(
    stage: StageOne, test: LabelledEmbeddings, rng: np.random.Generator
) -> tuple[list[list[float]], list[float]]:
    """FIGURES for each alpha, and the other figures of one split, in the order of `Measured`."""
    at = {alpha: stage_one_metrics(stage, test, alpha) for alpha in ALPHAS}
    before = stage_one_metrics(replace(stage, temperature=1.0), test, ALPHAS[0])
    first = at[ALPHAS[0]]
    rest = [first["ece"].value, before["ece"].value, ece_floor(stage, test, rng), first["category_accuracy"].value]
    return [[at[alpha][name].value for name in FIGURES] for alpha in ALPHAS], rest


def ece_floor(stage: StageOne, test: LabelledEmbeddings, rng: np.random.Generator) -> float:
    """The calibration error if labels were drawn from the calibrated probabilities themselves."""
    known = test.labels < len(stage.classifier.categories_)
    raw = stage.classifier.predict_proba(test.embeddings[known]).probs
    probs = apply_temperature(raw, stage.temperature)
    drawn = (probs.cumsum(axis=1) > rng.random((len(probs), 1))).argmax(axis=1)
    right = (probs.argmax(axis=1) == drawn).astype(np.float32)
    return calibration_error(probs.max(axis=1), right) or 0.0


def run_splits(
    data: LabelledEmbeddings, request: FitRequest, splits: int, n_fit: int, n_test: int, console: Console
) -> Measured:
    rows, rests = [], []
    for split in range(splits):
        rng = np.random.default_rng([SEED, split])
        order = rng.permutation(len(data.labels))
        masks = np.zeros((2, len(order)), dtype=bool)
        masks[0, order[:n_fit]] = masks[1, order[n_fit : n_fit + n_test]] = True
        with one_thread():
            stage = fit_stage_one(data.take(masks[0]), request, rng)
            figures, rest = measure(stage, data.take(masks[1]), rng)
        rows.append(figures)
        rests.append(rest)
        if (split + 1) % 10 == 0:
            console.print(f"{split + 1} of {splits} splits")
    return Measured(np.array(rows), *np.array(rests).T)


def mean_interval(values: NDArray[np.float64], digits: int = 4) -> str:
    """The mean over splits with its 95% interval."""
    half = 1.96 * float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    mean = float(values.mean())
    return f"{mean:.{digits}f} [{mean - half:.{digits}f}, {mean + half:.{digits}f}]"


def section(chosen: LabelSet, measured: Measured) -> list[str]:
    has_general = any(query.category == GENERAL for query in chosen.queries)
    lines = [
        f"## {chosen.name}",
        "",
        f"{len(chosen.queries)} queries: {chosen.note}. Accuracy before the fallback "
        f"{mean_interval(measured.accuracy, 3)}.",
        "",
        "| alpha | misclassified of the accepted | holds | splits above alpha | 95th percentile, largest | coverage "
        "| `general` found |",
        "| --- " * 7 + "|",
    ]
    for i, alpha in enumerate(ALPHAS):
        error, coverage, recall = measured.figures[:, i].T
        cells = (
            f"{alpha}",
            mean_interval(error),
            "yes" if error.mean() <= alpha else "NO",
            f"{np.mean(error > alpha):.0%}",
            f"{np.percentile(error, 95):.3f}, {error.max():.3f}",
            mean_interval(coverage, 3),
            mean_interval(recall, 3) if has_general else "none there",
        )
        lines.append(f"| {' | '.join(cells)} |")
    verdict = "yes" if measured.ece.mean() <= ECE_LIMIT else "NO"
    calibration = (
        f"Calibration error {mean_interval(measured.ece)} (largest {measured.ece.max():.4f}; at most {ECE_LIMIT}: "
        f"{verdict}). Before temperature scaling: {mean_interval(measured.ece_before)}. Exactly right probabilities "
        f"would show {measured.ece_floor.mean():.4f} on as many queries."
    )
    return [*lines, "", calibration, ""]


HEAD = """# Does the promise behind `general` hold?

    {command}

The promise: of the queries that are not sent to `general`, at most alpha are misclassified, on average over routers
(`router.uncertainty.risk_threshold`). It was measured on {splits} random splits. Each has {fit} queries to fit
classifier, temperature and uncertainty, as `coe train` does, and {test} others to measure on. The encoder is
use_multilingual with hashed words at weight 0.5 and reads the texts as they are; the classifier is logistic
regression with C = {strength:g}. The labelled queries come from [public sources](sources.md).

- An accepted query of no category counts as misclassified. A split that accepts nothing counts as 0.
- "Coverage" is the share of queries with a category that are accepted. "`general` found" is the share of the other
  queries that are not accepted.
- Intervals are 95% intervals of the mean over splits of the same data, so they hold for these data only.
- A single split may exceed alpha: the promise is about the mean, and part of the scatter comes from the test part (with
  2,500 accepted queries and alpha 0.05, a standard error of 0.004).
"""


def main(
    data: Annotated[
        Path, typer.Option(envvar="COE_BENCH_DATA", help="folder of label tables, or the one that holds it as routing/")
    ] = DATA,
    splits: Annotated[int, typer.Option(min=1)] = 100,
    fit: Annotated[int, typer.Option(min=100, help="queries to fit on, per split")] = 3000,
    test: Annotated[int, typer.Option(min=1, help="queries to measure on, per split")] = 3000,
    cache: Annotated[Path, typer.Option(help="folder for embeddings")] = Path("out/embeddings"),
    out: Annotated[Path, typer.Option(help="Markdown file to write")] = RESULTS,
) -> None:
    console = Console(width=140)
    folder = data / "routing" if (data / "routing").is_dir() else data
    encoder = cast(Encoder, plugins.build("router.encoders", "concat", {"parts": PARTS}))
    clinc, (coarse, hard) = read_clinc(folder), read_coarse(folder)
    vectors: dict[str, FloatArray] = {}
    for every in (clinc, hard):
        texts = [query.text for query in every.queries]
        vectors |= zip(texts, embedded(encoder, texts, cache, console), strict=True)
    sections: list[str] = []
    for chosen in (clinc, coarse, hard):
        console.print(f"{chosen.name}: {len(chosen.queries)} queries")
        categories = sorted({query.category for query in chosen.queries} - {GENERAL})
        rows = np.stack([vectors[query.text] for query in chosen.queries])
        labelled = LabelledEmbeddings(rows, label_numbers(chosen.queries, categories))
        sections += section(chosen, run_splits(labelled, fit_request(categories), splits, fit, test, console))
    command = f"python benchmarks/uncertainty.py --splits {splits} --fit {fit} --test {test}"
    head = HEAD.format(command=command, splits=splits, fit=fit, test=test, strength=INVERSE_L2)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join([head, *sections]), encoding="utf-8")
    console.print("\n".join(sections))


if __name__ == "__main__":
    typer.run(main)
