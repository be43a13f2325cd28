"""The use of strong calls between a weak and a strong expert (RouteLLM, Ong et al. 2024, arXiv 2406.18665).

Shapes: n queries, t groups of queries with equal predicted gain, b bootstrap draws. The strong expert is called on the
queries of highest predicted gain first. Queries of equal predicted gain come in random order and the last call may be
drawn by lot, so the expected score is linear between the ends of the groups, and every figure here is that expectation.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pydantic import Field

from coe.cli.progress import silent
from coe.eval.metrics.intervals import DRAWS, Estimate
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.routing_run import load, run_trial, table_request
from coe.eval.routing.table_fit import fit_methods
from coe.eval.routing.trial import Trial
from coe.eval.routing.trial_tables import read_tables
from coe.router.config.policy import Budgets
from coe.router.pipeline import Router
from coe.router.types import Float64Array, IntArray, QueryBatch, Record

CPT_LEVELS = (50, 80)


@dataclass(frozen=True)
class CallCurve:
    """Expected mean score against the share of strong calls; linear between the points.

    `share` (t + 1,) rises from 0 to 1, `quality` (t + 1,) goes from the weak to the strong expert's mean score.
    """

    share: Float64Array
    quality: Float64Array

    @property
    def gap(self) -> float:
        """The strong expert's mean score minus the weak one's."""
        return float(self.quality[-1] - self.quality[0])

    def recovered(self) -> Float64Array:
        """PGR (t + 1,): (quality - weak) / (strong - weak), RouteLLM eq. 4. Raises ValueError without a gap."""
        if self.gap <= 0:
            raise ValueError(f"the strong expert's mean score is {self.gap:+g} above the weak one's; expected a gap")
        return np.asarray((self.quality - self.quality[0]) / self.gap, dtype=np.float64)


def call_curve(predicted_gain: Float64Array, weak: Float64Array, strong: Float64Array) -> CallCurve:
    """The curve of scores `weak` and `strong` (n,) when the strong calls go to the largest `predicted_gain` (n,)."""
    number = tie_groups(predicted_gain)
    ones = np.ones(len(weak))
    return weighted_curve(number, weak, strong - weak, ones)


def tie_groups(predicted_gain: Float64Array) -> IntArray:
    """(n,) number of each query's group, 0 for the highest predicted gain. Raises ValueError for a NaN."""
    if np.isnan(predicted_gain).any():
        raise ValueError(f"predicted gain of query {int(np.isnan(predicted_gain).argmax())} is NaN")
    return np.unique(-np.asarray(predicted_gain, dtype=np.float64), return_inverse=True)[1].astype(np.int64)


def weighted_curve(group: IntArray, weak: Float64Array, gain: Float64Array, weight: Float64Array) -> CallCurve:
    """The curve where query i counts `weight[i]` times; a group of weight 0 repeats the point before it."""
    total = weight.sum()
    share = np.concatenate([[0.0], np.cumsum(np.bincount(group, weights=weight)) / total])
    won = np.concatenate([[0.0], np.cumsum(np.bincount(group, weights=weight * gain)) / total])
    share[-1] = 1.0
    return CallCurve(share, float(weight @ weak / total) + won)


def average_gap_recovered(curve: CallCurve) -> float:
    """APGR: the mean of PGR over the share of strong calls from 0 to 1, RouteLLM eq. 5. Exact area of the expected
    curve, where the paper averages over ten shares; random calls have 0.5."""
    return float(np.trapezoid(curve.recovered(), curve.share))


def call_share_for(curve: CallCurve, percent: float) -> float:
    """CPT(percent): the smallest share of strong calls, in [0, 1], that recovers `percent` of the gap (RouteLLM)."""
    recovered, wanted = curve.recovered(), percent / 100
    at = int(np.argmax(recovered >= wanted - 1e-12))
    if at == 0:
        return 0.0
    low, high = recovered[at - 1], recovered[at]
    part = (wanted - low) / (high - low)
    return float(curve.share[at - 1] + min(part, 1.0) * (curve.share[at] - curve.share[at - 1]))


class CallOrder(Record):
    """Strong calls spent in one order: APGR, and CPT by percent of the gap, with bootstrap intervals over queries. None
    where the strong expert is not better than the weak one."""

    apgr: Estimate | None = None
    cpt: dict[int, Estimate] = Field(default_factory=dict, description="percent of the gap -> share of strong calls")


def call_figures(
    predicted_gain: Float64Array,
    weak: Float64Array,
    strong: Float64Array,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> CallOrder:
    """Figures of the order by `predicted_gain` (n,). All zero is the random order, `strong - weak` the oracle's."""
    curve = call_curve(predicted_gain, weak, strong)
    drawn = [
        (average_gap_recovered(c), *(call_share_for(c, level) for level in CPT_LEVELS))
        for c in resampled_curves(predicted_gain, weak, strong, rng, draws)
        if c.gap > 0
    ]
    if curve.gap <= 0 or not drawn:
        return CallOrder()
    columns = np.array(drawn, dtype=np.float64)
    return CallOrder(
        apgr=Estimate.of(average_gap_recovered(curve), columns[:, 0]),
        cpt={level: Estimate.of(call_share_for(curve, level), columns[:, i]) for i, level in enumerate(CPT_LEVELS, 1)},
    )


def resampled_curves(
    predicted_gain: Float64Array, weak: Float64Array, strong: Float64Array, rng: np.random.Generator, draws: int
) -> Iterator[CallCurve]:
    """b curves, each on n queries drawn with replacement."""
    group, n = tie_groups(predicted_gain), len(weak)
    for _ in range(draws):
        weight = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        yield weighted_curve(group, weak, strong - weak, weight)


def orders_of(request: RoutingRequest) -> tuple[int, dict[str, CallOrder]]:
    """The number of test queries, and strong calls spent by the predictions of every kind of scorer. The weak expert is
    the one of lower mean score on the fit queries."""
    tables, budgets = read_tables(request), Budgets()
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as scratch:
        fitted = fit_methods(Path(scratch), table_request(tables.fit, request), now=now, progress=silent)
    first = load(next(iter(fitted.values())), tables.fit, budgets)
    trial = run_trial(tables, first, request, "", np.random.default_rng(request.seed), silent)
    weak, strong = np.argsort(trial.fit_means, kind="stable").tolist()
    rng, found = np.random.default_rng(request.seed), {}
    for kind, artifact in fitted.items():
        router = load(artifact, tables.fit, budgets, first.encoder)
        quality = predicted(router, trial)
        gain = quality[:, strong] - quality[:, weak]
        found[kind] = call_figures(gain, trial.scores[:, weak], trial.scores[:, strong], rng)
    return len(trial.scores), found


def predicted(router: Router, trial: Trial) -> Float64Array:
    """(n, m) scores that the router's scorer expects of every expert."""
    batch = QueryBatch.of(trial.test.texts, trial.test_embeddings)
    probs = router.predict_categories(batch.embeddings)
    rows = [judged.row for judged in router.judge(batch.embeddings, probs)]
    return router.scorer.score(batch, probs, rows).quality.astype(np.float64)


def main(
    outcomes: Annotated[Path, typer.Option(help="outcome table")],
    experts: Annotated[str, typer.Option(help="two experts, separated by a comma")],
    cache: Annotated[Path, typer.Option(help="folder for embeddings")],
    seed: int = 0,
) -> None:
    """Print, as JSON, APGR and CPT of every kind of scorer on two experts of a table."""
    pair = tuple(experts.split(","))
    request = RoutingRequest(outcomes=outcomes, out=Path(), command="", experts=pair, cache=cache, seed=seed)
    n_test, orders = orders_of(request)
    print(json.dumps({"n_test": n_test, "orders": {kind: each.model_dump() for kind, each in orders.items()}}))


if __name__ == "__main__":
    typer.run(main)
