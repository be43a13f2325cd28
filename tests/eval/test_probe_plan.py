"""Places of probes, and how often the whole procedure finds a specialist or falls for luck."""

from __future__ import annotations

import numpy as np

from benchmarks.probes import one_run
from coe.eval.probe_plan import Bars, chances_of_luck, run_plan, simulate_experts
from coe.router.quality import QualityMatrix, cautious_quality, reference_of
from coe.training.onboarding import MAX_LUCK, with_newcomer

RUNS = 100


def test_64_probes_find_a_specialist_in_nine_of_ten_runs() -> None:
    """0.95 against 0.75 in three of sixteen categories, 0.5 in the others, 40 probes of each category."""
    found, fooled = np.mean([one_run(seed, 40, 64, 0.5) for seed in range(RUNS)], axis=0)
    assert found >= 0.9
    assert fooled <= 0.02


def test_an_expert_that_is_nowhere_better_is_given_a_category_at_the_stated_rate() -> None:
    _, fooled = np.mean([one_run(seed, 40, 64, None) for seed in range(RUNS)], axis=0)
    assert 0.02 <= fooled <= MAX_LUCK + 0.05  # two standard errors of 100 runs


def test_probes_go_where_the_expert_is_better() -> None:
    truth = np.full((1, 16), 0.5)
    truth[0, 11] = 1.0
    bars = Bars(np.full(16, 0.75), np.zeros(16), np.full(16, 30.0))
    _, counts = run_plan(bars, 64, simulate_experts(truth, np.random.default_rng(0)))
    assert counts.sum() == 64
    assert counts[0].argmax() == 11
    assert counts[0].min() == 1  # every category was looked at


def test_nothing_is_asked_beyond_what_there_is() -> None:
    bars = Bars(np.full(3, 0.5), np.zeros(3), np.array([2.0, 0.0, 7.0]))
    sums, counts = run_plan(bars, 64, simulate_experts(np.ones((1, 3)), np.random.default_rng(0)))
    np.testing.assert_array_equal(counts, [[2, 0, 7]])
    luck = chances_of_luck(bars, 64, sums, counts)
    assert luck[1] == 1.0
    assert luck[2] < MAX_LUCK < luck[0]


def test_a_dearer_expert_has_to_be_better_by_its_price() -> None:
    """The bar is what counts: the same answers that win at 0.5 win nothing at 0.95."""
    answers = np.array([[19.0]]), np.array([[20.0]])
    cheap, dear = (Bars(np.array([level]), np.zeros(1), np.array([20.0])) for level in (0.5, 0.95))
    assert chances_of_luck(cheap, 20, *answers)[0] < 0.01
    assert chances_of_luck(dear, 20, *answers)[0] > MAX_LUCK


def test_what_is_not_proven_is_not_taken_even_by_the_best_expert_on_average() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        quality, stderr = rng.uniform(0.5, 0.9, (6, 3)), rng.uniform(0.0, 0.1, (6, 3))
        one = np.ones(6, np.float32)
        joined = QualityMatrix(quality, stderr, rng.integers(1, 30, (6, 3)), one / 6, one, quality, quality)
        known = joined.columns([0, 1])
        cost = rng.choice([0.0, 1.0, 3.0], (6, 3))
        before = cautious_quality(known, cost[:, :2]).argmax(axis=1)
        after = cautious_quality(with_newcomer(joined, before, np.arange(6) < 2, cost), cost).argmax(axis=1)
        assert after[2:].tolist() == before[2:].tolist()


def test_an_expert_that_was_mostly_asked_where_it_is_good_is_not_compared_by_that_alone() -> None:
    """16 answers in one category, one in each of the others, as `coe train` finds the probes of a specialist."""
    one = np.ones(6, np.float32)
    quality = np.column_stack([np.full(6, 0.75), [0.95, 1.0, 0.2, 0.2, 0.2, 0.2]])
    counts = np.column_stack([np.full(6, 16), [16, 1, 1, 1, 1, 1]])
    evidence = QualityMatrix(quality, 0.05 * np.ones((6, 2)), counts, one / 6, one, quality, quality)
    assert reference_of(evidence) == 0
    assert cautious_quality(evidence).argmax(axis=1).tolist() == [1, 0, 0, 0, 0, 0]
