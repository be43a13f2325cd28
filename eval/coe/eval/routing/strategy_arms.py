"""The strategy `agree`, played by a router's plan on the recorded answers of the test queries.

Shapes: n test queries, m experts, which a router of a table has in the order of that table.
"""

from __future__ import annotations

import numpy as np

from coe.eval.routing.baselines import one_hot
from coe.eval.routing.trial import Choice, Trial
from coe.router.pipeline import Router
from coe.router.policy.strategy_plan import StrategyPlan
from coe.router.strategies.agree import StrategyName
from coe.router.strategies.learned import Played, play_choices
from coe.training.types import NOT_COMPARED

AGREE = str(StrategyName.AGREE)
HOW = "two experts at once; where they differ an arbiter decides"


def strategy_arm(router: Router, trial: Trial) -> Choice:
    """Build the arm of the router's policy `agree`."""
    plan = router.policy(AGREE).plan
    assert plan is not None, "a policy with a strategy has a plan where answers are known"
    played = play_plan(router, trial, plan)
    served, asked = one_hot(played.served, len(router.experts)), played.asked.astype(np.float64)
    return Choice(AGREE, "Strategy agree", HOW, served, "strategy", asked, plan.binding)


def play_plan(router: Router, trial: Trial, plan: StrategyPlan) -> Played:
    """Play the plan on the test queries. If answers were not compared, one expert serves."""
    rows, answers = [router.categories.index(d.category) for d in trial.decisions], trial.test.answers
    assert router.ways is not None, "a router with plans has ways"
    assert answers is not None, "strategies are played where answers are known"
    choice = np.where((answers > NOT_COMPARED).any(axis=1), plan.choice_of[rows], trial.decided)
    return play_choices(answers, choice, router.ways)
