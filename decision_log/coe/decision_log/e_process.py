"""A sequential test of whether a candidate is worse than the live router; it may be evaluated after every answer. Pure.

There are two groups of independent answers with values in [0, 1]: n1 answers of the candidate with sum s1, and n0 of
the live router with sum s0. The hypothesis is mean1 >= mean0 - margin. The evidence against it is the ratio of
universal inference (Wasserman, Ramdas & Balakrishnan, PNAS 2020), with q = 1 - p:

        B(s1 + a1, n1 - s1 + b1) / B(a1, b1) * B(s0 + a0, n0 - s0 + b0) / B(a0, b0)
    E = ---------------------------------------------------------------------------
                        max p1^s1 q1^(n1-s1) p0^s0 q0^(n0-s0)

The numerator is the chance of the answers if both means are drawn from Beta priors; the denominator is the largest
chance that the hypothesis allows. For every allowed pair of means, the denominator is at least the pair's own
likelihood. So E is at most a process that starts at 1. It is a martingale for values 0 or 1, and a supermartingale for
values in [0, 1], because p^v q^(1-v) is convex in v. By Ville's inequality the chance that E ever reaches 1 / alpha is
at most alpha. E may be evaluated any number of times, by any number of replicas, with late answers, because only counts
and sums enter.

The priors affect how soon a real loss is detected, never how often a false one is. They use what was known before the
trial: the live router's own past, which costs little, and for the candidate the same mean with less weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LIVE_PRIOR = 1000.0
"""Largest number of past answers in the live router's prior (our choice): means drift."""

CANDIDATE_PRIOR = 20.0
"""Number of answers that the candidate's prior is worth; it is wide enough for a loss of ten points (our choice)."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A group of `n` answers whose values in [0, 1] sum to `total`."""

    n: float = 0.0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.total / self.n if self.n else None

    def log_likelihood(self, mean: float) -> float:
        """Return log p^total (1 - p)^(n - total) for a mean p; minus infinity if the likelihood is 0."""
        return x_log_y(self.total, mean) + x_log_y(self.n - self.total, 1.0 - mean)


def x_log_y(x: float, y: float) -> float:
    """Return x log y; 0 if x is 0."""
    if x <= 0:
        return 0.0
    return x * math.log(y) if y > 0 else -math.inf


def log_e_worse(candidate: Arm, live: Arm, margin: float, past: Arm | None = None) -> float:
    """Return log E against the hypothesis that the candidate is worse by at most `margin`; large values reject it.

    Args:
        past: answers of the live router from before the trial.
    """
    past = past or Arm()
    known = min(past.n, LIVE_PRIOR)
    mean = (past.total + 0.5) / (past.n + 1.0)
    loose = min(known, CANDIDATE_PRIOR)
    evidence = log_marginal(candidate, mean, loose) + log_marginal(live, mean, known)
    return evidence - max_log_likelihood(candidate, live, margin)


def log_marginal(arm: Arm, mean: float, strength: float) -> float:
    """Return log B(s + a, n - s + b) / B(a, b); the Beta prior is uniform plus `strength` answers of that mean."""
    a, b = 1.0 + strength * mean, 1.0 + strength * (1.0 - mean)
    return log_beta(arm.total + a, arm.n - arm.total + b) - log_beta(a, b)


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def max_log_likelihood(candidate: Arm, live: Arm, margin: float) -> float:
    """Return the largest log-likelihood of both groups with mean1 >= mean0 - margin.

    If the data satisfy that, both means are free. Else the maximum has mean1 = mean0 - margin, and the sum is concave
    in mean0, so a ternary search finds it.
    """
    p1, p0 = candidate.mean, live.mean
    if p1 is None or p0 is None or p1 >= p0 - margin:
        return sum(arm.log_likelihood(arm.mean) for arm in (candidate, live) if arm.mean is not None)

    def value(mean0: float) -> float:
        return live.log_likelihood(mean0) + candidate.log_likelihood(mean0 - margin)

    low, high = max(margin, p1 + margin), min(1.0, p0)
    for _ in range(80):
        third = (high - low) / 3
        one, two = low + third, high - third
        if value(one) < value(two):
            low = one
        else:
            high = two
    # The true maximum is at least every value; the end points matter where it lies on one of them.
    return max(value((low + high) / 2), value(low), value(high))
