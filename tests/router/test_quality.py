"""Whom the map believes to be better: a lead has to be proven, unless it comes cheaper."""

from __future__ import annotations

import numpy as np
import pytest

from coe.router.quality import BROAD, CAUTION, CAUTION_CHEAPER, CHEAPER, QualityMatrix, cautious_quality, reference_of
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


def test_a_better_and_free_expert_takes_its_category_though_the_lead_is_within_the_error() -> None:
    evidence = evidence_of(BIG_AND_CODER)
    assert served(evidence, 1.0, 0.0) == [1, 0, 0, 0]
    assert served(evidence, 1.0, CHEAPER - 0.01) == [1, 0, 0, 0]
    for price in (CHEAPER + 0.01, 1.0, 2.0):  # as dear or dearer: it would have to prove its lead
        assert served(evidence, 1.0, price) == [0, 0, 0, 0]
    assert served(evidence_of(BIG_AND_CODER, count=BROAD - 1), 1.0, 0.0) == [0, 0, 0, 0]  # hardly graded


@pytest.mark.parametrize(("price", "caution"), [(3.0, CAUTION), (0.0, CAUTION_CHEAPER)])
def test_an_expert_takes_a_category_only_by_a_lead_that_is_proven_for_its_price(price: float, caution: float) -> None:
    for lead, taker in ((0.95, 0), (1.05, 1)):
        quality = np.array([[0.6, 0.6 + lead * caution * ERROR], [0.6, 0.2], [0.6, 0.2], [0.6, 0.2]])
        assert served(evidence_of(quality), 1.0, price)[0] == taker


def test_a_lead_of_few_answers_over_a_better_expert_is_luck_however_cheap() -> None:
    """Sixteen answers each: half of all truly worse experts would serve somewhere, if being ahead were enough."""
    quality = np.array([[0.74, 0.72], [0.70, 0.73], [0.75, 0.70], [0.72, 0.68]])
    assert served(evidence_of(quality), 1.0, 0.0) == [0, 0, 0, 0]
    assert served(evidence_of(quality, stderr=0.01), 1.0, 0.0) == [0, 1, 0, 0]


def test_nobody_who_was_measured_worse_serves_because_it_is_cheap() -> None:
    """Random maps, of which many are cheap and worse."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        evidence = evidence_of(rng.uniform(0.2, 0.9, (4, 5)), stderr=float(rng.uniform(0.001, 0.2)))
        cost = np.broadcast_to(rng.choice([0.0, 0.1, 1.0, 5.0], 5).astype(np.float32), (4, 5))
        priced, rows = cautious_quality(evidence, cost).argmax(axis=1), np.arange(4)
        assert (evidence.quality[rows, priced] >= evidence.quality[rows, reference_of(evidence)]).all()
