"""The ceiling on synthetic tables where it is known: everything, and nothing."""

import numpy as np
import pytest

from benchmarks.ceiling_cases import Case, Prompts
from benchmarks.routing_ceiling import (
    KNOWN,
    closed_shares,
    draw_luck,
    forest,
    hindsight,
    predict,
    ridge,
    validated,
)

EXPERTS, OTHERS = 3, 5


def case_of(name, others_of, rng, n_fit=200, n_test=200):
    """A table whose experts are right on half of the prompts; `others_of` gives the other models' scores."""
    parts = []
    for side, n in (("fit", n_fit), ("test", n_test)):
        scores = (rng.random((n, EXPERTS)) < 0.5).astype(np.float64)
        blocks = {
            "embedding": rng.normal(size=(n, 8)),
            "labels": np.eye(2)[rng.integers(2, size=n)],
            "others": others_of(scores, rng),
            "related": np.zeros((n, 0)),
        }
        parts.append(Prompts(tuple(f"{side}-{i}" for i in range(n)), scores, blocks))
    return Case(name, "synthetic", *parts)


def telling(scores, rng):
    """Other models whose scores determine the experts': each the exclusive or of two experts, or one of them."""
    first, second, third = scores.T
    return np.stack([first, first != second, third, first != third, second], axis=1).astype(np.float64)


def silent(scores, rng):
    return (rng.random((len(scores), OTHERS)) < 0.5).astype(np.float64)


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


def closed(case, known, rng):
    found = predict(case, KNOWN[known], 0, {"ridge": ridge, "forest": forest})
    arms = {case.name: {"validated": validated(found).tested, "hindsight": hindsight(found).tested}}
    return closed_shares([case], arms, is_test=True, rng=rng)[case.name]


def test_everything_is_closed_where_other_models_tell(rng):
    case = case_of("telling", telling, rng)
    for known in ("other models", "all"):
        shares = closed(case, known, rng)
        assert shares["validated"].value > 0.97
        assert shares["hindsight"].value >= shares["validated"].value
    assert abs(closed(case, "true labels", rng)["validated"].value) < 0.2


def test_nothing_is_closed_where_they_are_independent(rng):
    case = case_of("silent", silent, rng, n_test=2000)
    assert abs(closed(case, "all", rng)["validated"].value) < 0.15


def test_luck_of_the_draw_is_told_from_what_repeats(rng):
    certain = (rng.random((2000, EXPERTS)) < 0.5).astype(np.float64)
    gap, luck = draw_luck(certain, rng)
    assert gap == pytest.approx(1 - 0.5**EXPERTS - 0.5, abs=0.05)
    assert luck == pytest.approx(0.0)
    coins = rng.binomial(10, 0.5, size=(2000, EXPERTS)) / 10
    gap, luck = draw_luck(coins, rng)
    assert 0.7 < luck / gap < 1.1  # the whole gap; ten draws of each cannot tell so exactly


def test_tables_of_one_source_are_resampled_together(rng):
    """A table whose prompts lie inside another's has the share of its own prompts, and the same draws as itself."""
    case = case_of("whole", telling, rng)
    keep = slice(0, 100)
    inner = Prompts(case.test.ids[keep], case.test.scores[keep], {k: v[keep] for k, v in case.test.blocks.items()})
    part = Case("part", "synthetic", case.fit, inner)
    chosen = case.test.scores.max(axis=1) * 0.5 + case.test.scores[:, case.single] * 0.5
    arms = {"whole": {"half": chosen}, "part": {"half": chosen[keep]}}
    shares = closed_shares([case, part], arms, is_test=True, rng=rng)
    for name in ("whole", "part"):
        assert shares[name]["half"].value == pytest.approx(0.5)
        np.testing.assert_allclose(shares[name]["half"].draws, 0.5)
