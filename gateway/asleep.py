"""A routed request and the engines that sleep: who would have served it, and what that costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fleet.pool import ExpertPool
from fleet.residency.keeper import Keeper
from router.pipeline import Router
from router.types import Asleep, FloatArray, Query, RoutingDecision


class WaitFor(Exception):
    """A request that has to wait for an expert to wake: nobody awake can serve it, or its policy says so."""

    def __init__(self, expert: str) -> None:
        super().__init__(expert)
        self.expert = expert


def decision_of_all_awake(
    router: Router, policy: str, query: Query, pool: ExpertPool, embedding: FloatArray
) -> RoutingDecision:
    """The decision if nobody slept. It draws nothing that counts. Raises NoEligibleExpertError."""
    awake = replace(query, facts=replace(query.facts, asleep=()))
    rng = np.random.default_rng(0)
    return router.decide(awake, policy=policy, alive=pool.alive | pool.asleep, rng=rng, embedding=embedding)


def wanted(ideal: RoutingDecision) -> str:
    """The expert that is planned, or that the conversation stays with; never one that exploration drew."""
    return ideal.expert if ideal.stay is not None and ideal.stay.kept else ideal.ranking[0]


def quality_of(ideal: RoutingDecision) -> dict[str, float]:
    """Predicted quality of who could have served; a conversation's expert with the price of reading it again."""
    found = dict(zip(ideal.eligible, ideal.predicted_quality, strict=True))
    if ideal.stay is not None and ideal.stay.kept:
        found[ideal.stay.last_expert] += ideal.stay.price or 0.0
    return found


def asleep_for(decision: RoutingDecision, ideal: RoutingDecision, keeper: Keeper) -> Asleep | None:
    """Words of a receipt about the best expert where it slept."""
    best, quality = wanted(ideal), quality_of(ideal)
    if best in decision.eligible or decision.expert not in quality:
        return None
    outlook = keeper.outlook(best)
    return Asleep(
        expert=best,
        lost=quality[best] - quality[decision.expert],
        account=None if outlook is None else outlook.account,
        price=None if outlook is None else outlook.price,
        is_waking=keeper.is_waking(best),
    )
