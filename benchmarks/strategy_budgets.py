"""Whether strategies keep a budget on prompts that they were not fitted on, with a reserve and without.

    python -m benchmarks.strategy_budgets [--tables FILE] [--only NAME ...] [--splits 12]

Every table is split in halves at random; each half plays what was learned on the other. Intervals are percentile
bootstraps over splits, whose two halves stay together.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import numpy as np
import typer

from benchmarks.strategies import TABLES, Case, cases_of
from coe.cli.progress import silent
from coe.eval.metrics.intervals import bootstrap_means, percentile_interval
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.routing_run import load, run_trial
from coe.eval.routing.strategy_arms import play_plan
from coe.eval.routing.table_fit import TableRequest, fit_table
from coe.eval.routing.trial_tables import Tables
from coe.router.config.policy import Budgets, PolicyConfig
from coe.router.policy import strategy_plan
from coe.router.strategies.agree import StrategyName
from coe.router.types import Float64Array
from coe.training.datasets.outcomes import read_outcomes
from coe.training.fit import one_thread
from coe.training.types import OutcomeTable

RESERVES = (0.0, strategy_plan.RESERVE_ERRORS)


@dataclass(frozen=True)
class Half:
    """A plan of `agree` on one half: its reserve in standard errors, mean use as a share of the limit, mean score."""

    split: int
    limit: float
    reserve: float
    used: float
    score: float


def played(case: Case, fit: OutcomeTable, test: OutcomeTable, split: int, cache: Path) -> Iterator[Half]:
    with tempfile.TemporaryDirectory() as scratch:
        artifact = fit_table(Path(scratch), TableRequest(fit, cache=cache), now=datetime.now(UTC), progress=silent)
    policies = {
        str(limit): PolicyConfig(strategy=StrategyName.AGREE, budgets=Budgets(active_params_b=limit))
        for limit in case.limits
    }
    trial = None
    for reserve in RESERVES:
        with patch.object(strategy_plan, "RESERVE_ERRORS", reserve):
            router = load(artifact, fit, Budgets(), None, policies)
        if trial is None:
            request = RoutingRequest(outcomes=Path(), out=Path(), command="", cache=cache)
            trial = run_trial(Tables(fit, test, {}, 0), router, request, "", np.random.default_rng(0), silent)
        for limit in case.limits:
            plan = router.policy(str(limit)).plan
            assert plan is not None, "the tables have answers"
            played = play_plan(router, trial, plan)
            served, calls = played.served, played.asked
            score = trial.scores[np.arange(len(served)), served].mean()
            used = (calls @ trial.sizes_b).mean() / limit
            yield Half(split, limit, reserve, float(used), float(score))


def line_of(halves: Sequence[Half], rng: np.random.Generator) -> str:
    """A row: use without a reserve and with it, the score without it, and what the reserve changes (paired)."""

    def cell(each: Float64Array, digits: int, sign: str = "") -> str:
        low, high = percentile_interval(bootstrap_means(each.mean(axis=1)[:, None], rng)[:, 0])
        return f"{100 * each.mean():{sign}.{digits}f} ({100 * low:{sign}.{digits}f} to {100 * high:{sign}.{digits}f})"

    def found(value: str, reserve: float) -> Float64Array:
        """(splits, 2)"""
        own = [getattr(half, value) for half in halves if half.reserve == reserve]
        return np.array(own).reshape(-1, 2)

    used, (without, reserved) = [found("used", each) for each in RESERVES], [found("score", each) for each in RESERVES]
    cells = [f"{cell(each, 1)}; {(each > 1.01).sum()} of {each.size}" for each in used]
    shown = [f"{halves[0].limit:g}", *cells, cell(without, 2), cell(reserved - without, 2, "+")]
    return f"| {' | '.join(shown)} |"


def main(
    tables: Annotated[Path, typer.Option(help="file of named tables; their sources lie beside it")] = TABLES,
    only: Annotated[list[str] | None, typer.Option(help="names of tables; default: all")] = None,
    splits: Annotated[int, typer.Option(help="random halvings of each table")] = 12,
    cache: Annotated[Path, typer.Option(help="folder for embeddings")] = Path("data/strategies/embeddings"),
) -> None:
    """Print, by table and limit, mean use in percent of the limit, halves more than 1% over, and scores."""
    for case in cases_of(tables):
        if only and case.name not in only:
            continue
        table, halves = read_outcomes(tables.parent / case.source, experts=sorted(case.experts)), list[Half]()
        for split in range(splits):
            drawn = np.random.default_rng(split).permutation(len(table.texts)) < len(table.texts) // 2
            for own in (drawn, ~drawn):
                with one_thread():
                    halves += played(case, table.rows(own), table.rows(~own), split, cache)
            print(f"{case.name}: split {split + 1} of {splits}", file=sys.stderr)
        print(f"\n### {case.name} ({len(table.texts)} prompts, {splits} splits)\n")
        print("| limit (B) | used, no reserve; over | used, reserve; over | score, no reserve | with it |")
        print("| --- " * 5 + "|")
        for limit in case.limits:
            print(line_of([half for half in halves if half.limit == limit], np.random.default_rng(0)))


if __name__ == "__main__":
    typer.run(main)
