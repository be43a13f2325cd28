"""Share of the gap between best single and per-query oracle that is closed by knowing far more than a router can.

    python -m benchmarks.routing_ceiling [--data DIR] [--cache DIR] [--out FILE] [--seed N]

For every prompt the graded scores of all other models of the table's source are given away, with the data's own labels
and the prompt's embedding. Experts, splits and rule of choice are those of benchmarks/routing.py. Shapes: n prompts, m
experts, o other models, d features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from threadpoolctl import threadpool_limits

from benchmarks.ceiling_cases import RELATED, SAMPLES, Case, Float64Array, Prompts, read_case, sampled_rates
from coe.eval.metrics.intervals import bootstrap_means, gap_closed, percentile_interval
from coe.router.types import FloatArray
from coe.training.scorer_fit import best_margin, chosen_scores

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".." / "shared" / "data" / "routing"
RESULTS = ROOT / "docs" / "results" / "routing-ceiling.md"
CACHE = ROOT / "data" / "routing-results" / "embeddings"
"""Folder in which benchmarks/routing.py keeps them."""

TABLES = ("routerdc_7", "fasteval_8", "bbh_4", "ollb_4", "ollb_small_5", "mmlu_pro_small_6")
FOLDS = 5
DIRECTIONS = 32
"""Principal directions of the embedding that trees see: more do not help them and cost time."""

TOLD, EVERYTHING, WITHOUT_RELATED = "other models", "all", "all but related"
KNOWN: Mapping[str, tuple[str, ...]] = {
    "embedding": ("embedding",),
    "true labels": ("labels",),
    TOLD: ("others", "related"),
    EVERYTHING: ("embedding", "labels", "others", "related"),
    WITHOUT_RELATED: ("embedding", "labels", "others"),
}
"""Kinds of knowledge about a prompt, and the blocks of features that hold it."""

QUOTED = {"all": EVERYTHING, "embedding": "embedding", "labels": "true labels", "without": WITHOUT_RELATED}
HINDSIGHT = {EVERYTHING: "all, kind in hindsight", WITHOUT_RELATED: "all but related, kind in hindsight"}
MEAN_OF_ALL, MEAN_OF_TOLD = "mean", "mean of those with others"

PAGE = """# How much of the routing gap could be closed at all

Made by `python -m benchmarks.routing_ceiling` in {minutes:.0f} minutes on a shared core. Figures are the closed share
of the gap between the best single expert and the per-query oracle, in percent, with 95% bootstrap intervals over
prompts. Tables, experts, splits and test prompts are those of [routing.md](routing.md), which has what the default
router closes.

The columns differ in what is known about a prompt:

- `embedding`: what the router sees
- `true labels`: the data's own benchmark and category
- `other models`: the graded scores of all other models of the source on the same prompt (routerdc has none)
- `all`: these three together
- `all but related`: the same without the one model that was trained from the weights of an expert ({related})

Ridge, random forest, gradient boosting and their mean are fitted on train and valid prompts. {folds} folds of these
choose the kind (`kind` names that of `all`) and the lead that an expert must have. "In hindsight" means the kind that
is best on the test prompts themselves, so these figures are too high. Reordering the features that a forest draws from
moved the mean of `all` by 1.

## Test prompts

{on_test}

## Fit prompts, out of fold

These are four times as many prompts. The figures are slightly too high, because kind and lead were chosen on them.

{on_fit}

## What follows

- The embedding alone closes {embedding_test} on test prompts and {embedding_fit} out of fold. The default router has
  [reached that already](routing.md). The true labels close {labels_test} and {labels_fit}.
- Everything together closes {all_test} and {all_fit}. Where a related model exists, it contributes about half of that,
  because it answers much like its expert. Without it, {without_test} and {without_fit} are closed.
- So 25% is about what the grades of 13 to 25 other models on the same prompt allow; without the related model it is
  more than they allow out of fold. A router that sees only the text would have to learn from it nearly everything that
  those answers reveal.
- The small test split of fasteval_8 flatters every column, so the out-of-fold figures are the more stable ones.
- Chance is the smaller part of the gap where it can be measured. On {rated} prompts of routerdc that were answered
  {samples} times, it accounts for {luck:.1f} of the {gap:.1f} points between the best single expert and an oracle of
  single answers ({luck_share:.0%}). The rest is reproducible: it depends on the combination of prompt and expert.

## What it does not show

This is not an upper bound. An expert's own hidden states or log-probabilities contain what other models' answers do
not, and the contribution of the related model suggests that this is much. Other regressions may extract more from the
same knowledge. routerdc has no other models. `all but related` was added after a first run had shown how much one model
contributed.
"""

Predict = Callable[[Float64Array, Float64Array, Float64Array, int], Float64Array]


@dataclass(frozen=True)
class Predicted:
    """Predictions of one kind from one set of features, and the scores (n,) of what it chooses: `unseen` out of fold on
    the fit prompts, `tested` on the test prompts."""

    kind: str
    unseen: Float64Array
    tested: Float64Array


def principal_directions(embeddings: FloatArray, dimensions: int) -> FloatArray:
    """(d, p) the directions of largest second moment, p at most `dimensions`; not centred, so cosines stay cosines."""
    values, vectors = np.linalg.eigh((embeddings.T @ embeddings).astype(np.float64))
    kept = min(dimensions, len(values), max(len(embeddings), 1))
    return np.ascontiguousarray(vectors[:, ::-1][:, :kept], dtype=np.float32)


def ridge(features: Float64Array, targets: Float64Array, asked: Float64Array, seed: int) -> Float64Array:
    """Its strength by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    return np.asarray(RidgeCV(np.logspace(-1, 4, 11)).fit(features, targets).predict(asked), dtype=np.float64)


def forest(features: Float64Array, targets: Float64Array, asked: Float64Array, seed: int) -> Float64Array:
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(100, min_samples_leaf=10, max_features=0.3, random_state=seed, n_jobs=1)
    return np.asarray(model.fit(features, targets).predict(asked), dtype=np.float64)


def boosting(features: Float64Array, targets: Float64Array, asked: Float64Array, seed: int) -> Float64Array:
    from sklearn.ensemble import HistGradientBoostingRegressor

    settings = {"max_iter": 80, "learning_rate": 0.06, "max_leaf_nodes": 12, "l2_regularization": 1.0}
    model = HistGradientBoostingRegressor(**settings, max_features=0.3, early_stopping=False, random_state=seed)
    return np.stack([model.fit(features, target).predict(asked) for target in targets.T], axis=1)


KINDS: Mapping[str, Predict] = {"ridge": ridge, "forest": forest, "boosting": boosting}
MEAN = "mean of kinds"


def joined(prompts: Prompts, wanted: Sequence[str], projection: Float64Array | None) -> Float64Array:
    """(n, d) the wanted blocks side by side, the embedding projected where a projection is given."""
    parts = {name: prompts.blocks[name] for name in wanted}
    if projection is not None and "embedding" in parts:
        parts["embedding"] = parts["embedding"] @ projection
    return np.concatenate(list(parts.values()), axis=1)


def predict(case: Case, wanted: Sequence[str], seed: int, kinds: Mapping[str, Predict] = KINDS) -> list[Predicted]:
    """Every kind and their mean, fitted on the fit prompts; the lead that an expert must have is the router's own rule.

    What experts have in common on a prompt changes no choice, so it is taken off before fitting.
    """
    fit, test = case.fit, case.test
    targets = fit.scores - fit.scores.mean(axis=1, keepdims=True)
    directions = principal_directions(fit.blocks["embedding"].astype(np.float32), DIRECTIONS).astype(np.float64)
    fold = np.random.default_rng(seed).permutation(len(targets)) % FOLDS
    unseen, quality = {}, {}
    for kind, of in kinds.items():
        projection = None if kind == "ridge" else directions
        features, asked = joined(fit, wanted, projection), joined(test, wanted, projection)
        unseen[kind] = np.empty_like(targets)
        for held in range(FOLDS):
            rest, part = fold != held, fold == held
            unseen[kind][part] = of(features[rest], targets[rest], features[part], seed)
        quality[kind] = of(features, targets, asked, seed)
    for values in (unseen, quality):
        values[MEAN] = np.mean(list(values.values()), axis=0)
    found = []
    for kind in unseen:
        margin = best_margin(unseen[kind], fit.scores)
        chosen = chosen_scores(unseen[kind], fit.scores, margin), chosen_scores(quality[kind], test.scores, margin)
        found.append(Predicted(kind, *chosen))
    return found


def validated(found: Sequence[Predicted]) -> Predicted:
    """The kind that chooses best out of fold."""
    return max(found, key=lambda one: one.unseen.mean())


def hindsight(found: Sequence[Predicted]) -> Predicted:
    """The kind that chooses best on the test prompts, which nobody can know."""
    return max(found, key=lambda one: one.tested.mean())


@dataclass(frozen=True)
class Share:
    """Share of the gap that is closed, and its bootstrap draws (b,)."""

    value: float
    draws: Float64Array

    def __str__(self) -> str:
        low, high = percentile_interval(self.draws)
        return f"{100 * self.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def mean_share(shares: Sequence[Share]) -> Share:
    return Share(float(np.mean([s.value for s in shares])), np.mean([s.draws for s in shares], axis=0))


def closed_shares(
    cases: Sequence[Case], arms: Mapping[str, Mapping[str, Float64Array]], *, is_test: bool, rng: np.random.Generator
) -> dict[str, dict[str, Share]]:
    """Shares by table and arm, from the scores (n,) of what each arm chooses.

    Tables of one source share prompts, so a draw takes the same prompts for all of them. A prompt that a table lacks
    counts as 0 for each of its arms: that scales their means alike, and no share depends on the scale. Every table must
    have a gap.
    """
    found: dict[str, dict[str, Share]] = {}
    for source in dict.fromkeys(case.source for case in cases):
        inside = [case for case in cases if case.source == source]
        parts = {case.name: case.test if is_test else case.fit for case in inside}
        place = {name: i for i, name in enumerate(sorted({i for part in parts.values() for i in part.ids}))}
        columns: dict[tuple[str, str], Float64Array] = {}
        for case in inside:
            part = parts[case.name]
            scores = {"single": part.scores[:, case.single], "oracle": part.scores.max(axis=1), **arms[case.name]}
            for arm, values in scores.items():
                column = columns[case.name, arm] = np.zeros(len(place))
                column[[place[i] for i in part.ids]] = values
        names = list(columns)
        wide = np.stack(list(columns.values()), axis=1)
        means, draws = wide.mean(axis=0)[None], bootstrap_means(wide, rng)
        for case in inside:
            single, oracle = (names.index((case.name, arm)) for arm in ("single", "oracle"))
            found[case.name] = {}
            for arm in arms[case.name]:
                own = names.index((case.name, arm))
                value, drawn = (gap_closed(v[:, own], v[:, single], v[:, oracle]) for v in (means, draws))
                found[case.name][arm] = Share(float(value[0]), drawn)
    return found


def draw_luck(rates: Float64Array, rng: np.random.Generator) -> tuple[float, float]:
    """From rates (n, m) of right answers among `SAMPLES`: the gap between best single expert and oracle when each
    expert answers once, and how much of it is gone when the oracle must go by the experts' rates.

    The largest of several estimated rates is too large; by how much is estimated by drawing again from the rates.
    """
    again = [rng.binomial(SAMPLES, rates).max(axis=1).mean() / SAMPLES for _ in range(200)]
    by_rate = 2 * rates.max(axis=1).mean() - np.mean(again)
    once = (1 - (1 - rates).prod(axis=1)).mean()
    return float(once - rates.mean(axis=0).max()), float(once - by_rate)


def measured_arms(case: Case, seed: int) -> tuple[dict[str, Float64Array], dict[str, Float64Array], str]:
    """By arm the scores (n,) of what it chooses on the test prompts, and on the fit prompts out of fold; and the kind
    that is taken where everything is known."""
    by_blocks: dict[tuple[str, ...], list[Predicted]] = {}  # without a related model some are the same
    found = {}
    for known, blocks in KNOWN.items():
        held = case.held(blocks)
        if held:
            found[known] = by_blocks[held] = by_blocks.get(held) or predict(case, held, seed)
    chosen = {known: validated(kinds) for known, kinds in found.items()}
    tested = {known: one.tested for known, one in chosen.items()}
    tested |= {label: hindsight(found[known]).tested for known, label in HINDSIGHT.items()}
    return tested, {known: one.unseen for known, one in chosen.items()}, chosen[EVERYTHING].kind


def share_lines(
    cases: Sequence[Case],
    shares: Mapping[str, Mapping[str, Share]],
    arms: Sequence[str],
    facts: Mapping[str, Mapping[str, str]],
) -> str:
    """One line a table, then the means, empty where a table lacks the arm; `facts` are more columns, by table."""
    names = [case.name for case in cases]
    groups = {MEAN_OF_ALL: names, MEAN_OF_TOLD: [name for name in names if TOLD in shares[name]]}
    lines = [["table", *facts, *arms], ["---"] * (1 + len(facts) + len(arms))]
    lines += [[name, *(f.get(name, "") for f in facts.values()), *shown(shares[name], arms)] for name in names]
    for label, group in groups.items():
        common = [arm for arm in arms if all(arm in shares[name] for name in group)]
        means = {arm: mean_share([shares[name][arm] for name in group]) for arm in common}
        lines.append([label, *(f.get(label, "") for f in facts.values()), *shown(means, arms)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def shown(shares: Mapping[str, Share], arms: Sequence[str]) -> list[str]:
    return [str(shares[arm]) if arm in shares else "" for arm in arms]


def main(
    data: Annotated[Path, typer.Option(help="folder of TABLES.yaml and the sources it names")] = DATA,
    cache: Annotated[Path, typer.Option(help="folder that keeps embeddings")] = CACHE,
    out: Annotated[Path, typer.Option(help="page to write")] = RESULTS,
    seed: Annotated[int, typer.Option(help="of every random draw")] = 0,
) -> None:
    """Measure what privileged knowledge would close."""
    start, console, rng = time.monotonic(), Console(stderr=True), np.random.default_rng(seed)
    cases, kinds = [], {}
    tested: dict[str, dict[str, Float64Array]] = {}
    unseen: dict[str, dict[str, Float64Array]] = {}
    with threadpool_limits(1):
        for name in TABLES:
            case = read_case(data, name, cache)
            cases.append(case)
            tested[name], unseen[name], kinds[name] = measured_arms(case, seed)
            console.print(f"{time.monotonic() - start:5.0f} s  {name}: {kinds[name]}", markup=False)
    rates = sampled_rates(data)
    gap, luck = draw_luck(rates, rng)
    facts = {
        "n": {case.name: str(len(case.test.ids)) for case in cases},
        "others": {case.name: str(sum(case.fit.blocks[name].shape[1] for name in KNOWN[TOLD])) for case in cases},
        "kind": kinds,
    }
    n_fit = {"n": {case.name: str(len(case.fit.ids)) for case in cases}}
    on_test = closed_shares(cases, tested, is_test=True, rng=rng)
    on_fit = closed_shares(cases, unseen, is_test=False, rng=rng)
    means = {
        f"{label}_{side}": mean_share([own[arm] for own in shares.values()])
        for label, arm in QUOTED.items()
        for side, shares in (("test", on_test), ("fit", on_fit))
    }
    text = PAGE.format(
        **means,
        minutes=(time.monotonic() - start) / 60,
        on_test=share_lines(cases, on_test, [*KNOWN, *HINDSIGHT.values()], facts),
        on_fit=share_lines(cases, on_fit, list(KNOWN), n_fit),
        related=", ".join(RELATED),
        folds=FOLDS,
        rated=len(rates),
        samples=SAMPLES,
        gap=100 * gap,
        luck=100 * luck,
        luck_share=luck / gap,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    console.print(f"wrote {out}", markup=False)


if __name__ == "__main__":
    typer.run(main)
