"""Whom the map believes to be better: a lead has to be proven, unless it comes cheaper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.router.quality import BROAD, CAUTION, CHEAPER, QualityMatrix, cautious_quality, reference_of
from coe.router.types import FloatArray

ONE = np.ones(4, np.float32)


def evidence_of(quality: FloatArray, stderr: float = 0.08, count: float = 16) -> QualityMatrix:
    own = np.asarray(quality, dtype=np.float32)
    shape = np.ones_like(own)
    return QualityMatrix(own, stderr * shape, count * shape, ONE / 4, ONE, shape, shape)


def served(evidence: QualityMatrix, *cost: float) -> list[int]:
    return cautious_quality(evidence, np.broadcast_to(np.float32(cost), evidence.quality.shape)).argmax(axis=1).tolist()


BIG_AND_CODER = np.array([[0.75, 0.83], [0.8, 0.3], [0.8, 0.3], [0.8, 0.3]])


def test_a_better_and_free_expert_takes_its_category_though_the_lead_is_within_the_error() -> None:
    evidence = evidence_of(BIG_AND_CODER)
    assert served(evidence, 1.0, 0.0) == [1, 0, 0, 0]
    assert served(evidence, 1.0, CHEAPER - 0.01) == [1, 0, 0, 0]
    for price in (CHEAPER + 0.01, 1.0, 2.0):  # as dear or dearer: it would have to prove its lead
        assert served(evidence, 1.0, price) == [0, 0, 0, 0]
    assert served(evidence_of(BIG_AND_CODER, count=BROAD - 1), 1.0, 0.0) == [0, 0, 0, 0]  # hardly graded


def test_a_dearer_expert_takes_a_category_only_by_a_lead_beyond_the_error() -> None:
    for lead, taker in ((0.9, 0), (1.1, 1)):
        quality = np.array([[0.6, 0.6 + lead * CAUTION * 0.08 * 2**0.5], [0.6, 0.2], [0.6, 0.2], [0.6, 0.2]])
        assert served(evidence_of(quality), 1.0, 3.0)[0] == taker


def test_of_experts_that_are_equal_over_all_the_cheapest_is_the_one_to_beat() -> None:
    quality = np.array([[0.70, 0.68, 0.5], [0.70, 0.69, 0.5], [0.71, 0.70, 0.5], [0.70, 0.69, 0.5]])
    evidence = evidence_of(quality)
    cost = np.broadcast_to(np.float32([3.0, 1.0, 0.1]), quality.shape)
    assert (reference_of(evidence), reference_of(evidence, cost)) == (0, 1)
    assert served(evidence, 3.0, 1.0, 0.1) == [1, 1, 1, 1]  # though the dear one seems better in each
    assert served(evidence, 1.0, 1.0, 1.0) == [0, 0, 0, 0]
    assert served(evidence_of(quality, stderr=0.001), 3.0, 1.0, 0.1) == [0, 0, 0, 0]  # no longer equal


def test_who_serves_is_relieved_by_a_cheaper_one_that_is_as_good() -> None:
    evidence = replace(evidence_of(np.full((4, 2), 0.7)), serving=np.zeros(4, np.float32))
    assert served(evidence, 1.0, 0.5) == [1, 1, 1, 1]
    assert served(evidence, 1.0, 1.0) == [0, 0, 0, 0]


def test_a_cheaper_expert_is_ahead_by_as_much_as_was_measured() -> None:
    found = cautious_quality(evidence_of(BIG_AND_CODER), np.float32([[1.0, 0.0]] * 4))
    assert found[0, 1] - found[0, 0] == pytest.approx(0.08, abs=1e-4)
    assert found[1:] == pytest.approx(evidence_of(BIG_AND_CODER).quality[1:])


def test_nobody_who_was_measured_worse_serves_because_it_is_cheap() -> None:
    """Beyond the error of the means, that is: random maps, of which many are cheap and worse."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        evidence = evidence_of(rng.uniform(0.2, 0.9, (4, 5)), stderr=float(rng.uniform(0.001, 0.2)))
        cost = np.broadcast_to(rng.choice([0.0, 0.1, 1.0, 5.0], 5).astype(np.float32), (4, 5))
        plain, priced = cautious_quality(evidence).argmax(axis=1), cautious_quality(evidence, cost).argmax(axis=1)
        if reference_of(evidence) == reference_of(evidence, cost):
            rows = np.arange(4)
            assert (evidence.quality[rows, priced] >= evidence.quality[rows, plain]).all()
            assert (cost[rows, priced] <= cost[rows, plain]).all()
