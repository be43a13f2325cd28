"""Does a category of five examples serve at once? The shipped queries, each category in turn reduced to five.

    python -m benchmarks.new_category [--runs 1] [--examples 5]

What fits is the code of `coe train`; what is measured are the held-out queries of the seed set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.uncertainty import fit_request, mean_interval
from coe.base.shipped import seed_folder
from coe.router.build import build_encoder
from coe.router.config.composition import load_config
from coe.training.fit import one_thread
from coe.training.fit_inputs import labelled_queries
from coe.training.stage_one import LabelledEmbeddings, StageOne, embed, fit_stage_one, label_numbers
from coe.training.types import split_of

ROOT = Path(__file__).parent.parent
FIGURES = (
    "likeliest",
    "served as it",
    "sent to `general`",
    "served as another",
    "of what is served as it, others'",
    "others: likeliest",
    "others: accepted",
    "of all accepted, misclassified",
)


@dataclass(frozen=True)
class Held:
    """Training and held-out queries, and the alpha of the composition."""

    train: LabelledEmbeddings
    test: LabelledEmbeddings
    categories: tuple[str, ...]
    alpha: float


def read_queries() -> Held:
    config = load_config(ROOT / "experts.yaml")
    queries = labelled_queries(config, seed_folder())
    vectors = embed(build_encoder(config.router.encoder), [query.text for query in queries], lambda _: None)
    data = LabelledEmbeddings(vectors, label_numbers(queries, config.learned_categories))
    is_test = np.array([split_of(query.text) == "test" for query in queries])
    return Held(data.take(~is_test), data.take(is_test), config.learned_categories, config.router.alpha)


def fitted(data: LabelledEmbeddings, held: Held) -> StageOne:
    return fit_stage_one(data, fit_request(held.categories), np.random.default_rng(0))


def figures(stage: StageOne, held: Held, number: int) -> NDArray[np.float64]:
    """FIGURES of one category."""
    test, probs = held.test, stage.probs(held.test.embeddings)
    sure, likely = stage.is_sure(test.embeddings, probs, held.alpha), probs.argmax(axis=1)
    own, other = test.labels == number, (test.labels != number) & (test.labels < len(held.categories))
    as_it = sure & (likely == number)
    return np.array(
        [
            (likely == number)[own].mean(),
            as_it[own].mean(),
            (~sure)[own].mean(),
            (sure & ~as_it)[own].mean(),
            (as_it & ~own).sum() / max(int(as_it.sum()), 1),
            (likely == test.labels)[other].mean(),
            sure[other].mean(),
            (sure & (likely != test.labels)).sum() / max(int(sure.sum()), 1),
        ]
    )


def reduced(train: LabelledEmbeddings, number: int, examples: int, rng: np.random.Generator) -> LabelledEmbeddings:
    """The queries without all but a few of a category."""
    own = np.flatnonzero(train.labels == number)
    keep = train.labels != number
    keep[rng.choice(own, examples, replace=False)] = True
    return train.take(keep)


def main(
    examples: Annotated[int, typer.Option(min=1)] = 5,
    runs: Annotated[int, typer.Option(min=1, help="draws of the examples of each category")] = 1,
) -> None:
    """Measure categories of a few examples."""
    held, console = read_queries(), Console(width=160)
    found: Mapping[str, list[NDArray[np.float64]]] = {"all of its queries": [], f"{examples} examples": []}
    with one_thread():
        whole = fitted(held.train, held)
        for number in range(len(held.categories)):
            for run in range(runs):
                few = fitted(reduced(held.train, number, examples, np.random.default_rng([run, number])), held)
                for column, stage in zip(found.values(), (whole, few), strict=True):
                    column.append(figures(stage, held, number))
    console.print(f"| | {' | '.join(found)} |")
    for column, name in enumerate(FIGURES):
        console.print(f"| {name} | {' | '.join(mean_interval(np.array(v)[:, column], 3) for v in found.values())} |")


if __name__ == "__main__":
    typer.run(main)
