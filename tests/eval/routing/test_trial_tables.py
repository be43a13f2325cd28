"""Rows that are fitted on and rows that are tested, and the errors of wrong requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coe.base.errors import ConfigError, DataError, InfeasibleBudgetError
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.trial_tables import (
    fingerprint,
    parse_budgets,
    read_tables,
    require_amounts,
)
from coe.router.config.policy import Budgets
from coe.training.datasets.outcome_rows import write_outcomes
from tests.eval.routing.trial_data import FIT_SCORES, table


def request(outcomes: Path, **changes: object) -> RoutingRequest:
    return RoutingRequest(outcomes=outcomes, out=Path("out"), command="coe", **changes)


def test_fit_is_train_and_valid_and_test_is_test(tmp_path: Path) -> None:
    whole = table(FIT_SCORES, ["a"] * 4 + ["b"] * 4, "fit")
    splits = ("train", "test", "valid", "train", "train", "test", "train", "train")
    write_outcomes(replace(whole, splits=splits), tmp_path)
    found = read_tables(request(tmp_path))
    assert found.fit.prompt_ids == ("fit0", "fit2", "fit3", "fit4", "fit6", "fit7")
    assert found.test.prompt_ids == ("fit1", "fit5")
    assert (found.splits, found.n_overlap_removed) == ({"train": 5, "valid": 1, "test": 2}, 0)
    assert found.n_incomplete == 0


def test_prompts_that_an_expert_lacks_are_left_out_and_counted(tmp_path: Path) -> None:
    whole = table(FIT_SCORES, ["a"] * 4 + ["b"] * 4, "fit")
    holes = whole.scores.copy()
    holes[[1, 2], 0] = np.nan
    splits = ("train", "train", "test", "test", "train", "test", "train", "train")
    write_outcomes(replace(whole, scores=holes, splits=splits), tmp_path)
    found = read_tables(request(tmp_path))
    assert found.test.prompt_ids == ("fit3", "fit5")
    assert found.fit.prompt_ids == ("fit0", "fit4", "fit6", "fit7")
    assert found.n_incomplete == 2


def test_a_fit_query_with_the_text_of_a_test_query_is_left_out(tmp_path: Path) -> None:
    whole = table(FIT_SCORES, ["a"] * 4 + ["b"] * 4, "fit")
    texts = (*whole.texts[:7], whole.texts[3].upper() + "?")
    write_outcomes(replace(whole, texts=texts, splits=("train",) * 7 + ("test",)), tmp_path)
    found = read_tables(request(tmp_path))
    assert found.test.prompt_ids == ("fit7",)
    assert found.fit.prompt_ids == tuple(f"fit{i}" for i in range(7) if i != 3)
    assert found.n_overlap_removed == 1


def test_a_category_that_can_be_learned_keeps_the_labels_of_all(tmp_path: Path) -> None:
    """Five fit prompts are enough, four are not; the test rows are labelled as the fit rows are."""
    whole = table(FIT_SCORES, ["a"] * 6 + ["b"] * 2, "fit")
    for n_test, expected in ((1, ("a",)), (2, ("all", "all"))):
        write_outcomes(replace(whole, splits=("test",) * n_test + ("train",) * (8 - n_test)), tmp_path / str(n_test))
        found = read_tables(request(tmp_path / str(n_test)))
        assert found.test.categories == expected
        assert found.has_one_category is (n_test == 2)


def test_a_table_without_test_rows_is_refused(tmp_path: Path) -> None:
    write_outcomes(table(FIT_SCORES, ["a"] * 8, "fit"), tmp_path)
    with pytest.raises(DataError, match=r"no prompt is left to test on .*'train': 8"):
        read_tables(request(tmp_path))


def test_budgets_are_parsed() -> None:
    assert parse_budgets(["active_params_b=31", "cost_usd=0.01"]) == Budgets(active_params_b=31, cost_usd=0.01)
    with pytest.raises(ConfigError, match="unknown budget 'active_params'; did you mean 'active_params_b'"):
        parse_budgets(["active_params=31"])
    with pytest.raises(ConfigError, match="'lots' is not a number"):
        parse_budgets(["active_params_b=lots"])
    for number in ("-1", "0", "inf", "nan", "1e999"):
        with pytest.raises(ConfigError, match=f"{number} is not allowed; expected a number of more than 0"):
            parse_budgets([f"active_params_b={number}"])


def test_a_budget_on_an_unknown_amount_is_refused() -> None:
    whole = table(FIT_SCORES, ["a"] * 8, "fit")
    require_amounts(whole, Budgets(active_params_b=5))
    with pytest.raises(DataError, match="budget cost_usd: unknown for small, maths, law"):
        require_amounts(whole, Budgets(cost_usd=5))
    with pytest.raises(DataError, match="budget active_params_b: unknown for law"):
        require_amounts(replace(whole, active_params_b={"small": 2.0, "maths": 7.0}), Budgets(active_params_b=5))


def test_a_budget_below_every_expert_is_refused_before_anything_is_fitted() -> None:
    whole = table(FIT_SCORES, ["a"] * 8, "fit")
    require_amounts(whole, Budgets(active_params_b=2, hosted_params_b=2))
    for name in ("active_params_b", "hosted_params_b"):
        with pytest.raises(InfeasibleBudgetError, match=rf"budget {name}=1.9 cannot be met; .* that would do is 2$"):
            require_amounts(whole, Budgets(**{name: 1.9}))
    timed = replace(whole, latency_ms=np.full_like(whole.scores, 50))
    require_amounts(timed, Budgets(latency_ms=49))  # of the mean; each expert may be faster on some category


def test_a_fingerprint_changes_with_texts_labels_and_scores() -> None:
    whole = table(FIT_SCORES, ["a"] * 8, "fit")
    changed = [
        replace(whole, categories=("b", *whole.categories[1:])),
        replace(whole, texts=("other", *whole.texts[1:])),
        replace(whole, scores=whole.scores + np.float32(0.001)),
    ]
    prints = {fingerprint(found) for found in (whole, *changed)}
    assert len(prints) == 4
    assert fingerprint(replace(whole, splits=("test",) * 8)) == fingerprint(whole)
