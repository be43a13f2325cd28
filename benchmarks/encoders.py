"""Encoders and classifiers on the seed set: latency of one short query, and cross-validated category accuracy.

    python benchmarks/encoders.py [--kinds onnx,static] [--folds 5]

Nothing is tuned here; the logistic classifier chooses its own strength inside each training part.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Annotated, cast

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from router import plugins
from router.errors import MissingExtraError, MissingWeightsError
from router.protocols import CategoryClassifier, Encoder
from router.shipped import seed_folder
from router.types import GENERAL
from training.classifier_metrics import wilson
from training.datasets.labelled_queries import read_seed
from training.types import LabelledQuery

SEED = seed_folder()
NOT_REAL = frozenset({"openai"})  # needs an endpoint
SHORT_CHARS, SHORT_QUERIES = 60, 200


def latency_ms(encoder: Encoder, texts: list[str]) -> NDArray[np.float64]:
    """Milliseconds of one call per text."""
    encoder.encode(texts[:3])
    times = []
    for text in texts:
        start = time.perf_counter()
        encoder.encode([text])
        times.append(1000 * (time.perf_counter() - start))
    return np.array(times)


def predictions(
    kind: str, vectors: NDArray[np.float32], labels: NDArray[np.int64], folds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(n,) categories, each predicted by a classifier of default options that was fitted on the other folds."""
    plugin = plugins.load("router.classifiers", kind)
    fit = import_module(f"training.classifiers.{kind}").fit
    k = int(labels.max()) + 1
    predicted = np.zeros(len(labels), dtype=np.int64)
    for fold in np.unique(folds):
        inside = folds != fold
        options = plugin.options_type()
        state = fit(options, vectors[inside], labels[inside], k)
        empty = cast(CategoryClassifier, plugin.build(options))
        fitted = empty.with_state([str(i) for i in range(k)], state)
        predicted[~inside] = fitted.predict_proba(vectors[~inside]).probs.argmax(axis=1)
    return predicted


def rows_of(kind: str, queries: list[LabelledQuery], folds: NDArray[np.int64]) -> list[tuple[str, ...]]:
    """Table rows of one encoder, one per classifier."""
    start = time.perf_counter()
    encoder = cast(Encoder, plugins.build("router.encoders", kind, {}))
    load_s = time.perf_counter() - start
    texts = [query.text for query in queries]
    vectors = encoder.encode(texts)
    labels = np.unique([query.category for query in queries], return_inverse=True)[1].astype(np.int64)
    times = latency_ms(encoder, [text for text in texts if len(text) < SHORT_CHARS][:SHORT_QUERIES])
    is_english = np.array([query.language == "en" for query in queries])
    rows: list[tuple[str, ...]] = []
    for classifier in plugins.kinds("router.classifiers"):
        right = predictions(classifier, vectors, labels, folds) == labels
        accuracy = wilson(int(right.sum()), len(right))
        interval = accuracy.interval
        rows.append(
            (
                kind,
                classifier,
                str(encoder.dim),
                f"{load_s:.2f}",
                f"{np.percentile(times, 50):.2f} / {np.percentile(times, 99):.2f}",
                f"{accuracy.value:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""),
                f"{right[is_english].mean():.3f} / {right[~is_english].mean():.3f}",
            )
        )
    return rows


def main(
    kinds: Annotated[str, typer.Option(help="comma separated; default: every kind that is installed")] = "",
    folds: Annotated[int, typer.Option(min=2)] = 5,
) -> None:
    console = Console(width=140)
    queries = [query for query in read_seed(SEED) if query.category != GENERAL]
    parts = np.random.default_rng(0).permutation(len(queries)) % folds
    table = Table(title=f"{len(queries)} labelled queries, {folds}-fold cross-validation, 95% Wilson intervals")
    columns = ("encoder", "classifier", "d", "load s", "ms p50 / p99", "accuracy", "English / other")
    for column in columns:
        table.add_column(column)
    for kind in kinds.split(",") if kinds else plugins.kinds("router.encoders"):
        if kind in NOT_REAL:
            continue
        try:
            rows = rows_of(kind, queries, parts)
        except (MissingExtraError, MissingWeightsError) as error:
            console.print(f"{kind}: left out, {error}")
            continue
        for row in rows:
            table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
