"""Cases in which an expert that is not a language model answers in the planned expert's place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from router.builtins import MOST_FROM_OTHERS, Builtins, measured_builtins
from router.pipeline import Router
from router.types import DecisionReason, Query, QueryFacts, RoutingDecision
from tests.gateway.small_router import small_router


def measured(answered: list[float], right: list[float], pins: dict[str, dict[int, str]] | None = None) -> Builtins:
    """One expert, `sums`, over the rows red, green and general."""
    return measured_builtins(("sums",), np.array([answered]).T, np.array([right]).T, pins or {})


def decide(builtins: Builtins, text: str = "red", answering: tuple[str, ...] = ("sums",)) -> RoutingDecision:
    router: Router = replace(small_router(), builtins=builtins)
    facts = QueryFacts(answering=answering)
    return router.decide(Query("q", text, facts), rng=np.random.default_rng(0))


def test_it_answers_first_where_it_is_surely_better() -> None:
    """The map's expert of red has a quality of 0.9; 100 of 100 right answers are surely more, 15 of 15 are not."""
    found = decide(measured([100, 0, 0], [100, 0, 0]))
    assert (found.expert, found.reason, found.propensity) == ("sums", DecisionReason.BUILTIN, 1.0)
    assert found.ranking == ("sums", "ruby", "plain", "emerald")
    assert found.runner_up == "ruby"
    assert found.eligible_probs == (1.0, 0.0, 0.0, 0.0)
    assert found.predicted_quality[0] == 1.0
    assert found.builtins == {"sums": "answers"}
    unproven = decide(measured([15, 0, 0], [15, 0, 0]))
    assert (unproven.expert, unproven.reason) == ("ruby", DecisionReason.MAP)
    assert unproven.builtins == {"sums": "could answer, but is not surely better than the planned expert"}


def test_it_abstains_and_the_planned_expert_serves_as_ever() -> None:
    found, plain = decide(measured([100, 0, 0], [100, 0, 0]), answering=()), decide(Builtins())
    assert found.model_copy(update={"builtins": {}}) == plain
    assert found.builtins == {"sums": "abstains"}


def test_right_answers_elsewhere_count_as_a_few() -> None:
    """General has an expert of 0.5; five right answers borrowed are enough there, and not for green's 0.9."""
    builtins = measured([100, 0, 0], [100, 0, 0])
    assert decide(builtins, "what").expert == "sums"
    assert decide(builtins, "green").expert == "emerald"
    assert decide(measured([100, 0, 8], [100, 0, 1]), "what").expert == "plain"


def test_a_pin_to_it_holds_whatever_was_measured_while_it_answers() -> None:
    builtins = measured([0, 0, 0], [0, 0, 0], pins={"default": {0: "sums"}})
    assert (decide(builtins).expert, decide(builtins).reason) == ("sums", DecisionReason.PINNED)
    assert decide(builtins, answering=()).expert == "ruby"
    assert decide(builtins, "green").expert == "emerald"


def test_a_category_pinned_to_a_language_model_stays_its_own() -> None:
    router = replace(small_router(), builtins=measured([100, 0, 0], [100, 0, 0]))
    pinned = replace(router, policies={"default": replace(router.policies["default"], pins={0: 2})})
    found = pinned.decide(Query("q", "red", QueryFacts(answering=("sums",))), rng=np.random.default_rng(0))
    assert (found.expert, found.reason) == ("plain", DecisionReason.PINNED)


counts = st.lists(st.integers(0, 50), min_size=3, max_size=3)


@given(answered=counts, shares=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_bounds_lie_below_precision_and_nothing_is_sure_without_answers(
    answered: list[int], shares: list[float]
) -> None:
    right = [n * share for n, share in zip(answered, shares, strict=True)]
    found = measured([float(n) for n in answered], right)
    assert (found.sure <= found.precision + 1e-6).all()
    assert (found.precision <= 1 + 1e-6).all()
    if not sum(answered):
        assert not found.sure.any()
    borrowed_only = [i for i, n in enumerate(answered) if n == 0]
    most = MOST_FROM_OTHERS / (MOST_FROM_OTHERS + 1.96**2)
    assert all(found.sure[i, 0] <= most + 1e-3 for i in borrowed_only)
