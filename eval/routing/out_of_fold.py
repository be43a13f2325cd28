"""The router on all prompts, each decided by a router that was fitted without it (`--folds`).

One test split is one draw: of near-equal experts another one names another as the best. Here every prompt counts,
beside the best single expert of all of them. Shapes: n prompts, m experts.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from base.text_identity import normalised_text
from eval.metrics.intervals import bootstrap_means
from eval.routing.arm_records import closed, difference, expected_amount
from eval.routing.baselines import best_single
from eval.routing.routing_records import OutOfFold, UnseenStrategy
from eval.routing.routing_request import RoutingRequest
from eval.routing.trial import active_params, averaged_limits, costs, within_budgets
from eval.routing.trial_tables import Tables
from router.types import Float64Array, IntArray
from training.types import OutcomeTable


@dataclass(frozen=True)
class Unseen:
    """Decisions for n prompts: `experts` (n,) by number, and by strategy who is served (n,) and who is asked
    (n, m)."""

    experts: IntArray
    strategies: Mapping[str, tuple[IntArray, Float64Array]] = field(default_factory=dict)


Decide = Callable[[OutcomeTable, OutcomeTable, RoutingRequest], Unseen]
"""Fits on the first table and decides the second."""


def out_of_fold(
    tables: Tables, request: RoutingRequest, decide: Decide, progress: Callable[[str], None]
) -> OutOfFold | None:
    """Figures over the fit and the test prompts together; None without `--folds`, and where the test prompts have a
    table of their own, which may be of another kind."""
    if request.folds == 0 or request.test is not None:
        return None
    whole = tables.fit.joined(tables.test)
    fold_of = np.array([fold_of_text(text, request.folds) for text in whole.texts], dtype=np.int64)
    decided, single = np.zeros(len(fold_of), dtype=np.int64), np.zeros(len(fold_of), dtype=np.int64)
    played: dict[str, tuple[IntArray, Float64Array]] = {}
    for fold in range(request.folds):
        progress(f"fold {fold + 1} of {request.folds}")
        rows, others = fold_of == fold, whole.rows(fold_of != fold)
        if not rows.any():
            continue
        allowed = within_budgets(others, request.budgets)
        single[rows] = best_single(others.scores, allowed if allowed.any() else None)
        with tempfile.TemporaryDirectory() as scratch:
            found = decide(others, whole.rows(rows), request.model_copy(update={"out": Path(scratch)}))
        decided[rows] = found.experts
        for name, (served, asked) in found.strategies.items():
            whole_of = played.setdefault(name, (np.zeros_like(decided), np.zeros(whole.scores.shape)))
            whole_of[0][rows], whole_of[1][rows] = served, asked
    return record(whole, request, Unseen(decided, played), single)


def fold_of_text(text: str, folds: int) -> int:
    """By hash of the normalised text, so that near-duplicates are in one fold."""
    digest = hashlib.sha256(b"fold\0" + normalised_text(text).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % folds


def record(whole: OutcomeTable, request: RoutingRequest, unseen: Unseen, single: IntArray) -> OutOfFold:
    """`single` (n,) is the best expert of the other folds, by number."""
    decided, names = unseen.experts, list(unseen.strategies)
    scores, every = whole.scores.astype(np.float64), np.arange(len(decided))
    allowed = within_budgets(whole, request.budgets)
    best = best_single(whole.scores, allowed if allowed.any() else None)
    won = [scores[every, unseen.strategies[name][0]] for name in names]
    columns = np.stack(
        [scores[every, decided], scores[every, single], scores[:, best], scores.max(axis=1), *won], axis=1
    )
    means, draws = columns.mean(axis=0), bootstrap_means(columns, np.random.default_rng(request.seed))
    lead = partial(difference, means, draws)

    def strategy(place: int, asked: Float64Array) -> UnseenStrategy:
        return UnseenStrategy(
            mean_score=float(means[place]),
            over_best_single=lead(place, 1),
            over_hindsight=lead(place, 2),
            gap_closed=closed(means, draws, (place, 2, 3)),
            mean_calls=float(asked.sum(axis=1).mean()),
            mean_cost_usd=expected_amount(asked, costs(whole)),
            mean_active_params_b=expected_amount(asked, active_params(whole)),
        )

    return OutOfFold(
        folds=request.folds,
        n=len(decided),
        coe=float(means[0]),
        best_single=float(means[1]),
        hindsight=whole.experts[best],
        best_single_hindsight=float(means[2]),
        query_oracle=float(means[3]),
        over_best_single=lead(0, 1),
        over_hindsight=lead(0, 2),
        gap_closed=closed(means, draws, (0, 2, 3)),
        strategies={name: strategy(4 + i, unseen.strategies[name][1]) for i, name in enumerate(names)},
        used=[float(amounts[decided].mean() / limit) for limit, amounts in averaged_limits(whole, request.budgets)],
    )
