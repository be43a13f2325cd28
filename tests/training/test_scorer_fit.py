"""Size of the lead that an expert must have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.base.errors import ConfigError
from coe.cli.progress import Progress, silent
from coe.router.section import PluginConfig
from coe.training.graded_queries import GradedQueries
from coe.training.scorer_fit import (
    MARGINS,
    best_margin,
    chosen_scores,
    fit_scorer,
    mean_metric,
)
from tests.contracts.test_scorers import graded


def with_draws(data: GradedQueries) -> tuple[GradedQueries, np.random.Generator, Progress]:
    return data, np.random.default_rng(0), silent


def complete(n: int) -> GradedQueries:
    data = graded(n, 0)
    right = np.eye(3, dtype=np.float32)[data.rows]
    return replace(data, table=replace(data.table, scores=right))


def test_a_choice_needs_the_margin_to_leave_the_reference() -> None:
    predicted = np.array([[0.5, 0.58], [0.5, 0.3], [0.5, 0.45]], np.float32)  # the first is the reference
    scores = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
    assert chosen_scores(predicted, scores, 0.0).tolist() == [1.0, 1.0, 1.0]
    assert chosen_scores(predicted, scores, 0.1).tolist() == [0.0, 1.0, 1.0]


def test_predictions_without_worth_get_the_largest_margin_and_good_ones_a_small_one() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.random((400, 3)) < [0.7, 0.5, 0.5]).astype(np.float32)
    noise = np.array([0.7, 0.5, 0.5]) + 0.3 * rng.standard_normal((400, 3))
    assert best_margin(noise.astype(np.float32), scores) == MARGINS[-1]
    good = np.array([0.7, 0.5, 0.5]) + 0.4 * (scores - [0.7, 0.5, 0.5])
    assert best_margin(good.astype(np.float32), scores) == 0.15  # leads are 0.28 where the reference fails


def test_without_complete_rows_nothing_leaves_the_reference() -> None:
    scores = np.full((5, 2), np.nan, np.float32)
    scores[:, 0] = 1
    assert best_margin(np.zeros((5, 2), np.float32), scores) == MARGINS[-1]
    assert mean_metric(np.array([np.nan])).n == 0


def test_the_map_is_validated_on_queries_that_it_was_not_measured_on() -> None:
    assert fit_scorer(PluginConfig(kind="map"), *with_draws(complete(240))).metrics["validation.map"].value == 1.0
    chance = np.random.default_rng(0).random((240, 3)).astype(np.float32)
    data = complete(240)
    luck = replace(data, table=replace(data.table, scores=chance))
    assert fit_scorer(PluginConfig(kind="map"), *with_draws(luck)).metrics["validation.map"].value < 0.6


def test_a_sample_that_is_cut_keeps_each_querys_row(monkeypatch: pytest.MonkeyPatch) -> None:
    data = complete(240)
    whole = fit_scorer(PluginConfig(kind="soft_map"), *with_draws(data)).choice
    assert whole["rows"].tolist() == data.decided
    monkeypatch.setattr("coe.training.scorer_fit.MAX_SAMPLE", 100)
    cut = fit_scorer(PluginConfig(kind="soft_map"), *with_draws(data)).choice
    assert cut["sample"].shape == (100, 3)
    pairs = {(*quality, row) for quality, row in zip(whole["sample"].tolist(), whole["rows"].tolist(), strict=True)}
    kept = {(*quality, row) for quality, row in zip(cut["sample"].tolist(), cut["rows"].tolist(), strict=True)}
    assert kept <= pairs


def test_a_wanted_kind_is_fitted_and_an_unknown_one_named() -> None:
    found = fit_scorer(PluginConfig.model_validate({"kind": "soft_map"}), *with_draws(complete(120)))
    assert found.spec.kind == "soft_map"
    assert found.metrics["validation.soft_map"].value > 0.9
    with pytest.raises(ConfigError, match="unknown kind 'nearest'"):
        fit_scorer(PluginConfig(kind="nearest"), *with_draws(complete(120)))
