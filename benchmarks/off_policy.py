"""Our off-policy estimates on real logs of two policies: the mean of each is the truth for the other's estimate.

    python -m benchmarks.off_policy

The logs are the small Open Bandit Dataset that comes with obp (Saito et al. 2020): three campaigns of a fashion shop,
10,000 rows for each policy, one of which draws items at random and one by Bernoulli Thompson sampling. Needs obp, as
`make environments` installs it. Makes the tables of docs/results/off-policy.md.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coe.base.shares import wilson_interval
from coe.router.types import Metric
from coe.training.off_policy import (
    doubly_robust_terms,
    effective_sample_size,
    importance_weights,
    paired_means,
    widened,
)

CAMPAIGNS, POLICIES = ("all", "men", "women"), ("random", "bts")
BLOCK, PRIOR_ROWS, RUNS = 2000, 50.0, 300
Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Log:
    """Rows (n,) of one policy on one campaign, in order of time; `items` there are to choose from."""

    item: IntArray
    place: IntArray
    click: Float64Array
    propensity: Float64Array
    items: int

    def rows(self, keep: slice | NDArray[np.bool_]) -> Log:
        return Log(self.item[keep], self.place[keep], self.click[keep], self.propensity[keep], self.items)


def read_log(policy: str, campaign: str) -> Log:
    spec = find_spec("obp")
    if spec is None or spec.origin is None:
        raise SystemExit("obp is not installed; `make environments` installs it beside torch")
    path = Path(spec.origin).parent / "dataset" / "obd" / policy / campaign / f"{campaign}.csv"
    with path.open(encoding="utf-8") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["timestamp"])
    item = np.array([int(row["item_id"]) for row in rows])
    return Log(
        item,
        np.array([int(row["position"]) for row in rows]) - 1,
        np.array([float(row["click"]) for row in rows]),
        np.array([float(row["propensity_score"]) for row in rows]),
        int(item.max()) + 1,
    )


def target_of(policy: str, campaign: str, items: int) -> Float64Array:
    """(items, 3 places) probabilities of a policy; of Thompson sampling by obp, from the shop's own prior."""
    if policy == "random":
        return np.full((items, 3), 1 / items)
    from obp.policy import BernoulliTS

    sampling = BernoulliTS(n_actions=items, len_list=3, is_zozotown_prior=True, campaign=campaign, random_state=12345)
    return np.asarray(sampling.compute_batch_action_dist(n_sim=100_000, n_rounds=1)[0])


def model_of(log: Log) -> Float64Array:
    """(items,) click rates, shrunk to their mean."""
    n, clicks = (np.bincount(log.item, weights=w, minlength=log.items) for w in (np.ones(len(log.item)), log.click))
    return np.asarray((clicks + PRIOR_ROWS * log.click.mean()) / (n + PRIOR_ROWS))


def estimate(log: Log, target: Float64Array, model: Float64Array, seed: int = 0) -> tuple[Metric, float]:
    """Doubly robust value of the target policy with its interval, and the effective number of rows."""
    weights = importance_weights(target[log.item, log.place], log.propensity)
    chosen = (target * model[:, None]).sum(axis=0)[log.place]
    terms = doubly_robust_terms(weights, log.click, model[log.item], chosen)
    return widened_mean(weights, terms, seed), effective_sample_size(weights)


def widened_mean(weights: Float64Array, terms: Float64Array, seed: int) -> Metric:
    rows = np.arange(len(terms))
    found = paired_means(terms, terms, np.ones(len(terms)), rows, np.random.default_rng(seed))[1]
    return widened(found, effective_sample_size(weights), 0.0, 0.0)


def whole_logs() -> Iterator[str]:
    """A row for each campaign and direction; the model learns from one half of the log and is used on the other."""
    for campaign in CAMPAIGNS:
        logs = {policy: read_log(policy, campaign) for policy in POLICIES}
        for source, other in (POLICIES, POLICIES[::-1]):
            log, truth = logs[source], float(logs[other].click.mean())
            target = target_of(other, campaign, log.items)
            m, effective = estimate(log, target, model_of(log))
            cell = f"{100 * m.value:.2f} [{100 * low(m):.2f}, {100 * high(m):.2f}]"
            yield f"| {campaign}: {source} for {other} | {100 * truth:.2f} | {cell} | {effective:.0f} |"


def blocks() -> Iterator[tuple[str, bool, float, float]]:
    """Direction, whether the interval holds the truth, error and width, for each block of rows; the model
    learns from the other blocks."""
    for campaign in CAMPAIGNS:
        logs = {policy: read_log(policy, campaign) for policy in POLICIES}
        for source, other in (POLICIES, POLICIES[::-1]):
            log, truth = logs[source], float(logs[other].click.mean())
            target = target_of(other, campaign, log.items)
            for start in range(0, len(log.item), BLOCK):
                is_own = (np.arange(len(log.item)) // BLOCK) == start // BLOCK
                metric, _ = estimate(log.rows(is_own), target, model_of(log.rows(~is_own)), seed=start)
                holds = low(metric) <= truth <= high(metric)
                yield f"{source} for {other}", holds, metric.value - truth, high(metric) - low(metric)


def simulated(n: int) -> Iterator[tuple[str, bool, float, float]]:
    """As `blocks`, on logs of n rows that obp simulates: six actions, rewards of 0 and 1, a log by its linear policy, a
    target that favours poor actions. The truth is the mean expected reward over all runs."""
    from obp.dataset import SyntheticBanditDataset, linear_behavior_policy, logistic_reward_function
    from scipy.special import softmax

    source = SyntheticBanditDataset(
        n_actions=6,
        dim_context=5,
        reward_function=logistic_reward_function,
        behavior_policy_function=linear_behavior_policy,
        random_state=1,
    )
    runs, truths = [], []
    for _ in range(RUNS):
        found = source.obtain_batch_bandit_feedback(n_rounds=2 * n)
        expected, at = found["expected_reward"], np.arange(2 * n)
        target = softmax(-3.0 * expected, axis=1)
        place = np.zeros(2 * n, dtype=np.int64)
        log = Log(found["action"], place, found["reward"].astype(np.float64), found["pscore"], 6)
        model, own = model_of(log.rows(at < n)), at >= n
        weights = importance_weights(target[at, log.item], log.propensity)[own]
        terms = doubly_robust_terms(weights, log.click[own], model[log.item[own]], (target[own] * model).sum(axis=1))
        runs.append(widened_mean(weights, terms, 0))
        truths.append(float((target * expected).sum(axis=1).mean()))
    truth = float(np.mean(truths))
    for metric in runs:
        holds = low(metric) <= truth <= high(metric)
        yield f"simulated, {n} rows", holds, metric.value - truth, high(metric) - low(metric)


def low(metric: Metric) -> float:
    return metric.interval.low if metric.interval else float("-inf")


def high(metric: Metric) -> float:
    return metric.interval.high if metric.interval else float("inf")


def main() -> None:
    print("| log, target | truth, % | estimate | effective rows |\n| --- | --- | --- | --- |")
    print("\n".join(whole_logs()))
    print("\n| blocks | bias | root mean square error | width | intervals that hold the truth |")
    print("| --- | --- | --- | --- | --- |")
    found = [*blocks(), *simulated(200), *simulated(2000)]
    for direction in dict.fromkeys(row[0] for row in found):
        own = [row[1:] for row in found if row[0] == direction]
        errors = np.array([row[1] for row in own])
        held = sum(row[0] for row in own)
        ends = wilson_interval(held / len(own), len(own))
        print(
            f"| {direction} | {100 * errors.mean():+.3f} | {100 * np.sqrt((errors**2).mean()):.3f} | "
            f"{100 * np.mean([row[2] for row in own]):.2f} | {held} of {len(own)} [{ends[0]:.2f}, {ends[1]:.2f}] |"
        )


if __name__ == "__main__":
    main()
