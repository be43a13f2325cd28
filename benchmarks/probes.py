"""Measures how often `coe experts probe` finds a specialist, and how often it falls for luck.

    python -m benchmarks.probes --runs 500

The specialist answers right with 0.95 in three of sixteen categories, where 0.75 serves now (known within 0.03), and
with `elsewhere` in the others. Found: it is given one of its three categories. Fooled: given a category in which it is
not better. Every run has its own seed; the three categories are drawn.
"""

from __future__ import annotations

import argparse

import numpy as np

from coe.base.shares import wilson_interval
from coe.eval.probe_plan import Bars, chances_of_luck, run_plan, simulate_experts
from coe.training.onboarding import MAX_LUCK

CATEGORIES, SPECIAL = 16, 3
SERVES, BETTER, SERVES_STDERR = 0.75, 0.95, 0.03


def one_run(seed: int, room: int, budget: int, elsewhere: float | None) -> tuple[bool, bool]:
    """Tells whether one of its categories was found, and whether another was given. None: an expert nowhere better."""
    rng = np.random.default_rng(seed)
    serves = np.clip(SERVES + rng.normal(size=CATEGORIES) * SERVES_STDERR, 0.0, 1.0)
    bars = Bars(serves, np.full(CATEGORIES, SERVES_STDERR), np.full(CATEGORIES, float(room)))
    truth = np.full((1, CATEGORIES), SERVES if elsewhere is None else elsewhere)
    special = rng.permutation(CATEGORIES)[: 0 if elsewhere is None else SPECIAL]
    truth[0, special] = BETTER
    given = chances_of_luck(bars, budget, *run_plan(bars, budget, simulate_experts(truth, rng))) <= MAX_LUCK
    is_special = np.isin(np.arange(CATEGORIES), special)
    return bool(given[is_special].any()), bool(given[~is_special].any())


def main() -> None:
    """Prints one line for each kind of expert, number of probes and size of the probe set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    runs = parser.parse_args().runs
    for budget in (64, 128):
        for room in (15, 40):
            for elsewhere in (0.5, 0.6, 0.75, None):
                found, fooled = np.mean([one_run(seed, room, budget, elsewhere) for seed in range(runs)], axis=0)
                kind = "nowhere better" if elsewhere is None else f"{elsewhere} elsewhere"
                low, high = wilson_interval(float(found), runs)
                worst = wilson_interval(float(fooled), runs)
                print(
                    f"{budget} probes, {room} of a category, {kind}: found {found:.1%} ({low:.1%} to {high:.1%}), "
                    f"fooled {fooled:.1%} ({worst[0]:.1%} to {worst[1]:.1%})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
