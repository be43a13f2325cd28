"""The sequential test: its formula, its promise by simulation, and how soon it sees a real loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import betaln
from scipy.stats import binom

from coe.decision_log.e_process import Arm, log_e_worse, max_log_likelihood

ALPHA = 0.05
LOOK_EVERY = 25


def reached(rng: np.random.Generator, means: tuple[float, float], margin: float, *, share: float, n: int, kind: str):
    """Number of the answer at which E reached 1 / ALPHA, None when it never did, looking every few answers."""
    past = Arm(500, float(rng.binomial(500, means[1])))
    is_candidate = rng.random(n) < share
    mean = np.where(is_candidate, means[0], means[1])
    values = (rng.random(n) < mean).astype(float) if kind == "thumbs" else rng.beta(4 * mean, 4 * (1 - mean))
    n1, s1 = is_candidate.cumsum(), (values * is_candidate).cumsum()
    n0, s0 = (~is_candidate).cumsum(), (values * ~is_candidate).cumsum()
    for i in range(LOOK_EVERY - 1, n, LOOK_EVERY):
        log_e = log_e_worse(Arm(float(n1[i]), float(s1[i])), Arm(float(n0[i]), float(s0[i])), margin, past)
        if log_e >= math.log(1 / ALPHA):
            return i
    return None


@pytest.mark.parametrize("kind", ["thumbs", "scores"])
@pytest.mark.parametrize(("means", "margin"), [((0.7, 0.7), 0.0), ((0.65, 0.7), 0.05)])
def test_false_alarms_stay_under_alpha(kind, means, margin):
    """On the edge of the hypothesis, looking 40 times in 1,000 answers: at most ALPHA of the runs may end in one. 200
    runs at a true rate of ALPHA exceed the bound below once in a thousand times."""
    rng = np.random.default_rng(1)
    runs = 200
    false = sum(reached(rng, means, margin, share=0.3, n=1000, kind=kind) is not None for _ in range(runs))
    assert false <= binom.ppf(0.999, runs, ALPHA)


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("mean", [0.05, 0.5, 0.95, 0.999])
def test_false_alarms_stay_under_alpha_over_many_runs(share, mean):
    rng = np.random.default_rng(2)
    runs = 1000
    found = [reached(rng, (mean, mean), 0.0, share=share, n=4000, kind="thumbs") is not None for _ in range(runs)]
    assert sum(found) <= binom.ppf(0.99, runs, ALPHA)


def test_a_drift_of_both_together_is_no_alarm():
    """Both fall from 0.9 to 0.4 half way: no run of 60 alarms."""
    rng = np.random.default_rng(3)
    for _ in range(60):
        is_candidate = rng.random(2000) < 0.2
        values = (rng.random(2000) < np.where(np.arange(2000) < 1000, 0.9, 0.4)).astype(float)
        candidate = Arm(float(is_candidate.sum()), float(values[is_candidate].sum()))
        live = Arm(float((~is_candidate).sum()), float(values[~is_candidate].sum()))
        assert log_e_worse(candidate, live, 0.02, Arm(500, 450)) < math.log(1 / ALPHA)


def test_a_real_loss_is_seen_soon():
    """0.8 falls to 0.5 in a tenth of the traffic: half of the runs know it within 600 answers, 60 of the candidate."""
    rng = np.random.default_rng(4)
    at = [reached(rng, (0.5, 0.8), 0.05, share=0.1, n=3000, kind="thumbs") for _ in range(40)]
    assert all(found is not None for found in at)
    assert np.median([found for found in at if found is not None]) < 600


def test_the_formula_is_that_of_the_docstring():
    """Against scipy's beta function and optimiser, without a past: uniform priors."""
    candidate, live, margin = Arm(40, 18.5), Arm(200, 150.0), 0.1

    def loss(p: float) -> float:
        return -(150 * math.log(p) + 50 * math.log(1 - p) + 18.5 * math.log(p - 0.1) + 21.5 * math.log(1.1 - p))

    best = minimize_scalar(loss, bounds=(0.1001, 0.9999), method="bounded", options={"xatol": 1e-12})
    expected = betaln(19.5, 22.5) + betaln(151, 51) - 2 * betaln(1, 1) + best.fun
    assert log_e_worse(candidate, live, margin) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("n", "known", "loose"), [(9, 9, 9), (499, 499, 20), (3999, 1000, 20)])
def test_the_past_is_a_prior_of_a_thousand_answers_at_most_and_of_twenty_for_the_candidate(n, known, loose):
    """Of n answers n - 1 were good, so their mean with half an answer of either kind more is 1 - 1.5 / (n + 1)."""
    candidate, live = Arm(4, 3.0), Arm(10, 7.0)  # better than the live router, so that both means are free
    mean = 1 - 1.5 / (n + 1)
    evidence = sum(
        betaln(arm.total + 1 + strength * mean, arm.n - arm.total + 1 + strength * (1 - mean))
        - betaln(1 + strength * mean, 1 + strength * (1 - mean))
        for arm, strength in ((candidate, loose), (live, known))
    )
    best = 3 * math.log(0.75) + math.log(0.25) + 7 * math.log(0.7) + 3 * math.log(0.3)
    assert log_e_worse(candidate, live, 0.0, Arm(n, n - 1.0)) == pytest.approx(evidence - best)


arms = st.builds(lambda n, share: Arm(float(n), n * share), st.integers(0, 300), st.floats(0, 1))


@given(arms, arms, st.floats(0, 0.5))
def test_no_pair_of_means_that_is_allowed_is_likelier_than_the_maximum(candidate, live, margin):
    largest = max_log_likelihood(candidate, live, margin)
    for p0 in np.linspace(0, 1, 21):
        for p1 in np.linspace(max(0.0, p0 - margin), 1, 11):
            assert candidate.log_likelihood(float(p1)) + live.log_likelihood(float(p0)) <= largest + 1e-6


@given(arms, arms, st.floats(0, 0.5), arms)
def test_a_candidate_that_looks_no_worse_is_never_evidence(candidate, live, margin, past):
    log_e = log_e_worse(candidate, live, margin, past)
    assert math.isfinite(log_e)
    if candidate.mean is None or live.mean is None or candidate.mean >= live.mean - margin:
        assert log_e <= 1e-9
