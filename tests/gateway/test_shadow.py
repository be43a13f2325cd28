"""The record of a shadow: its probability of the expert that served, on which its trial is judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.decision_log.decision_record import ShadowDecision
from coe.gateway.shadow import ShadowAsk, shadow_decision
from coe.router.map_solver import MapSolution
from coe.router.pipeline import Router
from coe.router.solved_policy import SolvedPolicy
from coe.router.types import Query
from tests.gateway.small_router import EXPERTS, small_router
from tests.router.exploring import explored

ALL = frozenset(EXPERTS)


def deciding(red: str, share: float = 0.0, version: str = "b" * 16) -> Router:
    """A router that sends red asks to that expert."""
    solution = MapSolution(np.array([EXPERTS.index(red), 1, 2]), 0.0, {}, ())
    return replace(
        small_router(version=version), policies={"default": SolvedPolicy(solution, exploration=explored(share))}
    )


def shadow_of(candidate: Router, live: Router, alive: frozenset[str] = ALL) -> ShadowDecision:
    query, rng = Query("q", "red"), np.random.default_rng(0)
    decision = live.decide(query, rng=rng, alive=alive)
    ask = ShadowAsk(candidate, live, decision, query, alive, live.embed(query.text))
    return shadow_decision(ask, rng)


def test_a_candidate_that_wants_another_expert_has_no_probability_of_the_one_that_served() -> None:
    found = shadow_of(deciding("emerald"), deciding("ruby"))
    assert (found.expert, found.live_expert_prob) == ("emerald", 0.0)
    assert found.predicted_quality == pytest.approx(0.2)  # of its own expert


def test_a_candidate_that_agrees_has_all_of_it() -> None:
    assert shadow_of(deciding("ruby"), deciding("ruby")).live_expert_prob == 1.0


@pytest.mark.parametrize("red", ["ruby", "emerald", "plain"])
def test_a_candidate_that_explores_tells_how_likely_it_would_have_chosen_whom_served(red: str) -> None:
    candidate = deciding(red, share=0.4)
    made = candidate.decide(Query("q", "red"), rng=np.random.default_rng(1))
    expected = dict(zip(made.eligible, made.eligible_probs, strict=True))["ruby"]
    for _ in range(5):  # whichever expert its own draw is
        assert shadow_of(candidate, deciding("ruby")).live_expert_prob == pytest.approx(expected)
    assert 0 < expected < 1


def test_experts_that_were_down_are_down_for_the_candidate_too() -> None:
    found = shadow_of(deciding("emerald"), deciding("ruby"), alive=frozenset({"ruby", "plain"}))
    assert found.expert == "ruby"
    assert found.live_expert_prob == 1.0
