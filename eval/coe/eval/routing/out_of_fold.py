"""The router on all prompts, each decided by a router that was fitted without it (`--folds`).

One test split is one draw: of near-equal experts another one names another as the best. Here every prompt counts,
beside the best single expert of all of them. Shapes: n prompts, m experts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from coe.base.text_identity import normalised_text
from coe.eval.metrics.paired import Paired
from coe.eval.routing.baselines import best_single
from coe.eval.routing.routing_records import OutOfFold
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.trial import averaged_limits, within_budgets
from coe.eval.routing.trial_tables import Tables
from coe.router.types import IntArray
from coe.training.types import OutcomeTable

Decide = Callable[[OutcomeTable, OutcomeTable, RoutingRequest], IntArray]
"""Fits on the first table and decides the n prompts of the second: expert numbers (n,)."""


def out_of_fold(
    tables: Tables, request: RoutingRequest, decide: Decide, progress: Callable[[str], None]
) -> OutOfFold | None:
    """Figures over the fit and the test prompts together; None without `--folds`."""
    if request.folds == 0:
        return None
    whole = tables.fit.joined(tables.test)
    fold_of = np.array([fold_of_text(text, request.folds) for text in whole.texts], dtype=np.int64)
    decided, single = np.zeros(len(fold_of), dtype=np.int64), np.zeros(len(fold_of), dtype=np.int64)
    for fold in np.unique(fold_of).tolist():
        progress(f"fold {fold + 1} of {request.folds}")
        rows, others = fold_of == fold, whole.rows(fold_of != fold)
        single[rows] = best_within(others, request)
        decided[rows] = decide(others, whole.rows(rows), request)
    return record(whole, request, decided, single)


def best_within(table: OutcomeTable, request: RoutingRequest) -> int:
    """The best expert of those within the budgets, or of all where none is."""
    allowed = within_budgets(table, request.budgets)
    return best_single(table.scores, allowed if allowed.any() else None)


def fold_of_text(text: str, folds: int) -> int:
    """By hash of the normalised text, so that near-duplicates are in one fold."""
    digest = hashlib.sha256(b"fold\0" + normalised_text(text).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % folds


def record(whole: OutcomeTable, request: RoutingRequest, decided: IntArray, single: IntArray) -> OutOfFold:
    """`decided` (n,) are the router's experts, `single` (n,) the best of the other folds, by number."""
    scores, every, best = whole.scores.astype(np.float64), np.arange(len(decided)), best_within(whole, request)
    columns = {
        "coe": scores[every, decided],
        "single": scores[every, single],
        "hindsight": scores[:, best],
        "oracle": scores.max(axis=1),
    }
    found = Paired.of(columns, np.random.default_rng(request.seed))
    return OutOfFold(
        folds=request.folds,
        n=len(decided),
        coe=found.mean("coe").mean,
        best_single=found.mean("single").mean,
        hindsight=whole.experts[best],
        best_single_hindsight=found.mean("hindsight").mean,
        query_oracle=found.mean("oracle").mean,
        over_best_single=found.minus("coe", "single"),
        over_hindsight=found.minus("coe", "hindsight"),
        gap_closed=found.closed("coe", "hindsight", "oracle"),
        used=[float(amounts[decided].mean() / limit) for limit, amounts in averaged_limits(whole, request.budgets)],
    )
