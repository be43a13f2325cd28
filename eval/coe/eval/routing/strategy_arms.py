"""Strategies that ask several experts, played by the router's own machines on the recorded answers of the test queries.

Shapes: n test queries, m experts, which a router of a table has in the order of that table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from coe.eval.routing.baselines import one_hot
from coe.eval.routing.trial import Choice, Trial
from coe.router.pipeline import Router
from coe.router.strategies.types import Replies, Reply, Settled, Strategy, StrategyName
from coe.router.strategy_plan import StrategyPlan
from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.types import NOT_COMPARED, OutcomeTable

HOW: Final = {
    StrategyName.AGREE: "two experts at once; where they differ an arbiter decides",
    StrategyName.VOTE: "several experts at once; the most probable answer",
    StrategyName.SEQUENTIAL: "one expert after the other until asking on gains less than it costs",
    StrategyName.ESCALATE: "a cheap expert; a strong one where its reply does not pass",
}


@dataclass(frozen=True)
class Plays:
    """Results of every variant on the test queries; each is played once, when it is first needed."""

    router: Router
    trial: Trial
    _known: dict[tuple[StrategyName, int], tuple[IntArray, BoolArray]] = field(default_factory=dict)

    def choice(self, policy: str, name: StrategyName) -> Choice:
        """A policy of the router, as an arm."""
        plan = self.router.policy(policy).plan
        served, asked = self.planned(plan)
        binding = () if plan is None else plan.binding
        return Choice(
            str(name), f"Strategy {name}", HOW[name], one_hot(served, asked.shape[1]), "strategy", asked, binding
        )

    def planned(self, plan: StrategyPlan | None) -> tuple[IntArray, Float64Array]:
        """(n,) who is served and (n, m) 1 where an expert is asked. Where answers were not compared, one expert
        serves."""
        assert plan is not None, "the policies of strategies have plans"
        m, rows = len(self.router.experts), [self.router.categories.index(d.category) for d in self.trial.decisions]
        assert self.trial.test.answers is not None, "strategies are played where answers are known"
        is_compared = (self.trial.test.answers > NOT_COMPARED).any(axis=1)
        choice = np.where(is_compared, plan.choice_of[rows], self.trial.decided)
        served, asked = choice.copy(), np.zeros((len(rows), m))
        asked[np.arange(len(rows)), np.minimum(choice, m - 1)] = choice < m
        for v in np.unique(choice[choice >= m] - m).tolist():
            chosen = choice == m + v
            ends, calls = self.variant(plan.strategy, v)
            served[chosen], asked[chosen] = ends[chosen], calls[chosen]
        return served, asked

    def variant(self, name: StrategyName, v: int) -> tuple[IntArray, BoolArray]:
        """(n,) who is served by variant `v`, and (n, m) who is asked."""
        if (name, v) in self._known:
            return self._known[name, v]
        learned, vectors = self.router.strategies, self.trial.test_embeddings
        assert learned is not None, "a router with plans has strategies"
        served = np.zeros(len(vectors), dtype=np.int64)
        asked = np.zeros((len(vectors), len(self.router.experts)), dtype=bool)
        for i in range(len(vectors)):
            replies = recorded_replies(self.trial.test, i)
            served[i], seen = play(learned.strategy(name, v, vectors[i : i + 1]), replies)
            asked[i, list(seen)] = True
        return self._known.setdefault((name, v), (served, asked))


def recorded_replies(table: OutcomeTable, i: int) -> Replies:
    """Replies that the experts gave to prompt i."""
    assert table.answers is not None, "strategies are played where answers are known"
    keys, known = table.answers[i], None if table.logprobs is None else table.logprobs[i]

    def reply(column: int) -> Reply:
        logprob = None if known is None or np.isnan(known[column]) else float(known[column])
        return Reply(None if keys[column] < 0 else str(keys[column]), logprob=logprob)

    return {e: reply(e) for e in range(len(keys))}


def play(strategy: Strategy, known: Replies) -> tuple[int, Mapping[int, Reply]]:
    """The expert that is served, and the replies that were asked for."""
    seen: dict[int, Reply] = {}
    while not isinstance(step := strategy.step(seen), Settled):
        seen |= {expert: known[expert] for expert in step.experts}
    assert step.expert is not None, "recorded replies do not fail"
    return step.expert, seen
