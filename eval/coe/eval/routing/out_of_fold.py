"""The router on all prompts, each decided by a router that was fitted without it (`--folds`).

One test split is one draw: of near-equal experts another split names another as the best. With folds every prompt
counts, beside the best single expert of all of them. Shapes: n prompts, m experts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from coe.eval.metrics.paired import Paired
from coe.eval.routing.baselines import best_single
from coe.eval.routing.routing_records import AgreeOutOfFold, OutOfFold
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.trial import averaged_limits, within_budgets
from coe.eval.routing.trial_tables import Tables
from coe.router.reading.normalise import normalised_text
from coe.router.strategies.learned import Played
from coe.router.types import IntArray
from coe.training.types import OutcomeTable

Decide = Callable[[OutcomeTable, OutcomeTable, RoutingRequest], tuple[IntArray, Played | None]]
"""The type of a function that fits on the first table and decides the n prompts of the second. It returns expert
numbers (n,), and the strategy's choices if it learned one."""


def out_of_fold(
    tables: Tables, request: RoutingRequest, decide: Decide, progress: Callable[[str], None]
) -> OutOfFold | None:
    """Measure the fit and the test prompts together; return None without `--folds`."""
    if request.folds == 0:
        return None
    whole = tables.fit.joined(tables.test)
    fold_of = np.array([fold_of_text(text, request.folds) for text in whole.texts], dtype=np.int64)
    decided, single = np.zeros(len(fold_of), dtype=np.int64), np.zeros(len(fold_of), dtype=np.int64)
    agree = Played(decided.copy(), np.zeros(whole.scores.shape, dtype=bool))
    has_strategy = True
    for fold in np.unique(fold_of).tolist():
        progress(f"fold {fold + 1} of {request.folds}")
        rows, others = fold_of == fold, whole.rows(fold_of != fold)
        single[rows] = best_within(others, request)
        decided[rows], played = decide(others, whole.rows(rows), request)
        has_strategy &= played is not None
        if played is not None:
            agree.served[rows], agree.asked[rows] = played.served, played.asked
    return record(whole, request, decided, single, agree if has_strategy else None)


def best_within(table: OutcomeTable, request: RoutingRequest) -> int:
    """Return the best expert of those within the budgets, or of all if none is."""
    allowed = within_budgets(table, request.budgets)
    return best_single(table.scores, allowed if allowed.any() else None)


def fold_of_text(text: str, folds: int) -> int:
    """Return a fold's number from a hash of the normalised text, so that near-duplicates are in one fold."""
    digest = hashlib.sha256(b"fold\0" + normalised_text(text).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % folds


def record(
    whole: OutcomeTable, request: RoutingRequest, decided: IntArray, single: IntArray, agree: Played | None
) -> OutOfFold:
    """Build the record. `decided` (n,) are the router's experts, `single` (n,) the best of the other folds."""
    scores, every, best = whole.scores.astype(np.float64), np.arange(len(decided)), best_within(whole, request)
    columns = {
        "coe": scores[every, decided],
        "single": scores[every, single],
        "hindsight": scores[:, best],
        "oracle": scores.max(axis=1),
        **({} if agree is None else {"agree": agree.scored(whole.scores)}),
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
        agree=None
        if agree is None
        else AgreeOutOfFold(
            score=found.mean("agree").mean,
            over_best_single=found.minus("agree", "single"),
            over_hindsight=found.minus("agree", "hindsight"),
            asked=dict(zip(whole.experts, agree.asked.mean(axis=0).tolist(), strict=True)),
        ),
        used=[float(amounts[decided].mean() / limit) for limit, amounts in averaged_limits(whole, request.budgets)],
    )
