"""Every reason has its sentence."""

from __future__ import annotations

import pytest

from router.explain import reason_in_words
from router.types import DecisionReason, RoutingDecision


@pytest.mark.parametrize("reason", DecisionReason)
def test_every_reason_is_told_in_words_that_name_the_expert(reason: DecisionReason) -> None:
    decision = RoutingDecision(
        expert="ruby",
        category="red",
        confidence=0.9,
        is_fallback=False,
        reason=reason,
        likely_category="red",
        uncertainty=0.1,
        propensity=1.0,
        router_version="v",
    )
    assert "ruby" in reason_in_words(decision, 0.2)


def test_an_expert_that_measured_higher_and_does_not_serve_is_named() -> None:
    decision = RoutingDecision(
        expert="ruby",
        category="red",
        confidence=0.9,
        is_fallback=False,
        reason=DecisionReason.MAP,
        likely_category="red",
        uncertainty=0.1,
        propensity=1.0,
        router_version="v",
        eligible=("ruby", "emerald"),
        eligible_probs=(1.0, 0.0),
        predicted_quality=(0.4, 0.5),
    )
    assert "emerald measured higher" in reason_in_words(decision)
    best = decision.model_copy(update={"predicted_quality": (0.5, 0.4)})
    assert "measured higher" not in reason_in_words(best)
