"""Whom the map believes to be better, and who serves of those that are equal."""

from __future__ import annotations

import numpy as np
import pytest

from coe.router.quality import BROAD, CAUTION, CHEAPER, EQUAL, UNPROVEN, QualityMatrix, cautious_quality, reference_of
from coe.router.types import FloatArray

ONE = np.ones(4, np.float32)


def evidence_of(quality: FloatArray, stderr: float = 0.08, count: float = 16) -> QualityMatrix:
    own = np.asarray(quality, dtype=np.float32)
    shape = np.ones_like(own)
    return QualityMatrix(own, stderr * shape, count * shape, ONE / 4, ONE, shape, shape)


def served(evidence: QualityMatrix, *cost: float) -> list[int]:
    return cautious_quality(evidence, np.broadcast_to(np.float32(cost), evidence.quality.shape)).argmax(axis=1).tolist()


BIG_AND_CODER = np.array([[0.75, 0.83], [0.8, 0.3], [0.8, 0.3], [0.8, 0.3]])
ERROR = 0.08 * 2**0.5
"""Standard error of a lead of `evidence_of`."""


def test_a_better_and_free_expert_takes_its_category() -> None:
    """A free coder of 0.83 and a big model of 0.75 at a price, sixteen answers each."""
    assert served(evidence_of(BIG_AND_CODER), 1.0, 0.0) == [1, 0, 0, 0]
    assert served(evidence_of(BIG_AND_CODER, count=BROAD - 1), 1.0, 0.0) == [0, 0, 0, 0]  # hardly graded


def test_a_specialist_of_64_probes_takes_its_categories() -> None:
    quality = np.array([[0.83, 0.96], [0.83, 0.96], [0.83, 0.4], [0.83, 0.4]])
    assert served(evidence_of(quality, stderr=0.04, count=64), 1.0, 3.0) == [1, 1, 0, 0]


@pytest.mark.parametrize(("lead", "taker"), [(0.95, 0), (1.05, 1)])
def test_a_lead_counts_from_half_of_its_error_on(lead: float, taker: int) -> None:
    quality = np.array([[0.6, 0.6 + lead * CAUTION * ERROR], [0.6, 0.2], [0.6, 0.2], [0.6, 0.2]])
    assert served(evidence_of(quality), 1.0, 1.0)[0] == taker


@pytest.mark.parametrize("short_of", [-0.9 * EQUAL, 0.0, 0.9 * EQUAL, 1.1 * EQUAL])
@pytest.mark.parametrize("price", [0.0, CHEAPER - 0.01, CHEAPER + 0.01])
def test_of_equal_experts_the_cheaper_serves(short_of: float, price: float) -> None:
    quality = np.array([[0.7, 0.7 - short_of], [0.6, 0.2], [0.6, 0.2], [0.6, 0.2]])
    is_taken = short_of < EQUAL and price < CHEAPER
    assert served(evidence_of(quality), 1.0, price)[0] == int(is_taken)


def test_the_cheapest_of_several_equals_serves_and_its_quality_is_hardly_raised() -> None:
    quality = np.array([[0.7, 0.698, 0.696], [0.6, 0.2, 0.2], [0.6, 0.2, 0.2], [0.6, 0.2, 0.2]])
    evidence, cost = evidence_of(quality), np.broadcast_to(np.float32([3.0, 1.0, 0.5]), (4, 3))
    found = cautious_quality(evidence, cost)
    assert found.argmax(axis=1).tolist() == [2, 0, 0, 0]
    assert found == pytest.approx(evidence.quality, abs=EQUAL + 2 * UNPROVEN)


def test_nobody_who_was_measured_worse_by_more_than_equal_serves_because_it_is_cheap() -> None:
    """Random maps, of which many are cheap and worse."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        evidence = evidence_of(rng.uniform(0.2, 0.9, (4, 5)), stderr=float(rng.uniform(0.001, 0.2)))
        cost = np.broadcast_to(rng.choice([0.0, 0.1, 1.0, 5.0], 5).astype(np.float32), (4, 5))
        priced, rows = cautious_quality(evidence, cost).argmax(axis=1), np.arange(4)
        worst = evidence.quality[rows, reference_of(evidence)] - EQUAL
        assert (evidence.quality[rows, priced] >= worst).all()
