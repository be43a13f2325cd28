"""Rows that are fitted on and rows that are tested, and the errors of wrong requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from base.errors import ConfigError, DataError, InfeasibleBudgetError
from eval.routing.routing_request import RoutingRequest
from eval.routing.trial_tables import (
    fingerprint,
    parse_budgets,
    read_tables,
    require_amounts,
)
from router.policy_config import Budgets
from tests.eval.routing.trial_data import FIT_SCORES, SIZES, table
from training.datasets.outcomes import write_outcomes


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


def test_with_a_test_table_all_is_fitted_but_what_is_tested(tmp_path: Path) -> None:
    fit = table(FIT_SCORES, ["a"] * 4 + ["b"] * 4, "fit")
    other = table(FIT_SCORES[:2], ["a", "a"], "test")
    write_outcomes(fit, tmp_path / "fit")
    write_outcomes(replace(other, texts=("Fresh one", fit.texts[3].upper() + "?")), tmp_path / "test")
    found = read_tables(request(tmp_path / "fit", test=tmp_path / "test"))
    assert found.test.prompt_ids == ("test0", "test1")
    assert found.fit.prompt_ids == tuple(f"fit{i}" for i in range(8) if i != 3)
    assert found.n_overlap_removed == 1


@pytest.mark.parametrize("names", [["dev", "holdout"], ["", "TEST"], [1, 2]])
def test_with_a_test_table_the_splits_of_both_may_have_any_names(tmp_path: Path, names: list[object]) -> None:
    fit = table(FIT_SCORES, ["a"] * 4 + ["b"] * 4, "fit")
    for part, name in ((fit, "fit"), (table(FIT_SCORES[:2], ["a", "a"], "test"), "test")):
        write_outcomes(part, tmp_path / name)
        file = tmp_path / name / "prompts.parquet"
        prompts = pq.read_table(file)
        splits = pa.array((names * 4)[: len(prompts)])
        pq.write_table(prompts.set_column(prompts.column_names.index("split"), "split", splits), file)
    found = read_tables(request(tmp_path / "fit", test=tmp_path / "test"))
    assert (len(found.fit.prompt_ids), len(found.test.prompt_ids), found.splits) == (8, 2, {})
    with pytest.raises(DataError, match="column 'split'"):
        read_tables(request(tmp_path / "fit"))


@pytest.mark.parametrize("knows", ["fit", "test"])
def test_sizes_that_one_folder_has_count_for_both(tmp_path: Path, knows: str) -> None:
    for name in ("fit", "test"):
        part = table(FIT_SCORES, ["a"] * 4 + ["b"] * 4, name)
        write_outcomes(part if name == knows else replace(part, active_params_b={}), tmp_path / name / "table")
    found = read_tables(request(tmp_path / "fit" / "table", test=tmp_path / "test" / "table"))
    assert found.fit.active_params_b == found.test.active_params_b == SIZES


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


def test_a_table_that_is_its_own_test_is_told_so(tmp_path: Path) -> None:
    write_outcomes(table(FIT_SCORES, ["a"] * 8, "fit"), tmp_path)
    with pytest.raises(DataError, match=r"no prompt is left to fit on .8 have a text that is in the test set too"):
        read_tables(request(tmp_path, test=tmp_path))


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
