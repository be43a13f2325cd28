"""Loss without an expert, on tables whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coe.base.errors import DataError
from coe.eval.log.expert_worth import NOBODY, NOTICED_LOSS, WorthStudy, describe_worth, read_worth
from coe.router.config.composition import CoeConfig, parse_config
from coe.training.types import OutcomeTable
from tests.training.trained_folder import make_trained, outcome_table

ROUTER = {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}}


def config_of(categories: int, experts: dict[str, dict[str, object]], **policy: object) -> CoeConfig:
    return parse_config(
        {
            "categories": {**{f"c{i}": "one of many" for i in range(categories)}, "general": "the rest"},
            "experts": {name: {"engine": "echo", "model": name, **entry} for name, entry in experts.items()},
            "router": ROUTER,
            "policies": {"default": policy},
        }
    )


def graded(quality: np.ndarray, per_category: int, rng: np.random.Generator | None = None) -> OutcomeTable:
    """Scores of quality (k, m) itself, or right with that chance."""
    prompts = [(f"c{row}", i) for row in range(len(quality)) for i in range(per_category)]
    scores = np.repeat(quality, per_category, axis=0)
    if rng is not None:
        scores = (rng.random(scores.shape) < scores).astype(float)
    return outcome_table(prompts, tuple(f"e{i}" for i in range(quality.shape[1])), scores)


def test_a_specialist_is_worth_its_lead_on_its_share_of_the_traffic() -> None:
    quality = np.array([[0.5, 0.9], [0.5, 0.1]])
    config = config_of(2, {"e0": {"params_b": 7}, "e1": {"params_b": 3, "model": "m-AWQ", "price": {"output": 2}}})
    found = WorthStudy(config, graded(quality, 30), {"c0": 1, "c1": 3}).measure()
    generalist, specialist = found.experts
    assert "c0" in specialist.serves
    assert specialist.loss.value == pytest.approx(0.4 / 4, abs=1e-6)
    assert {name: metric.value for name, metric in specialist.by_category.items()} == {"c0": pytest.approx(0.4)}
    assert specialist.freed_gb == pytest.approx(3 * 0.56 * 1.0737, abs=1e-3)  # in 4 bits
    per_gb = specialist.loss_per(specialist.freed_gb)
    assert per_gb.value == pytest.approx(0.1 / specialist.freed_gb, abs=1e-6)
    assert generalist.loss.value == pytest.approx(0.4 * 3 / 4, abs=1e-6)
    assert found.dispensable == ()


def test_of_two_that_stand_in_for_each_other_the_larger_is_named() -> None:
    quality = np.array([[0.5, 0.9, 0.9], [0.5, 0.1, 0.1]])
    config = config_of(2, {"e0": {}, "e1": {"params_b": 3}, "e2": {"params_b": 70}})
    found = WorthStudy(config, graded(quality, 30)).measure()
    assert [one.loss.value for one in found.experts if one.loss][1:] == [0, 0]
    assert found.dispensable == ("e2",)
    assert describe_worth(found) == "Nobody would miss e2: the loss is surely below 0.5 points."


def test_where_none_is_any_good_nobody_is_called_dispensable() -> None:
    config = config_of(2, {"e0": {}, "e1": {"params_b": 70}})
    found = WorthStudy(config, graded(np.array([[0.02, 0.0], [0.0, 0.0]]), 30)).measure()
    assert found.dispensable == ()
    assert "even the best expert of each category scores only 1.0% on average" in describe_worth(found)
    one_each = WorthStudy(config, graded(np.array([[0.1, 0.0], [0.0, 0.1]]), 30)).measure()
    assert one_each.doubt == "", "each alone scores 5%, but not where the other is good"


def test_an_expert_of_a_category_without_traffic_now_is_not_called_dispensable() -> None:
    quality = np.array([[0.5, 0.9], [0.5, 0.1]])
    found = WorthStudy(config_of(2, {"e0": {}, "e1": {}}), graded(quality, 30), {"c1": 50}).measure()
    specialist = found.experts[1]
    assert specialist.loss.value == pytest.approx(0, abs=1e-6)
    assert specialist.by_category["c0"].value == pytest.approx(0.4)
    assert found.dispensable == ()


def test_an_expert_that_keeps_a_budget_is_needed_and_an_ungraded_one_unknown() -> None:
    experts: dict[str, dict[str, object]] = {"e0": {"params_b": 1}, "e1": {"params_b": 70}, "late": {}}
    config = config_of(2, experts, budgets={"active_params_b": 10})
    found = WorthStudy(config, graded(np.array([[0.5, 0.9], [0.5, 0.9]]), 30)).measure()
    small, _, late = found.experts
    assert small.loss is None
    assert small.unknown.startswith("needed to keep budgets: ")
    assert late.unknown == "not graded"
    assert "e0" not in found.dispensable


def test_prompts_that_one_of_the_two_never_answered_are_left_out() -> None:
    table = graded(np.array([[0.5, 0.9], [0.5, 0.1]]), 30)
    table.scores[:10, 0] = np.nan
    loss = WorthStudy(config_of(2, {"e0": {}, "e1": {}}), table).measure().experts[1].by_category["c0"]
    assert loss.n == 20


def test_where_nothing_is_known_of_the_next_best_an_expert_is_not_called_dispensable() -> None:
    table = graded(np.array([[0.5, 0.9, 0.1], [0.5, 0.4, 0.4]]), 30)
    table.scores[:30, 0] = np.nan
    found = WorthStudy(config_of(2, {"e0": {}, "e1": {}, "e2": {}}), table).measure()
    assert found.experts[1].serves == ("c0",)
    assert found.dispensable == ("e2",)


def test_intervals_hold_the_truth_and_favour_the_expert_a_little() -> None:
    """The figures of `WorthStudy`: 16 prompts in each of 16 categories, 6 experts of which some lead by 0.25."""
    rng, k, m = np.random.default_rng(1), 16, 6
    config, held, bias = config_of(k, {f"e{i}": {} for i in range(m)}), [], []
    for _ in range(8):
        quality = rng.uniform(0.3, 0.7, (k, 1)) + rng.normal(0, 0.05, (k, m)) + (rng.random((k, m)) < 0.08) * 0.25
        quality = np.clip(quality, 0.02, 0.98)
        study = WorthStudy(config, graded(quality, 16, rng), {f"c{i}": 1.0 for i in range(k)})
        for name in study.table.experts:
            maps = [study.solve(removed).expert_of[:k] for removed in (NOBODY, frozenset({name}))]
            truth = float(np.subtract(*(quality[np.arange(k), one] for one in maps)).mean())
            loss = study.worth_of(name).loss
            held.append(loss.interval.low <= truth <= loss.interval.high)
            bias.append(loss.value - truth)
    assert np.mean(held) > 0.9
    assert 0 < np.mean(bias) < 0.007


def test_worth_of_a_folder_is_that_of_its_outcomes_and_unknown_without(tmp_path: Path) -> None:
    folder = make_trained(tmp_path)
    found = read_worth(folder / "experts.yaml", folder / "data" / "outcomes", {})
    assert found.dispensable == ("right",)
    assert describe_worth(found) == "Nobody would miss right: the loss is surely below 0.5 points."
    assert found.experts[0].loss.value == pytest.approx(0.2, abs=1e-6)
    assert found.experts[0].loss.value > NOTICED_LOSS
    with pytest.raises(DataError, match="run `coe eval collect`"):
        read_worth(folder / "experts.yaml", tmp_path / "none", {})
