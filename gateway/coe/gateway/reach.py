"""The experts that can be called now: some may be down, and the engines of some may sleep."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from coe.fleet.pool import ExpertPool
from coe.router.pipeline import Router
from coe.router.types import Asleep, FloatArray, Query, RoutingDecision

if TYPE_CHECKING:
    from coe.fleet.residency.controller import Controller


class WaitFor(Exception):
    """A request that has to wait for one of these experts: nobody awake can serve it, or its policy says so."""

    def __init__(self, experts: Iterable[str]) -> None:
        self.experts = tuple(experts)
        super().__init__(*self.experts)


class Reach:
    """Says who can be called, and has engines woken for requests.

    Args:
        controller: decides which engines are awake; None where all always are.
    """

    def __init__(self, pool: ExpertPool, controller: Controller | None) -> None:
        self.pool, self._controller = pool, controller

    @property
    def alive(self) -> frozenset[str]:
        return self.pool.alive - self._unknown

    @property
    def asleep(self) -> frozenset[str]:
        return self.pool.asleep | self._unknown

    @property
    def _unknown(self) -> frozenset[str]:
        """Experts that may have fallen asleep while this process was stopped: who asks for one waits for news."""
        return self._controller.managed if self._controller is not None and self._controller.is_behind else frozenset()

    async def wake(self, experts: Sequence[str]) -> None:
        """Wakes one of the experts that a client named where none can be called, and counts the request as one for the
        first of them. Raises as `Controller.wait_for` does."""
        if self._controller is not None:
            sleeping = [name for name in experts if name in self.asleep]
            if sleeping and self.alive.isdisjoint(experts):
                one = len(sleeping) == 1
                await (self._controller.wait_for(sleeping[0]) if one else self._controller.wait_for_one(sleeping))
            first, serves = experts[0], next((name for name in experts if name in self.alive), experts[0])
            self._controller.note(f"named {first}", {first: 1.0}, serves, None)  # a whole answer: no other one would do

    async def wait_for_one(self, experts: Collection[str]) -> None:
        """Has the first of them woken that can be, and returns once any is awake. Raises as `wait_for` does."""
        if self._controller is not None:
            await self._controller.wait_for_one(experts)

    def note(self, served: RoutingDecision, ideal: RoutingDecision | None, *, begins: bool) -> None:
        """Counts a routed request for the engines; `ideal` is as of `decision_of_all_awake`, None where all are."""
        if self._controller is not None:
            weighed = ideal or served
            self._controller.note(weighed.category, quality_of(weighed), served.expert, begins)

    def decision_of_all_awake(
        self, router: Router, policy: str, query: Query, embedding: FloatArray
    ) -> RoutingDecision | None:
        """The decision if nobody slept; None where nobody sleeps. It draws nothing that counts. Raises
        NoEligibleExpertError."""
        if self._controller is None or not query.facts.asleep:
            return None
        awake, rng = replace(query, facts=replace(query.facts, asleep=())), np.random.default_rng(0)
        return router.decide(
            awake, policy=policy, alive=self.pool.alive | self.pool.asleep, rng=rng, embedding=embedding
        )

    def beside(self, decision: RoutingDecision, ideal: RoutingDecision | None) -> RoutingDecision:
        """The decision with what its receipt says of the best expert where it sleeps."""
        if self._controller is None or ideal is None:
            return decision
        return decision.model_copy(update={"asleep": asleep_for(decision, ideal, self._controller)})


def wanted(ideal: RoutingDecision) -> str:
    """The expert that is planned, or that the conversation stays with; never one that exploration drew."""
    return ideal.expert if ideal.stay is not None and ideal.stay.kept else ideal.ranking[0]


def quality_of(ideal: RoutingDecision) -> dict[str, float]:
    """Predicted quality of experts that could have served; of a conversation's with the price of reading it again."""
    found = dict(zip(ideal.eligible, ideal.predicted_quality, strict=True))
    if ideal.stay is not None and ideal.stay.kept:
        found[ideal.stay.last_expert] += ideal.stay.price or 0.0
    return found


def asleep_for(decision: RoutingDecision, ideal: RoutingDecision, controller: Controller) -> Asleep | None:
    """Words of a receipt about the best expert where it slept."""
    best, quality = wanted(ideal), quality_of(ideal)
    if best in decision.eligible or decision.expert not in quality:
        return None
    outlook = controller.outlook(best)
    return Asleep(
        expert=best,
        lost=quality[best] - quality[decision.expert],
        account=None if outlook is None else outlook.account,
        price=None if outlook is None else outlook.price,
        is_waking=controller.is_waking(best),
    )
