"""The draw by which a policy explores follows from its seed."""

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coe.router.policy.map_solver import MapSolution
from coe.router.policy.preference import Preference
from coe.router.policy.solved_policy import FIRST_SEED, SolvedPolicy, action_distribution, distribution, position_of
from tests.router.exploring import explored

QUALITY = np.array([0.2, 0.9, 0.4], np.float32)


def policy(share: float = 0.0, expert: int = 1) -> SolvedPolicy:
    return SolvedPolicy(MapSolution(np.array([expert]), 0.0, {}, ()), exploration=explored(share))


def test_without_exploration_nothing_is_drawn():
    odds = action_distribution(policy(), 0, [0, 1, 2], QUALITY)
    assert odds.certain is not None
    assert (odds.certain.expert, odds.probs, odds.certain.seed) == (1, (0.0, 1.0, 0.0), None)
    assert action_distribution(policy(0.8), 0, [0, 1, 2], QUALITY).certain is None


@given(st.integers(0, 2**54 - 2), st.floats(0.01, 1))
def test_a_seed_gives_the_same_draw_whatever_the_generator(seed, share):
    odds = action_distribution(policy(share), 0, [0, 1, 2], QUALITY)
    draws = [odds.draw(np.random.default_rng(n), seed) for n in (1, 2)]
    assert draws[0] == draws[1]
    assert draws[0].seed == seed


def test_seeds_that_were_drawn_can_be_given_back():
    rng, odds = np.random.default_rng(3), action_distribution(policy(0.8), 0, [0, 1, 2], QUALITY)
    for _ in range(200):
        drawn = odds.draw(rng)
        assert 2**53 <= drawn.seed < 2**54
        assert float(drawn.seed) == drawn.seed
        assert odds.draw(rng, drawn.seed) == drawn


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 0.01),
    st.integers(FIRST_SEED, 2 * FIRST_SEED - 2),
)
def test_what_has_no_probability_is_never_drawn(weights, seed):
    probs = np.array(weights) / sum(weights)
    assert probs[position_of(distribution(probs), seed)] > 0


def test_draws_have_their_distribution():
    seeds = range(FIRST_SEED, 2 * FIRST_SEED, FIRST_SEED // 20_000)
    probs = np.array([0.5, 0.0, 0.2, 0.3])
    counts = Counter(position_of(distribution(probs), seed) for seed in seeds)
    assert np.allclose([counts[i] / len(seeds) for i in range(4)], probs, atol=0.012)  # 3.5 standard errors


def test_the_reference_draw_never_changes():
    assert [position_of([0.25, 1.0], FIRST_SEED + 2 * place) for place in (2**50 - 1, 2**50)] == [0, 1]


def test_a_policys_fingerprint_follows_what_decides():
    plain = policy()
    changed = [
        policy(0.1),
        policy(expert=2),
        replace(plain, pins={0: 2}),
        replace(plain, preference=Preference(np.zeros(3), np.ones(3, dtype=bool))),
        replace(plain, preference=Preference(np.full(3, 0.1), np.ones(3, dtype=bool))),
        replace(plain, preference=Preference(np.array([[0.1] * 3, [0.2] * 3]), np.ones(3, dtype=bool))),
    ]
    assert policy().fingerprint == plain.fingerprint
    assert len({p.fingerprint for p in (plain, *changed)}) == 7
