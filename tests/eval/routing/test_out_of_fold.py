"""Every prompt decided once, by what was fitted without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coe.eval.routing.out_of_fold import fold_of_text, out_of_fold
from coe.eval.routing.routing_page import out_of_fold_sentence
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.trial_tables import Tables
from coe.router.config.policy import Budgets
from coe.router.strategies.learned import Played
from coe.router.types import IntArray
from coe.training.types import OutcomeTable
from tests.eval.routing.trial_data import FIT_SCORES, table, trial

REQUEST = RoutingRequest(outcomes=Path("x"), out=Path("y"), command="c", folds=3)
TABLES = Tables(trial().fit, table(FIT_SCORES[2:6], ["a", "a", "b", "b"], "test"), {}, 0)


def by_category(fit: OutcomeTable, unseen: OutcomeTable, request: RoutingRequest) -> tuple[IntArray, Played | None]:
    """The best expert of each category on the fitted rows; no row may be on both sides."""
    assert not set(fit.prompt_ids) & set(unseen.prompt_ids)
    best = {
        name: int(fit.scores[[category == name for category in fit.categories]].mean(axis=0).argmax())
        for name in set(fit.categories)
    }
    return np.array([best[category] for category in unseen.categories]), None


def test_all_prompts_count_and_each_is_decided_without_it() -> None:
    found = out_of_fold(TABLES, REQUEST, by_category, lambda line: None)
    whole = TABLES.fit.joined(TABLES.test)
    assert (found.n, found.folds, found.hindsight) == (12, 3, "maths")
    expected = [row[1 if category == "a" else 2] for row, category in zip(whole.scores, whole.categories, strict=True)]
    assert found.coe == pytest.approx(float(np.mean(expected)))
    assert found.best_single_hindsight == pytest.approx(float(whole.scores[:, 1].mean()))
    assert found.over_hindsight.mean == pytest.approx(found.coe - found.best_single_hindsight)
    assert found.query_oracle >= found.coe >= found.best_single
    assert found.used == []
    assert "over maths, the best of all in hindsight" in out_of_fold_sentence(found)


def test_what_a_budget_spends_on_prompts_that_it_was_not_solved_for_is_told() -> None:
    found = out_of_fold(
        TABLES, REQUEST.model_copy(update={"budgets": Budgets(active_params_b=10)}), by_category, lambda line: None
    )
    assert found.hindsight == "maths"  # law alone has 20 billion
    assert found.used == [pytest.approx((6 * 7 + 6 * 20) / 12 / 10)]


def test_a_strategy_is_beside_with_whom_it_asks() -> None:
    def decide(fit: OutcomeTable, unseen: OutcomeTable, request: RoutingRequest) -> tuple[IntArray, Played | None]:
        served = unseen.scores.argmax(axis=1)
        asked = np.zeros(unseen.scores.shape, dtype=bool)
        asked[:, :2] = True
        return by_category(fit, unseen, request)[0], Played(served, asked)

    found = out_of_fold(TABLES, REQUEST, decide, lambda line: None)
    assert found.agree.score == pytest.approx(found.query_oracle)
    assert list(found.agree.asked.values()) == [1.0, 1.0, 0.0]
    assert "The strategy agree scores" in out_of_fold_sentence(found)


def test_no_folds_have_none() -> None:
    assert out_of_fold(TABLES, REQUEST.model_copy(update={"folds": 0}), by_category, lambda line: None) is None


def test_texts_that_differ_in_case_are_in_one_fold() -> None:
    assert len({fold_of_text(text, 50) for text in ("What is 2+2?", "what is 2+2?", "WHAT IS 2+2?")}) == 1
    assert {fold_of_text(f"text {i}", 3) for i in range(60)} == {0, 1, 2}
