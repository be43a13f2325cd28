import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.training.expert_map import (
    GUESS_PRIOR,
    GUESS_VARIANCE,
    measure_quality,
    shrink,
    shrink_with_guesses,
    without_difficulty,
)
from coe.training.types import OutcomeTable
from tests.outcome_tables import scored_table


def table(scores, categories, *, tokens=None, texts=None) -> OutcomeTable:
    n, m = np.shape(scores)
    fields = {} if tokens is None else {"output_tokens": np.asarray(tokens, np.float32)}
    names = [f"e{j}" for j in range(m)]
    return scored_table(scores, categories, names, texts=texts or ("abcd" * 3,) * n, **fields)


def test_shrinkage_reference_values():
    # One expert, two cells of four answers: means 1.0 and 0.0, no variance inside (floored at 1e-4), much between.
    sums, squares, counts = np.array([[4.0], [0.0]]), np.array([[4.0], [0.0]]), np.array([[4.0], [4.0]])
    quality, stderr = shrink(sums, squares, counts)
    # between = var([1, 0]) - 1e-4/4 = 0.499975, L = 1e-4/0.499975 -> clipped to 1: (4 * mean + 0.5) / 5
    assert quality[:, 0] == pytest.approx([0.9, 0.1])
    # 1e-4 / (4 + 1), and a fifth squared of the error of the mean, (1e-4/4 + 1e-4/1) / 2
    assert stderr[:, 0] == pytest.approx([np.sqrt(1e-4 * (1 / 5 + 1.25 / 2 / 25))] * 2)


def test_a_cell_of_few_answers_says_little_of_the_experts_mean():
    # 9 of 20 right, in cells that differ by no more than chance; their plain mean is a third.
    sums, counts = np.array([[8.0], [1.0], [0.0], [0.0]]), np.array([[16.0], [2.0], [2.0], [0.0]])
    quality, stderr = shrink(sums, sums, counts)
    assert quality[3, 0] == pytest.approx(0.45, abs=0.01)
    pooled = (9 - 16 / 4 - 2 / 4) / 17  # variance within the cells
    assert stderr[3, 0] == pytest.approx(np.sqrt(pooled * (1 / 200 + 1 / 20)), rel=0.05)


def test_cells_that_do_not_differ_are_pooled():
    # Four cells of four yes/no answers that differ by no more than chance: the prior gets its largest weight, 200.
    sums, counts = np.array([[3.0], [1.0], [2.0], [2.0]]), np.full((4, 1), 4.0)
    quality, _ = shrink(sums, sums, counts)
    assert quality[:, 0] == pytest.approx([103 / 204, 101 / 204, 0.5, 0.5])


def test_an_unmeasured_cell_takes_the_experts_mean_and_an_unmeasured_expert_knows_nothing():
    scores = [[1.0, np.nan], [1.0, np.nan], [0.0, np.nan], [0.0, np.nan]]
    found = measure_quality(table(scores, ["code", "code", "facts", "facts"]), ("code", "facts", "chat"))
    assert found.quality[2, 0] == pytest.approx(0.5)
    assert found.stderr[2, 0] > found.stderr[0, 0]
    assert found.quality[:, 1].tolist() == [0.0] * 4
    assert found.stderr[:, 1].tolist() == [0.5] * 4
    assert found.count[:, 0].tolist() == [2, 2, 0, 0]


def test_of_a_category_without_grades_the_others_say_little_but_of_general_much():
    """The others do not differ by more than chance: as much as 200 answers would say of `general`, of a new category as
    much as 8 of the most variance, and as 8 of its level."""
    scores = np.tile([[1.0], [0.0]], (20, 1))
    found = measure_quality(table(scores, ["code"] * 20 + ["facts"] * 20), ("code", "facts", "new"))
    of_mean = 220 / 20 / 2 / 200  # two cells of weight 20 / 220
    within = found.stderr[0, 0] ** 2 / (1 / 220 + (200 / 220) ** 2 * of_mean)
    assert found.quality[2:, 0] == pytest.approx([0.5, 0.5])
    assert found.stderr[2:, 0] ** 2 == pytest.approx([2 * GUESS_VARIANCE / GUESS_PRIOR, within * (1 / 200 + of_mean)])


def test_a_category_without_grades_is_known_by_its_own_answers_and_teaches_the_others_nothing():
    """The posterior of the normal model, by its covariance matrix (Gelman et al. 2013, 3.5): both experts are 0.5
    elsewhere, the first is right in 2 of 8 answers there, the second was not tried."""
    graded = np.array([[10.0, 10.0], [10.0, 10.0]])
    sums, counts = np.vstack([graded, [2.0, 0.0]]), np.vstack([2 * graded, [8.0, 0.0]])
    quality, stderr = shrink_with_guesses(sums, sums, counts, np.array([False, False, True]))
    assert quality[:2] == pytest.approx(shrink(graded, graded, 2 * graded)[0])
    within = (GUESS_VARIANCE + 2 - 8 / 16) / 8
    prior = within / GUESS_PRIOR * (np.eye(2) + 1)
    gain = prior[:, 0] / (prior[0, 0] + within / 8)
    assert quality[2] == pytest.approx(0.5 + gain * (2 / 8 - 0.5))
    assert stderr[2] ** 2 == pytest.approx(np.diag(prior) - gain * prior[0])


def test_a_prompt_that_all_answered_is_compared_with_its_own_mean():
    scores = np.array([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0], [np.nan, 1.0, np.nan]], np.float32)
    relative, difficulty = without_difficulty(scores, np.array([0, 0, 0]), 1)
    # levels 0.5, 1.0 and, of one answer, 1.0: one row, so nothing is shrunk; the empty row takes the mean of rows
    assert difficulty == pytest.approx([2.5 / 3, 2.5 / 3])
    assert relative[:2] == pytest.approx(np.array([[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]))
    assert relative[2, 1] == pytest.approx(1 - 2.5 / 3)
    assert np.isnan(relative[2, [0, 2]]).all()


def test_an_expert_without_any_score_leaves_the_others_paired():
    scores = np.array([[1.0, 0.0, np.nan], [0.0, 1.0, np.nan]], np.float32)
    relative, _ = without_difficulty(scores, np.array([0, 0]), 1)
    assert relative[:, :2] == pytest.approx(np.array([[0.5, -0.5], [-0.5, 0.5]]))


def test_pairing_finds_what_difficulty_hides():
    """`b` is right on 0.05 more of every prompt's chance; prompts differ far more than experts do."""
    rng = np.random.default_rng(3)
    hard = rng.random((400, 1))
    scores = np.clip(hard + np.array([[0.0, 0.05]]) + 0.02 * rng.standard_normal((400, 2)), 0, 1)
    found = measure_quality(table(scores, ["code", "facts"] * 200), ("code", "facts"))
    lead = found.quality[:2, 1] - found.quality[:2, 0]
    assert lead == pytest.approx([0.05, 0.05], abs=0.01)
    assert found.stderr[:2].max() < 0.002  # of unpaired scores it would be 0.02


def test_an_expert_that_was_probed_on_a_few_prompts_leaves_the_others_paired():
    """As `coe experts probe` leaves a table: most prompts have no score of the newcomer, which is worse than all."""
    rng = np.random.default_rng(5)
    hard = rng.random((200, 1))
    skill = np.array([[0.0, 0.05, 0.1, -0.4]])
    scores = hard + skill + 0.02 * rng.standard_normal((200, 4))
    categories = ["code", "facts"] * 100
    alone = measure_quality(table(scores[:, :3], categories), ("code", "facts"))
    probed = scores.copy()
    probed[40:, 3] = np.nan
    found = measure_quality(table(probed, categories), ("code", "facts"))
    lead, before = (each.quality[:2, 1:3] - each.quality[:2, :1] for each in (found, alone))
    assert lead == pytest.approx(before, abs=1e-3)
    assert found.stderr[:2, :3].max() < 0.005  # compared with the mean of its category it would be 0.03
    newcomer = found.quality[:2, 3] - found.quality[:2, 0]
    assert newcomer == pytest.approx([-0.4, -0.4], abs=0.02)


def test_easy_prompts_of_a_few_experts_are_no_merit_of_theirs():
    """`a` and `b` are alike; `b` and `c` were also asked easier prompts."""
    rng = np.random.default_rng(6)
    hard = np.concatenate([0.3 * rng.random((60, 1)), 0.7 + 0.2 * rng.random((60, 1))])
    scores = hard + np.array([[0.0, 0.0, 0.1]]) + 0.01 * rng.standard_normal((120, 3))
    scores[60:, 0] = np.nan
    found = measure_quality(table(scores, ["code"] * 120), ("code",))
    assert found.quality[0, 1] - found.quality[0, 0] == pytest.approx(0.0, abs=0.01)
    assert found.quality[0, 2] - found.quality[0, 0] == pytest.approx(0.1, abs=0.01)


def test_other_categories_count_towards_general_and_mass_follows_the_prompts():
    found = measure_quality(table([[1.0]] * 4, ["code", "code", "general", "poetry"]), ("code",))
    assert found.count[:, 0].tolist() == [2, 2]
    assert found.mass == pytest.approx([0.5, 0.5])
    assert found.prompt_tokens.tolist() == [3.0, 3.0]


def test_tokens_are_means_of_the_known():
    found = measure_quality(table([[1.0]] * 3, ["code"] * 3, tokens=[[10], [np.nan], [20]]), ("code",))
    assert found.output_tokens[:, 0].tolist() == [15.0, 15.0]


@given(st.data())
def test_quality_lies_between_the_cell_mean_and_the_experts_mean(data):
    n = data.draw(st.integers(2, 30))
    scores = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    categories = data.draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=n, max_size=n))
    found = measure_quality(table([[s] for s in scores], categories), ("a", "b", "c"))
    means = {c: np.mean([s for s, k in zip(scores, categories, strict=True) if k == c]) for c in set(categories)}
    centre = found.quality[3, 0]  # of `general`, which nobody asked
    assert min(means.values()) - 1e-5 <= centre <= max(means.values()) + 1e-5
    for row, name in enumerate(("a", "b", "c")):
        low, high = sorted((means.get(name, centre), centre))
        assert low - 1e-5 <= found.quality[row, 0] <= high + 1e-5
