from __future__ import annotations

import numpy as np
import pytest

from coe.router.quality import QualityMatrix
from coe.router.reading.uncertainty import MAX_REFERENCE, Uncertainty, apply_temperature
from coe.router.section import PluginConfig
from coe.router.types import Metric
from coe.training.calibrate import (
    MIN_OUTSIDE,
    OOD_WEIGHTS,
    distance_to_others,
    error_auroc,
    fit_temperature,
    fit_uncertainty,
)
from coe.training.fit import one_thread
from coe.training.stage_one import FitRequest, LabelledEmbeddings, fit_stage_one, stage_one_metrics


def test_the_temperature_that_spoilt_probabilities_is_found() -> None:
    rng = np.random.default_rng(0)
    true = rng.dirichlet([0.5] * 4, size=4000).astype(np.float32)
    labels = np.array([rng.choice(4, p=row / row.sum()) for row in true.astype(np.float64)])
    assert fit_temperature(true, labels) == pytest.approx(1.0, abs=0.08)
    assert fit_temperature(apply_temperature(true, 0.5), labels) == pytest.approx(2.0, abs=0.16)


def test_auroc_by_hand() -> None:
    scores = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    assert error_auroc(scores, np.array([True, True, False, False])) == 0.75
    assert error_auroc(np.ones(4, np.float32), np.array([True, True, False, False])) == 0.5
    assert error_auroc(scores, np.ones(4, dtype=bool)) == 0.5


def test_a_row_is_not_its_own_neighbour() -> None:
    rows = np.eye(6, dtype=np.float32)
    np.testing.assert_allclose(distance_to_others(rows, rows), 1.0)
    np.testing.assert_allclose(distance_to_others(rows, rows[:5])[[0, 5]], [1.0, 1.0])
    twice = np.repeat(rows[:1], 6, axis=0)
    np.testing.assert_allclose(distance_to_others(twice, twice), 0.0, atol=1e-6)


@pytest.mark.parametrize("is_far_wrong", [True, False])
def test_distance_counts_when_it_tells_wrong_from_right(is_far_wrong: bool) -> None:
    rng = np.random.default_rng(1)
    near = np.array([1.0] + [0.0] * 7) + 0.05 * rng.standard_normal((300, 8))
    far = rng.standard_normal((60, 8))
    rows = np.vstack([near, far])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    confidence = rng.uniform(0.5, 1.0, 360)
    right = np.arange(360) < 300 if is_far_wrong else confidence > 0.6
    probs = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
    state = fit_uncertainty(
        reference=rows[:300],
        others=rows[300:],
        probs=probs,
        is_correct=right,
        temperature=1.0,
        rng=rng,
    )
    weight = float(state["weight"][0])
    assert weight in OOD_WEIGHTS
    assert (weight > 0) is is_far_wrong
    Uncertainty.from_state(state, alpha=0.1)


def one_kind(rng: np.random.Generator, others: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries of one cloud, and others that differ from it in one direction only, less than the cloud's own spread."""
    rows = rng.standard_normal((400 + others, 8)) * ([1.0] * 7 + [0.2])
    rows[400:, 7] += 2
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:400].astype(np.float32), rows[400:].astype(np.float32)


def fitted_on(count: int) -> dict[str, np.ndarray]:
    """The state from 400 queries of one kind, and so many of `general`, of all of which the classifier is as sure."""
    inside, others = one_kind(np.random.default_rng(3), count)
    n = len(inside) + len(others)
    return fit_uncertainty(
        reference=inside,
        others=others,
        probs=np.tile(np.float32([0.9, 0.1]), (n, 1)),
        is_correct=np.arange(n) < len(inside),
        temperature=1.0,
        rng=np.random.default_rng(0),
    )


def test_queries_of_general_teach_what_belongs_to_no_category() -> None:
    fitted = Uncertainty.from_state(fitted_on(60), alpha=0.02)
    assert fitted.outside is not None
    unsure = [
        fitted.score(rows, np.tile(np.float32([0.9, 0.1]), (len(rows), 1))) > fitted.threshold
        for rows in one_kind(np.random.default_rng(4), 200)
    ]
    assert unsure[0].mean() < 0.1
    assert unsure[1].mean() > 0.9


def test_a_few_queries_of_general_teach_nothing() -> None:
    assert "outside" not in fitted_on(MIN_OUTSIDE - 1)


def test_a_large_reference_is_thinned() -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((MAX_REFERENCE + 50, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    n = len(rows)
    state = fit_uncertainty(
        reference=rows,
        others=rows[:0],
        probs=np.full((n, 2), 0.5, np.float32),
        is_correct=np.ones(n, dtype=bool),
        temperature=1.0,
        rng=rng,
    )
    assert state["reference"].shape == (MAX_REFERENCE, 4)
    assert state["reference"].dtype == np.float16
    assert state["held_out_distances"].shape == (n,)


CENTRES = np.eye(4) * 2.0
N_GENERAL = 0.1


def draw_queries(rng: np.random.Generator, n: int) -> LabelledEmbeddings:
    """Four overlapping clouds in eight dimensions, and a tenth that lies between them and belongs to `general`."""
    labels = np.where(rng.random(n) < N_GENERAL, 4, rng.integers(0, 4, n))
    centres = np.vstack([CENTRES, np.zeros(4)])[labels]
    rows = np.hstack([centres, np.zeros((n, 4))]) + 0.8 * rng.standard_normal((n, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return LabelledEmbeddings(rows.astype(np.float32), labels.astype(np.int64))


def stage_one_request(inverse_l2: float) -> FitRequest:
    """A logistic classifier of four categories."""
    cells, row = np.zeros((5, 1), np.float32), np.zeros(5, np.float32)
    return FitRequest(
        encoder_config=PluginConfig(kind="hashing"),
        classifier=PluginConfig.model_validate({"kind": "logistic", "inverse_l2": inverse_l2}),
        scorer=PluginConfig(kind="map"),
        categories=("a", "b", "c", "d"),
        experts=("one",),
        evidence=QualityMatrix(cells, cells, cells, row, row, cells, cells),
        alpha=0.1,
        data_fingerprints={},
    )


def test_nothing_is_calibrated_on_what_it_was_fitted_on() -> None:
    """Labels are drawn at random in 64 dimensions, so a classifier knows its own queries and no other. Calibrated on
    those it would be sure and right; out of fold it is right as often as chance, and the temperature says so."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((160, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = np.repeat(np.arange(4), 40)
    with one_thread():
        stage = fit_stage_one(LabelledEmbeddings(rows, labels), stage_one_request(1000.0), rng)
    own = stage.classifier.predict_proba(rows).probs
    assert (own.argmax(axis=1) == labels).mean() > 0.95
    assert stage.temperature > 2.0
    assert stage.uncertainty["held_out_correct"].mean() < 0.5
    assert (stage.unseen.argmax(axis=1) == labels).mean() < 0.5
    only_general = LabelledEmbeddings(rows[:5], np.full(5, 4))
    assert stage_one_metrics(stage, only_general, 0.1)["macro_f1"] == Metric(value=0.0, n=0)


def test_the_promise_holds_for_fitted_routers() -> None:
    """Classifier, temperature, weight and threshold from 400 queries each, measured on 1,500 new ones."""
    request = stage_one_request(10.0)
    rng = np.random.default_rng(21)
    figures: dict[float, list[tuple[float, float]]] = {0.05: [], 0.1: [], 0.2: []}
    errors = []
    for _ in range(12):
        with one_thread():
            stage = fit_stage_one(draw_queries(rng, 400), request, rng)
        test = draw_queries(rng, 1500)
        for alpha, measured in figures.items():
            found = stage_one_metrics(stage, test, alpha)
            measured.append((found["error_when_sure"].value, found["coverage"].value))
        errors.append(found["ece"].value)
    coverages = []
    for alpha, measured in figures.items():
        error, coverage = np.array(measured).T
        assert error.mean() <= alpha
        coverages.append(coverage.mean())
    assert coverages == sorted(coverages)
    assert 0.2 < coverages[1] < 0.95
    assert np.mean(errors) < 0.03
