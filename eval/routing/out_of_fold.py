"""The router on all prompts, each decided by a router that was fitted without it (`--folds`).

One test split is one draw: of near-equal experts another one names another as the best. Here every prompt counts,
beside the best single expert of all of them. Shapes: n prompts, m experts.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from base.text_identity import normalised_text
from eval.metrics.bootstrap import bootstrap_means, percentile_interval
from eval.routing.arm_records import closed
from eval.routing.baselines import best_single
from eval.routing.routing_records import Difference, OutOfFold
from eval.routing.trial import averaged_limits, within_budgets
from eval.routing.trial_tables import RoutingRequest, Tables
from training.types import OutcomeTable

Decide = Callable[[OutcomeTable, OutcomeTable, RoutingRequest], NDArray[np.int64]]
"""Fits on the first table and decides the second: expert numbers (k,)."""


def out_of_fold(
    tables: Tables, request: RoutingRequest, decide: Decide, progress: Callable[[str], None]
) -> OutOfFold | None:
    """Figures over the fit and the test prompts together; None without `--folds`, and where the test prompts have a
    table of their own, which may be of another kind."""
    if request.folds == 0 or request.test is not None:
        return None
    whole = joined(tables.fit, tables.test)
    fold_of = np.array([fold_of_text(text, request.folds) for text in whole.texts], dtype=np.int64)
    decided, single = np.zeros(len(fold_of), dtype=np.int64), np.zeros(len(fold_of), dtype=np.int64)
    for fold in range(request.folds):
        progress(f"fold {fold + 1} of {request.folds}")
        rows, others = fold_of == fold, whole.rows(fold_of != fold)
        if not rows.any():
            continue
        allowed = within_budgets(others, request.budgets)
        single[rows] = best_single(others.scores, allowed if allowed.any() else None)
        with tempfile.TemporaryDirectory() as scratch:
            decided[rows] = decide(others, whole.rows(rows), replace(request, out=Path(scratch)))
    return record(whole, request, decided, single)


def joined(first: OutcomeTable, second: OutcomeTable) -> OutcomeTable:
    """The prompts of both, whose experts are the same."""
    answers = [part.answers for part in (first, second) if part.answers is not None]
    return replace(
        first,
        prompt_ids=first.prompt_ids + second.prompt_ids,
        texts=first.texts + second.texts,
        categories=first.categories + second.categories,
        splits=first.splits + second.splits,
        scores=np.concatenate([first.scores, second.scores]),
        cost_usd=np.concatenate([first.cost_usd, second.cost_usd]),
        output_tokens=np.concatenate([first.output_tokens, second.output_tokens]),
        latency_ms=np.concatenate([first.latency_ms, second.latency_ms]),
        answers=np.concatenate(answers) if len(answers) == 2 else None,
    )


def fold_of_text(text: str, folds: int) -> int:
    """By hash of the normalised text, so that near-duplicates are in one fold."""
    digest = hashlib.sha256(b"fold\0" + normalised_text(text).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % folds


def record(
    whole: OutcomeTable, request: RoutingRequest, decided: NDArray[np.int64], single: NDArray[np.int64]
) -> OutOfFold:
    """`decided` (n,) and `single` (n,), the best expert of the other folds, are expert numbers."""
    scores, every = whole.scores.astype(np.float64), np.arange(len(decided))
    allowed = within_budgets(whole, request.budgets)
    best = best_single(whole.scores, allowed if allowed.any() else None)
    columns = np.stack([scores[every, decided], scores[every, single], scores[:, best], scores.max(axis=1)], axis=1)
    means, draws = columns.mean(axis=0), bootstrap_means(columns, np.random.default_rng(request.seed))
    share, interval = closed(means, draws, (0, 2, 3))

    def lead(place: int) -> Difference:
        drawn = percentile_interval(draws[:, 0] - draws[:, place])
        return Difference(mean=float(means[0] - means[place]), interval=drawn)

    return OutOfFold(
        folds=request.folds,
        n=len(decided),
        coe=float(means[0]),
        best_single=float(means[1]),
        hindsight=whole.experts[best],
        best_single_hindsight=float(means[2]),
        query_oracle=float(means[3]),
        over_best_single=lead(1),
        over_hindsight=lead(2),
        gap_closed=share,
        gap_closed_interval=interval,
        used=[float(amounts[decided].mean() / limit) for limit, amounts in averaged_limits(whole, request.budgets)],
    )
