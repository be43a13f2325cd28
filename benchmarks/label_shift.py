"""Do temperature and alpha hold when the traffic's mix of categories is not that of the labelled queries?

    python -m benchmarks.label_shift [--data DIR] [--splits 40] [--fit 3000] [--asked 5000] [--test 3000] [--cache DIR]

Public labelled queries, split at random as in `benchmarks.uncertainty`; those that are "asked" and those that are
measured on are then drawn with a long tail over the categories, a category of rank r in proportion to 1 / r, in an
order drawn anew. What fits, estimates the mix and follows it is the code of `coe retrain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.uncertainty import (
    DATA,
    PARTS,
    LabelSet,
    embedded,
    fit_request,
    last_user_text,
    mean_interval,
    read_clinc,
    read_rows,
)
from coe.base.shares import calibration_error
from coe.router import plugins
from coe.router.protocols import Encoder
from coe.router.types import GENERAL, FloatArray
from coe.training.category_mix import AskedQueries, total_variation
from coe.training.fit import one_thread
from coe.training.stage_one import (
    FitRequest,
    LabelledEmbeddings,
    StageOne,
    fit_stage_one,
    follow_traffic,
    label_numbers,
)
from coe.training.types import LabelledQuery

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "label-shift.md"
SEED = 0
ALPHAS = (0.05, 0.1, 0.2)
FIGURES = ("accuracy", "ece", "error", "coverage")


@dataclass(frozen=True)
class Split:
    """Figures of one split at one alpha: FIGURES of stage 1 as labelled and following the traffic, and the estimate:
    true distance, error of the estimate, whether the interval of the distance holds the truth."""

    before: tuple[float, ...]
    after: tuple[float, ...]
    moved: float
    missed: float
    is_covered: bool


def read_subjects(data: Path) -> LabelSet:
    labels = {last_user_text(row): str(row["category"]) for row in read_rows(data / "mmlu_pro_cot" / "prompts.parquet")}
    queries = tuple(LabelledQuery(text, label) for text, label in labels.items())
    return LabelSet("mmlu_pro", "14 subjects of exam questions; no query belongs to `general`", queries)


def long_tail(labels: NDArray[np.int64], k: int, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows drawn so that category shares fall like 1 / rank; queries of no category (k) keep their share."""
    rank = rng.permutation(k) + 1
    present = np.bincount(labels, minlength=k + 1)[:k]
    target = np.where(present > 0, 1.0 / rank, 0.0)
    odds = np.append(target / target.sum() * present.sum() / np.maximum(present, 1), 1.0)
    chance = odds[labels]
    return rng.choice(len(labels), n, p=chance / chance.sum())


def figures(stage: StageOne, test: LabelledEmbeddings, alpha: float) -> tuple[float, ...]:
    """FIGURES on a test set: accuracy and calibration error of queries with a category, what is misclassified of those
    that are accepted, and the share of queries with a category that is."""
    probs = stage.probs(test.embeddings)
    known, right = test.labels < probs.shape[1], probs.argmax(axis=1) == test.labels
    sure = stage.is_sure(test.embeddings, probs, alpha)
    return (
        float(right[known].mean()),
        calibration_error(probs[known].max(axis=1), right[known].astype(np.float32)) or 0.0,
        float((sure & ~right).sum() / max(int(sure.sum()), 1)),
        float(sure[known].mean()),
    )


def run_split(
    data: LabelledEmbeddings, request: FitRequest, sizes: tuple[int, int, int], split: int
) -> dict[float, Split]:
    """One split: fit, then draw a mix for what is asked and what is measured on."""
    rng, k = np.random.default_rng([SEED, split]), len(request.categories)
    order = rng.permutation(len(data.labels))
    fitted, rest = data.take(np.isin(np.arange(len(order)), order[: sizes[0]])), order[sizes[0] :]
    stage = fit_stage_one(fitted, request, rng)
    mixed_seed = int(rng.integers(2**32))
    halves = [
        half[long_tail(data.labels[half], k, n, np.random.default_rng(mixed_seed))]
        for half, n in zip(np.array_split(rest, 2), sizes[1:], strict=True)
    ]
    asked = AskedQueries(data.embeddings[halves[0]], np.arange(len(halves[0])), np.ones(len(halves[0])))
    test = LabelledEmbeddings(data.embeddings[halves[1]], data.labels[halves[1]])
    shares = [np.bincount(labels, minlength=k + 1)[:k] for labels in (data.labels[halves[0]], fitted.labels)]
    true, own = (each / each.sum() for each in shares)
    found = {}
    for alpha in ALPHAS:
        following = follow_traffic(stage, fitted, replace(request, alpha=alpha, asked=asked), rng)
        mix, moved = following.mix, float(total_variation(true, own))
        if mix is None or mix.moved.interval is None:
            continue
        found[alpha] = Split(
            before=figures(stage, test, alpha),
            after=figures(following, test, alpha),
            moved=moved,
            missed=float(total_variation(mix.shares, true)),
            is_covered=mix.moved.interval.low <= moved <= mix.moved.interval.high,
        )
    return found


def section(chosen: LabelSet, splits: Sequence[dict[float, Split]]) -> list[str]:
    """A table of one set."""
    first = [next(iter(each.values())) for each in splits if each]
    lines = [
        f"## {chosen.name}",
        "",
        f"{len(chosen.queries)} queries: {chosen.note}. The asked mix is "
        f"{mean_interval(np.array([one.moved for one in first]), 3)} (total variation) from the labelled one; the "
        f"estimate misses it by {mean_interval(np.array([one.missed for one in first]), 3)}, and the interval of the "
        f"distance holds the truth in {sum(one.is_covered for one in first)} of {len(first)} splits.",
        "",
        "| alpha | stage 1 | accuracy | calibration error | misclassified of the accepted | holds | coverage |",
        "| --- " * 7 + "|",
    ]
    for alpha in ALPHAS:
        own = [each[alpha] for each in splits if alpha in each]
        if len(own) < len(splits):  # stage 1 is sure of too few to estimate a mix from
            lines.append(f"| {alpha} | no mix is estimated in {len(splits) - len(own)} splits | | | | | |")
            continue
        for name in ("before", "after"):
            values = np.array([getattr(one, name) for one in own])
            label = {"before": "expects the labelled mix", "after": "follows the traffic"}[name]
            holds = "yes" if values[:, 2].mean() <= alpha else "NO"
            cells = [mean_interval(values[:, column], 3) for column in range(len(FIGURES))]
            lines.append(f"| {alpha} | {label} | {' | '.join(cells[:3])} | {holds} | {cells[3]} |")
        gained = np.array([np.subtract(one.after, one.before) for one in own])
        cells = [mean_interval(gained[:, column], 3) for column in range(len(FIGURES))]
        lines.append(f"| {alpha} | difference | {' | '.join(cells[:3])} | | {cells[3]} |")
    return [*lines, ""]


HEAD = """# Does stage 1 hold when the traffic's mix is not that of the labelled queries?

    {command}

{splits} random splits: {fit} labelled queries are fitted on, {asked} others are asked (their categories are not looked
at) and {test} more are measured on. Both are drawn with a long tail: a category of rank r in proportion to 1 / r, the
order of ranks drawn anew in each split. One stage 1 *expects the labelled mix*, that of the queries it was fitted on;
one *follows the traffic*: it has estimated the mix from what was asked, as `coe retrain` does
([docs/retrain.md](../retrain.md)). Encoder and classifier are those of [uncertainty.md](uncertainty.md); the queries
come from [public sources](sources.md). Intervals are 95% intervals of the mean over splits.

Queries of a category are the same here whoever asks: only the mix moves, which is what the method assumes. Real traffic
also words its questions otherwise, and no public set says how much.
"""


def main(
    data: Annotated[Path, typer.Option(envvar="COE_BENCH_DATA", help="folder of label tables")] = DATA,
    splits: Annotated[int, typer.Option(min=2)] = 40,
    fit: Annotated[int, typer.Option(min=100)] = 3000,
    asked: Annotated[int, typer.Option(min=200)] = 5000,
    test: Annotated[int, typer.Option(min=1)] = 3000,
    cache: Annotated[Path, typer.Option(help="folder for embeddings")] = Path("out/embeddings"),
    out: Annotated[Path, typer.Option(help="Markdown file to write")] = RESULTS,
) -> None:
    """Measure stage 1 under label shift."""
    console, folder = Console(width=140), data / "routing" if (data / "routing").is_dir() else data
    encoder = cast(Encoder, plugins.build("router.encoders", "concat", {"parts": PARTS}))
    sections: list[str] = []
    for chosen in (read_clinc(folder), read_subjects(folder)):
        categories = sorted({query.category for query in chosen.queries} - {GENERAL})
        vectors: FloatArray = embedded(encoder, [query.text for query in chosen.queries], cache, console)
        labelled = LabelledEmbeddings(vectors, label_numbers(chosen.queries, categories))
        with one_thread():
            runs = [run_split(labelled, fit_request(categories), (fit, asked, test), split) for split in range(splits)]
        sections += section(chosen, runs)
        console.print("\n".join(sections))
    command = f"python -m benchmarks.label_shift --splits {splits} --fit {fit} --asked {asked} --test {test}"
    head = HEAD.format(command=command, splits=splits, fit=fit, asked=asked, test=test)
    out.write_text("\n".join([head, *sections]), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
