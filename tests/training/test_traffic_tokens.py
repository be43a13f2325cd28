"""Predicted costs are those of the traffic: its lengths, and what providers had cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import yaml

from coe.base.errors import ArtifactError
from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.fleet.router_registry import Registry
from coe.router.build import expert_costs, load_router
from coe.router.config.composition import load_config
from coe.router.config.expert import ExpertConfig
from coe.router.config.policy import Budgets
from coe.router.policy.map_solver import solve_map
from coe.router.prices.cost import KINDS, cost
from coe.router.prices.usage import Usage
from coe.router.quality import QualityMatrix, quality_from_arrays
from coe.router.types import DecisionReason, Query
from coe.training.evidence import gather_evidence
from coe.training.expert_map import MIN_TRAFFIC_ANSWERS, TrafficTokens, measure_quality, with_traffic
from coe.training.log_table import build_table
from coe.training.retrain import run_retrain
from tests.logged import answered, decision_of
from tests.outcome_tables import scored_table
from tests.training.test_retrain import CONFIG, NOW, log_answers, request_

__all__ = ["request_"]

ROWS, EXPERTS = ("code", "facts", "general"), ("left", "right", "new")
PRICES: Mapping[str, Any] = {
    "price": {"input": 5.0, "output": 25.0, "cache_read": 0.5, "cache_write_1h": 10.0, "reasoning": 30.0},
}
DEAR = ExpertConfig.model_validate({"engine": "echo", "model": "m", **PRICES})
FREE = ExpertConfig.model_validate({"engine": "echo", "model": "m"})
GRADED = scored_table([[0.5, 0.5, 0.5]] * 6, ["code"] * 3 + ["facts"] * 3, EXPERTS)
GRADED = replace(GRADED, output_tokens=np.full((6, 3), 40, np.float32))
CACHED = Usage(prompt_tokens=100_000, completion_tokens=100, kinds={"cache_read": 95_000})


def asked(n: int, expert: str = "left", category: str = "code", **changes: Any) -> list[DecisionRecord]:
    decision = decision_of(expert, category, reason=changes.pop("reason", "map"))
    return [answered(f"{category}-{expert}-{i}", i, decision, **({"usage": CACHED} | changes)) for i in range(n)]


def evidence(records: Sequence[DecisionRecord]) -> QualityMatrix:
    return gather_evidence(GRADED, build_table(records, {}), ROWS[:-1]).matrix


def test_predicted_costs_are_the_mean_costs_of_the_log() -> None:
    """95 of 100 prompt tokens are cached, more and less of each; some are written for an hour, and some answers are
    thoughts."""
    rng, records, spent = np.random.default_rng(0), list[DecisionRecord](), dict[str, list[float]]()
    for expert, category in (("left", "code"), ("right", "facts")):
        for i in range(200):
            prompt, answer = int(rng.integers(1000, 200_000)), int(rng.integers(1, 2000))
            kinds = {"cache_read": int(0.95 * prompt), "cache_write_1h": int(rng.integers(0, prompt // 50))}
            kinds["reasoning"] = int(rng.integers(0, answer + 1)) if expert == "left" else 0
            usage = Usage(prompt_tokens=prompt, completion_tokens=answer, kinds=kinds)
            records.append(answered(f"{expert}-{i}", i, decision_of(expert, category), usage=usage))
            spent.setdefault(expert, []).append(cost(usage, DEAR.chat_price))
    found = expert_costs([DEAR] * 3, evidence(records)).cost_usd
    assert found[0, 0] == pytest.approx(np.mean(spent["left"]), rel=1e-5)
    assert found[1, 1] == pytest.approx(np.mean(spent["right"]), rel=1e-5)
    plain = expert_costs([DEAR] * 3, replace(evidence(records), kinds=None)).cost_usd
    assert plain[0, 0] > 3 * found[0, 0]


def test_a_budget_is_met_that_prices_without_a_cache_would_refuse() -> None:
    matrix = evidence(asked(50))
    quality = np.array([[0.9, 0.1, 0.1]] * 3, np.float32)
    for kinds, chosen in ((matrix.kinds, 0), (None, 1)):
        costs = expert_costs([DEAR, FREE, FREE], replace(matrix, kinds=kinds))
        code = np.array([1.0, 0.0, 0.0], np.float32)
        assert solve_map(quality, code, costs, Budgets(cost_usd=0.1), {}).expert_of[0] == chosen


def test_a_cell_with_few_answers_has_the_kinds_of_its_expert_and_a_new_expert_has_none() -> None:
    few = Usage(prompt_tokens=100, completion_tokens=10)
    matrix = evidence([*asked(MIN_TRAFFIC_ANSWERS), *asked(MIN_TRAFFIC_ANSWERS - 1, category="facts", usage=few)])
    overall = MIN_TRAFFIC_ANSWERS * 95_000 / (MIN_TRAFFIC_ANSWERS * 100_000 + (MIN_TRAFFIC_ANSWERS - 1) * 100)
    read = matrix.shares[..., list(KINDS).index("cache_read")]
    assert read[:, 0] == pytest.approx([0.95, overall, overall])
    assert not read[:, 1:].any()
    assert matrix.prompt_tokens[0] == 100_000
    assert matrix.prompt_tokens[1] < 100


def test_answers_of_others_are_as_much_longer_than_graded_ones() -> None:
    """Left's answers have 100 tokens, 2.5 times as many as those that were graded; nobody answered facts."""
    assert evidence(asked(MIN_TRAFFIC_ANSWERS)).output_tokens[:2] == pytest.approx(
        np.array([[100, 100, 100], [40, 40, 40]])
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": DecisionReason.EXPLICIT},
        {"is_probe": True},
        {"state": TerminalState.TIMED_OUT},
        {"usage": CACHED.model_copy(update={"is_estimated": True})},
        {"usage": Usage()},
    ],
)
def test_what_no_router_sent_or_no_expert_counted_says_nothing(changes: Mapping[str, Any]) -> None:
    graded = measure_quality(GRADED, ROWS[:-1])
    found = evidence(asked(2 * MIN_TRAFFIC_ANSWERS, **changes))
    assert found.kinds is None
    for name in ("prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(found, name), getattr(graded, name))


def test_a_conversation_that_keeps_its_expert_counts() -> None:
    assert evidence(asked(MIN_TRAFFIC_ANSWERS, reason=DecisionReason.KEPT)).kinds is not None


def test_the_kinds_are_kept_with_the_evidence() -> None:
    matrix = evidence(asked(MIN_TRAFFIC_ANSWERS))
    read = quality_from_arrays(matrix.arrays(), 2, 3)
    np.testing.assert_array_equal(read.shares, matrix.shares)
    np.testing.assert_array_equal(read.columns([2, 0]).shares, matrix.shares[:, [2, 0]])
    without = replace(matrix, kinds=None)
    for one, other in ((matrix, without), (without, matrix)):
        joined = one.beside(other.arrays())
        np.testing.assert_array_equal(joined.shares, np.hstack([one.shares, other.shares]))
    with pytest.raises(ArtifactError, match="kinds"):
        quality_from_arrays(matrix.arrays() | {"kinds": matrix.shares[..., 1:]}, 2, 3)


def test_an_answer_of_a_category_or_an_expert_that_is_gone_is_of_general_or_of_nobody() -> None:
    tokens = TrafficTokens()
    for record in (*asked(MIN_TRAFFIC_ANSWERS, category="gone"), *asked(MIN_TRAFFIC_ANSWERS, expert="gone")):
        tokens.add(record)
    found = with_traffic(measure_quality(GRADED, ROWS[:-1]), ROWS, EXPERTS, tokens)
    assert found.prompt_tokens[2] == 100_000
    assert found.prompt_tokens[0] < 100


def test_a_retrained_router_predicts_what_cached_prompts_cost(request_) -> None:  # type: ignore[no-untyped-def]
    experts = {name: {**entry, **PRICES} for name, entry in cast(dict[str, Any], CONFIG["experts"]).items()}
    budget = {"default": {"budgets": {"cost_usd": 0.1}}}
    request_.config.write_text(yaml.dump(CONFIG | {"experts": experts, "policies": budget}))
    log_answers(request_, {"left": 0.1, "right": 0.9}, usage=CACHED, cost_usd=0.075)
    result = run_retrain(request_, now=NOW)
    assert result.is_promoted, result.reason
    registry = Registry(request_.routers)
    router = load_router(load_config(request_.config), registry.folder(registry.live().version))
    query = Query("q", "write a sql query that selects rows from a table")
    decision = router.decide(query, rng=np.random.default_rng(0))
    assert (decision.category, decision.expert) == ("sql", "right")
    assert decision.predicted_cost_usd == pytest.approx((0.075, 0.075), rel=1e-5)
