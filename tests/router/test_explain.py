"""Every reason has its sentence."""

from __future__ import annotations

import pytest

from coe.fleet.explain import reason_in_words
from coe.router.types import Asleep, DecisionReason
from tests.logged import decision_of


@pytest.mark.parametrize("reason", DecisionReason)
def test_every_reason_is_told_in_words_that_name_the_expert(reason: DecisionReason) -> None:
    decision = decision_of("ruby", "red", reason=reason)
    assert "ruby" in reason_in_words(decision, 0.2)
    unsure = reason_in_words(decision.model_copy(update={"is_fallback": True, "uncertainty": 0.3}), 0.2)
    assert ("uncertainty 0.30 is above 0.20: general" in unsure) == reason.is_routed


def test_an_expert_that_measured_higher_and_does_not_serve_is_named() -> None:
    eligible = {"eligible": ("ruby", "emerald"), "eligible_probs": (1.0, 0.0), "predicted_quality": (0.4, 0.5)}
    decision = decision_of("ruby", "red", reason=DecisionReason.MAP).model_copy(update=eligible)
    assert "emerald measured higher" in reason_in_words(decision)
    best = decision.model_copy(update={"predicted_quality": (0.5, 0.4)})
    assert "measured higher" not in reason_in_words(best)


def test_an_unsure_query_tells_who_is_asked_next() -> None:
    decision = decision_of("ruby", "red", reason=DecisionReason.UNCERTAIN)
    asked = decision.model_copy(update={"is_fallback": True, "ranking": ("ruby", "emerald", "plain")})
    assert "which asks ruby, or emerald where it does not answer" in reason_in_words(asked)
    assert reason_in_words(decision.model_copy(update={"ranking": ("ruby",)})).endswith("which asks ruby")


def test_who_cannot_serve_is_named_with_the_reason() -> None:
    lacks = {"emerald": "is not reachable", "plain": "does not take images", "opal": "is asleep", "onyx": "is asleep"}
    decision = decision_of("ruby", "red", reason=DecisionReason.NEXT_BEST).model_copy(update={"excluded": lacks})
    named = "(emerald is not reachable; plain does not take images; opal is asleep; ...), ruby is next in its order"
    assert reason_in_words(decision).endswith(f"the planned expert cannot serve this request {named}")


@pytest.mark.parametrize(("is_waking", "words"), [(False, "it is left asleep"), (True, "it is being woken")])
def test_a_better_expert_that_sleeps_is_named(is_waking: bool, words: str) -> None:
    asleep = Asleep(expert="emerald", lost=0.1, is_waking=is_waking)
    decision = decision_of("ruby", "red", reason=DecisionReason.MAP).model_copy(update={"asleep": asleep})
    assert reason_in_words(decision).endswith(f"the best expert, emerald, was asleep: lost 0.10; {words}")
