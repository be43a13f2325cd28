"""Choices of a router on logged queries, under the policy and with the experts that each query had then.

Shapes: n logged queries, m experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from base.errors import NoEligibleExpertError
from router.pipeline import Router
from router.types import BoolArray, Float64Array, FloatArray, IntArray, Query, QueryBatch, RoutingDecision
from training.log_answers import AskedAnswers

BATCH_ROWS = 2048


@dataclass(frozen=True)
class LoggedChoices:
    """Choices of a router on n logged queries: the `chosen` experts (n,), and `serves` (n,), False where the policy let
    none serve it. Exploration is left out: its budget is the same whatever the router chooses."""

    chosen: IntArray
    serves: BoolArray

    def match(self, logged: IntArray) -> Float64Array:
        """(n,) probabilities, 0 or 1, of the logged experts."""
        return np.asarray((self.chosen == logged) & self.serves, dtype=np.float64)

    def planned(self, model: Float64Array) -> Float64Array:
        """(n,) of values (n, m) those of the chosen experts; nothing is earned where none serves."""
        return np.asarray(model[np.arange(len(model)), self.chosen] * self.serves, dtype=np.float64)


def batch_of(texts: Sequence[str], embeddings: FloatArray) -> QueryBatch:
    return QueryBatch(tuple(Query(id=str(i), text=text) for i, text in enumerate(texts)), embeddings)


def choices_on(router: Router, asked: AskedAnswers, experts: tuple[str, ...]) -> LoggedChoices:
    """Choices of a router on logged queries, under the policy and with the experts that each had then."""
    number = {name: i for i, name in enumerate(experts)}
    chosen, serves = np.zeros(len(asked), dtype=np.int64), np.zeros(len(asked), dtype=bool)
    for rows, batch, policy, excluded in logged_batches(asked):
        alive = set(router.experts) - set(excluded)
        for row, decision in zip(rows, decisions_of(router, batch, policy, alive), strict=True):
            chosen[row] = number[decision.ranking[0]]
            serves[row] = decision.ranking[0] in alive
    return LoggedChoices(chosen, serves)


def logged_batches(asked: AskedAnswers) -> Iterator[tuple[list[int], QueryBatch, str, tuple[str, ...]]]:
    """Queries that were decided by one policy with the same experts ruled out: rows, queries, and both of these."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for row, key in enumerate(zip(asked.policies, asked.excluded, strict=True)):
        groups.setdefault(key, []).append(row)
    for (policy, excluded), rows in groups.items():
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            yield part, batch_of([asked.texts[row] for row in part], asked.vectors(np.array(part))), policy, excluded


def decisions_of(router: Router, batch: QueryBatch, policy: str, alive: set[str]) -> Sequence[RoutingDecision]:
    """Decisions with those experts; of a query that the policy lets none of them serve, the one with everybody."""
    try:
        return router.decide_batch(batch, rng=np.random.default_rng(0), policy=policy, alive=alive)
    except NoEligibleExpertError:
        if len(batch.queries) == 1:
            return router.decide_batch(batch, rng=np.random.default_rng(0), policy=policy)
    alone = (QueryBatch((query,), batch.embeddings[[i]]) for i, query in enumerate(batch.queries))
    return [made for one in alone for made in decisions_of(router, one, policy, alive)]


def chance_matrix(asked: AskedAnswers, experts: tuple[str, ...]) -> Float64Array:
    """(n, m) probabilities with which the log's router chose each expert."""
    return np.array([[own.get(name, 0.0) for name in experts] for own in asked.chances]).reshape(-1, len(experts))
