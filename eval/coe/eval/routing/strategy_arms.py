"""The strategy `agree`, played by a router's plan on the recorded answers of the test queries.

Shapes: n test queries, m experts, which a router of a table has in the order of that table.
"""

from __future__ import annotations

import numpy as np

from coe.eval.routing.baselines import one_hot
from coe.eval.routing.trial import Choice, Trial
from coe.router.pipeline import Router
from coe.router.strategies.agree import StrategyName
from coe.router.strategies.learned import Played, play
from coe.router.strategy_plan import StrategyPlan
from coe.training.types import NOT_COMPARED

AGREE = str(StrategyName.AGREE)
HOW = "two experts at once; where they differ an arbiter decides"


def strategy_arm(router: Router, trial: Trial) -> Choice:
    """The router's policy `agree` as an arm."""
    plan = router.policy(AGREE).plan
    assert plan is not None, "a policy with a strategy has a plan where answers are known"
    played = planned(router, trial, plan)
    served, asked = one_hot(played.served, len(router.experts)), played.asked.astype(np.float64)
    return Choice(AGREE, "Strategy agree", HOW, served, "strategy", asked, plan.binding)


def planned(router: Router, trial: Trial, plan: StrategyPlan) -> Played:
    """The plan on the test queries. Where answers were not compared, one expert serves."""
    m, rows = len(router.experts), [router.categories.index(d.category) for d in trial.decisions]
    assert router.ways is not None, "a router with plans has ways"
    assert trial.test.answers is not None, "strategies are played where answers are known"
    is_compared = (trial.test.answers > NOT_COMPARED).any(axis=1)
    choice = np.where(is_compared, plan.choice_of[rows], trial.decided)
    served = np.minimum(choice, m - 1)
    asked = one_hot(served, m).astype(bool)
    for way in np.unique(choice[choice >= m]).tolist():
        chosen, played = choice == way, play(trial.test.answers, router.ways.strategy(way - m))
        served[chosen], asked[chosen] = played.served[chosen], played.asked[chosen]
    return Played(served, asked)
