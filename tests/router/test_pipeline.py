"""The router on a toy composition whose every number is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import ConfigError, NoEligibleExpertError
from coe.router.capabilities import Capabilities, explicit_decision
from coe.router.classifiers.logistic import LogisticClassifier
from coe.router.config.policy import Budgets
from coe.router.encoders.hashing import Options as HashingOptions
from coe.router.encoders.hashing import build as build_hashing
from coe.router.pipeline import Router
from coe.router.policy.map_solver import ExpertCosts, solve_map
from coe.router.policy.preference import Preference
from coe.router.policy.solved_policy import SolvedPolicy
from coe.router.quality import Measured, QualityMatrix
from coe.router.reading.features import features_of
from coe.router.reading.uncertainty import Uncertainty
from coe.router.scorers.map import MapScorer
from coe.router.scorers.soft_map import SoftMapScorer
from coe.router.types import DecisionReason, Query, QueryBatch, QueryFacts, RoutingDecision
from tests.router.exploring import explored

EXPERTS = ("small", "coder", "vision")
QUALITY = np.array([[0.3, 0.9, 0.2], [0.6, 0.1, 0.5], [0.5, 0.4, 0.45]], np.float32)  # code, facts, general
CODE, FACTS, NEITHER = np.eye(2, dtype=np.float32)[0], np.eye(2, dtype=np.float32)[1], np.full(2, 0.5, np.float32)


def make_router(*, share=0.0, pins=None, context=None) -> Router:
    m, zero = len(EXPERTS), np.zeros((3, len(EXPERTS)), np.float32)
    costs = ExpertCosts(
        np.ones(m, np.float32), np.arange(m), np.zeros(m, np.float32), np.ones(m, np.float32), zero, zero
    )
    vector = np.zeros(3, np.float32)
    evidence = QualityMatrix(QUALITY, zero, zero, vector + 1, vector, zero, zero)
    solution = solve_map(QUALITY, evidence.mass, costs, Budgets())
    return Router(
        version="v1",
        encoder=build_hashing(HashingOptions(dim=64)),
        classifier=LogisticClassifier(("code", "facts"), 8 * np.eye(2, dtype=np.float32), np.zeros(2, np.float32)),
        temperature=1.0,
        uncertainty=Uncertainty(np.eye(2, dtype=np.float32), np.zeros(1, np.float32), 0.0, threshold=0.5),
        scorer=MapScorer(Measured(EXPERTS, evidence)),
        experts=EXPERTS,
        policies={"default": SolvedPolicy(solution, pins or {}, explored(share))},
        capabilities={
            "small": Capabilities(context_tokens=context, supports=frozenset({"audio", "tools", "json"})),
            "coder": Capabilities(supports=frozenset({"audio", "json"})),
            "vision": Capabilities(),
        },
    )


def soft_map(router: Router) -> SoftMapScorer:
    assert isinstance(router.scorer, MapScorer)
    return SoftMapScorer(router.scorer.measured)


def decide(router: Router, vector, facts=None, **more):
    return router.decide(
        Query("q", "text", facts or QueryFacts()), embedding=vector[None], rng=np.random.default_rng(0), **more
    )


def test_the_temperature_of_the_artifact_softens_what_is_decided_from():
    """Log-odds of 8 become 8 / T: a confidence, an uncertainty and, once soft enough, another decision."""
    sharp, soft, softer = (decide(replace(make_router(), temperature=t), CODE) for t in (1.0, 4.0, 20.0))
    for found, odds in ((sharp, 8.0), (soft, 2.0), (softer, 0.4)):
        assert found.confidence == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-4)
    assert sharp.uncertainty < soft.uncertainty < softer.uncertainty
    assert [found.category for found in (sharp, soft, softer)] == ["code", "general", "general"]
    assert soft.category_probs["code"] == pytest.approx(soft.confidence)


@pytest.mark.parametrize(("vector", "category", "expert"), [(CODE, "code", "coder"), (FACTS, "facts", "small")])
def test_a_sure_query_goes_to_its_categorys_expert(vector, category, expert):
    found = decide(make_router(), vector)
    assert (found.category, found.expert, found.reason) == (category, expert, DecisionReason.MAP)
    assert found.confidence == pytest.approx(1 / (1 + np.exp(-8)), abs=1e-4)
    assert (found.is_fallback, found.propensity, found.router_version) == (False, 1.0, "v1")


def test_an_unsure_query_goes_to_general_and_says_what_it_looked_like():
    found = decide(make_router(), NEITHER)
    assert (found.category, found.expert, found.reason) == ("general", "small", DecisionReason.UNCERTAIN)
    assert found.is_fallback
    assert found.likely_category in ("code", "facts")
    assert found.uncertainty > 0.5
    assert found.runner_up == "vision"


def abstaining(router: Router, *names: str) -> Router:
    kinds = {name: replace(each, abstains=name in names) for name, each in router.capabilities.items()}
    return replace(router, capabilities=kinds)


ALMOST_CODE = np.array([0.55, 0.45], np.float32)


def test_an_unsure_query_is_first_asked_of_experts_that_can_abstain_by_the_likelihood_of_their_categories():
    """And of nobody else than before where no category is theirs."""
    router = make_router(share=0.5)
    found = decide(abstaining(router, "coder"), ALMOST_CODE)
    assert (found.category, found.likely_category, found.reason) == ("general", "code", DecisionReason.UNCERTAIN)
    assert (found.expert, found.propensity, found.ranking) == ("coder", 1.0, ("coder", "small", "vision"))
    assert found.following({"coder"}) == "small"
    both = decide(abstaining(make_router(pins={1: 2}), "coder", "vision"), ALMOST_CODE[::-1])
    assert both.ranking == ("vision", "coder", "small")
    assert decide(abstaining(router, "vision"), ALMOST_CODE) == decide(router, ALMOST_CODE)


def test_an_unsure_query_goes_by_the_pin_of_general_or_past_an_abstaining_expert_that_cannot_serve_it():
    assert decide(abstaining(make_router(pins={2: 2}), "coder"), ALMOST_CODE).expert == "vision"
    found = decide(abstaining(make_router(), "coder"), ALMOST_CODE, alive={"small", "vision"})
    assert (found.expert, found.ranking) == ("small", ("small", "vision"))


def test_a_pin_wins_over_the_map():
    found = decide(make_router(pins={0: 2}), CODE)
    assert (found.expert, found.reason) == ("vision", DecisionReason.PINNED)


def test_the_mask_excludes_and_the_next_best_serves():
    found = decide(make_router(), CODE, QueryFacts(has_image=True))
    assert (found.expert, found.reason, found.eligible) == ("vision", DecisionReason.NEXT_BEST, ("vision",))
    assert found.excluded == {"small": "does not take images", "coder": "does not take images"}


def test_a_dead_expert_is_skipped_and_named():
    found = decide(make_router(), CODE, alive={"small", "vision"})
    assert (found.expert, found.excluded) == ("small", {"coder": "is not reachable"})


def test_nothing_eligible_says_what_each_lacks():
    with pytest.raises(NoEligibleExpertError) as caught:
        decide(make_router(), CODE, QueryFacts(has_image=True), alive={"small", "coder"})
    assert caught.value.reasons == {
        "small": "does not take images",
        "coder": "does not take images",
        "vision": "is not reachable",
    }


def test_context_counts_prompt_and_answer():
    router = make_router(context=100)
    assert "small" not in decide(router, FACTS, QueryFacts(prompt_chars=200, max_output_tokens=50)).excluded
    found = decide(router, FACTS, QueryFacts(prompt_chars=204, max_output_tokens=50))
    assert found.excluded["small"] == "context of 100 tokens is less than the 101 needed"


def test_exploration_logs_the_probability_it_drew_with():
    router = make_router(share=0.5)
    rng = np.random.default_rng(1)
    batch = QueryBatch(tuple(Query(str(i), "t") for i in range(3000)), np.tile(CODE, (3000, 1)))
    found = router.decide_batch(batch, rng=rng)
    for name in EXPERTS:
        drawn = [d for d in found if d.expert == name]
        assert len(drawn) / 3000 == pytest.approx(found[0].eligible_probs[EXPERTS.index(name)], abs=0.03)
        assert all(d.propensity == d.eligible_probs[EXPERTS.index(name)] for d in drawn)
    assert {d.reason for d in found} == {DecisionReason.MAP, DecisionReason.EXPLORED}


@pytest.mark.parametrize("mix", [None, np.array([0.5, 1.5], np.float32)])
@pytest.mark.parametrize("outside", [None, np.array([1.5, -2.0, 0.3], np.float32)])
@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_a_batch_is_decided_as_one_by_one(weight, outside, mix):
    doubt = Uncertainty(np.eye(2, dtype=np.float32), np.array([0.1, 0.4], np.float32), weight, 0.5, outside)
    router = replace(make_router(share=0.3), temperature=1.7, mix=mix, uncertainty=doubt)
    vectors = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)
    queries = tuple(Query(str(i), "t") for i in range(20))
    together = router.decide_batch(QueryBatch(queries, vectors), rng=np.random.default_rng(5))
    rng = np.random.default_rng(5)
    for query, vector, found in zip(queries, vectors, together, strict=True):
        alone = router.decide(query, embedding=vector[None], rng=rng)
        rounded_off = {name: getattr(alone, name) for name in ("confidence", "uncertainty", "category_probs")}
        assert all(getattr(found, name) == pytest.approx(value, abs=1e-6) for name, value in rounded_off.items())
        assert found.model_copy(update=rounded_off) == alone


FACTS_OF_REQUESTS = st.builds(QueryFacts, has_image=st.booleans(), has_tools=st.booleans(), prompt_chars=st.just(400))
ASKS = st.tuples(st.sampled_from([CODE, FACTS, NEITHER]), FACTS_OF_REQUESTS, st.sets(st.sampled_from(EXPERTS)))


@given(st.lists(ASKS, min_size=2, max_size=12), st.sampled_from(["map", "soft_map"]))
def test_a_decision_does_not_depend_on_the_ones_before(asks, kind):
    def made(router: Router, vector, facts, alive) -> RoutingDecision | str:
        try:
            return decide(router, vector, facts, alive=alive)
        except NoEligibleExpertError as error:
            return str(error)

    def new() -> Router:
        router = make_router(share=0.3, context=50)
        return router if kind == "map" else replace(router, scorer=soft_map(router))

    used = new()
    for ask in asks:
        assert made(used, *ask) == made(new(), *ask)


def test_unknown_policy_lists_the_known():
    with pytest.raises(ConfigError, match="unknown policy 'cheap'; allowed: default"):
        decide(make_router(), CODE, policy="cheap")


def test_failover_goes_down_the_order_of_the_decision_and_begins_with_its_runner_up():
    found = decide(make_router(), FACTS)
    assert found.ranking == ("small", "vision", "coder")
    assert found.following({"small"}) == found.runner_up == "vision"
    assert found.following({"small", "vision"}) == "coder"
    assert found.following(set(EXPERTS)) is None


def test_a_named_expert_bypasses_routing_but_not_the_mask():
    known = make_router().capabilities
    found = explicit_decision(["coder"], QueryFacts(), known, version="v1")
    assert (found.expert, found.reason, found.propensity) == ("coder", DecisionReason.EXPLICIT, 1.0)
    with pytest.raises(NoEligibleExpertError, match="coder: does not take tools"):
        explicit_decision(["coder"], QueryFacts(has_tools=True), known)
    with pytest.raises(NoEligibleExpertError, match="coder: is not reachable"):
        explicit_decision(["coder"], QueryFacts(), known, {"small"})


def test_the_map_in_force_includes_pins():
    assert make_router(pins={1: 2}).expert_of() == {"code": "coder", "facts": "vision", "general": "small"}


def by_query(*, pins=None, hosted=(True, True, True), margin=0.0) -> Router:
    """As `make_router`, but every query is judged by the expected quality over its categories."""
    plain = make_router(pins=pins)
    scorer = soft_map(plain)
    tolls = np.array([0.0, margin, margin])
    policy = replace(plain.policy("default"), preference=Preference(tolls, np.array(hosted)))
    return replace(plain, scorer=scorer, policies={"default": policy})


def test_a_query_judged_by_itself_gets_its_best_expert_even_when_its_category_is_unsure():
    found = decide(by_query(), NEITHER)  # half code, half facts: small 0.45, coder 0.5, vision 0.35
    assert (found.expert, found.reason, found.category) == ("coder", DecisionReason.QUERY, "general")
    assert found.is_fallback
    assert found.predicted_quality == pytest.approx((0.45, 0.5, 0.35))
    assert found.runner_up == "small"


def test_a_lead_below_the_margin_leaves_the_reference():
    assert decide(by_query(margin=0.1), NEITHER).expert == "small"
    assert decide(by_query(margin=0.1), CODE).expert == "coder"


def test_a_query_pays_the_tolls_of_its_row():
    router = by_query()
    tolls = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.2, 0.0]])  # `coder` is dear on code, less so if unsure
    policy = replace(router.policy("default"), preference=Preference(tolls, np.ones(3, dtype=bool)))
    router = replace(router, policies={"default": policy})
    assert decide(by_query(), CODE).expert == decide(by_query(), NEITHER).expert == "coder"
    dear, unsure = decide(router, CODE), decide(router, NEITHER)
    assert (dear.expert, dear.category) == ("small", "code")
    assert (unsure.expert, unsure.runner_up, unsure.category) == ("small", "vision", "general")


def test_pins_hosting_and_the_mask_hold_for_a_query_judged_by_itself():
    assert decide(by_query(pins={2: 2}), NEITHER).reason is DecisionReason.PINNED
    assert decide(by_query(hosted=(True, False, True)), CODE).expert == "small"


def test_with_every_hosted_expert_down_nobody_serves():
    with pytest.raises(NoEligibleExpertError) as caught:
        decide(by_query(hosted=(False, True, False)), CODE, alive=("small",))
    assert caught.value.reasons == {
        "small": "is not hosted under the policy",
        "coder": "is not reachable",
        "vision": "is not hosted under the policy",
    }
    again = decide(by_query(hosted=(False, True, False)), CODE)
    assert (again.expert, again.eligible, list(again.outside_policy)) == ("coder", ("coder",), ["small", "vision"])


def test_a_decision_keeps_what_it_weighed():
    cost = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)
    wait = np.array([[10, 0, 30]] * 3, np.float32)
    one = np.ones(3, np.float32)
    costs = ExpertCosts(one, np.arange(3), one, one, cost, wait)
    found = decide(replace(make_router(), costs=costs), FACTS, alive={"small", "vision"})
    assert (found.eligible, list(found.excluded)) == (("small", "vision"), ["coder"])
    assert found.predicted_quality == pytest.approx((0.6, 0.5))
    assert found.excluded_quality == pytest.approx((0.1,))
    assert found.predicted_cost_usd == (4.0, 6.0, 5.0)
    assert found.predicted_wait_ms == (10.0, 30.0, None)
    assert list(found.category_probs) == ["facts", "code"]
    assert sum(found.category_probs.values()) == pytest.approx(1)
    assert (found.threshold, found.seed) == (0.5, None)


def test_a_threshold_that_nothing_passes_is_none():
    router = make_router()
    never = replace(router, uncertainty=replace(router.uncertainty, threshold=float("-inf")))
    assert (decide(never, CODE).threshold, decide(never, CODE).category) == (None, "general")


def test_a_decision_is_made_again_from_its_seed_and_its_stored_features():
    router = make_router(share=0.7)
    vector = router.embed("how do I sort a list")
    assert vector.shape == (1, 64)
    assert np.array_equal(vector, features_of(vector).vectors)
    first = [decide_with(router, np.random.default_rng(n)) for n in range(20)]
    again = [decide_with(router, np.random.default_rng(99), decision.seed) for decision in first]
    assert first == again
    assert len({decision.expert for decision in first}) > 1


def decide_with(router, rng, seed=None):
    return router.decide(Query("q", "text"), embedding=NEITHER[None], rng=rng, seed=seed)


def test_settings_follow_experts_yaml_and_nothing_else():
    plain = make_router()
    assert plain.settings == make_router().settings
    other = [
        make_router(share=0.1),
        make_router(pins={0: 2}),
        make_router(context=100),
        replace(plain, uncertainty=replace(plain.uncertainty, threshold=0.4)),
    ]
    assert len({router.settings["default"] for router in (plain, *other)}) == 5
    assert replace(plain, version="v2").settings == plain.settings
