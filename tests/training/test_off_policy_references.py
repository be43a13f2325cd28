"""Our estimates beside those of obp and coba, on the same logs: the real ones of two policies that come with obp, and
simulated ones."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.off_policy import CAMPAIGNS, POLICIES, Log, model_of, read_log, target_of
from coe.training.off_policy import MAX_WEIGHT, doubly_robust_terms, importance_weights

pytestmark = pytest.mark.torch  # obp imports it; `make environments` installs both
EXACT = 1e-9


def ours(log: Log, probs: np.ndarray, model: np.ndarray) -> dict[str, float]:
    """DR of a policy with probabilities (n, items) and predicted rewards (n, items); without a model it is IPS."""
    at = np.arange(len(log.item))
    weights = importance_weights(probs[at, log.item], log.propensity)

    def by(model: np.ndarray) -> float:
        terms = doubly_robust_terms(weights, log.click, model[at, log.item], (probs * model).sum(axis=1))
        return float(terms.mean())

    return {"DR": by(model), "IPS": by(np.zeros_like(model))}


def of_obp(log: Log, probs: np.ndarray, model: np.ndarray) -> dict[str, float]:
    from obp.ope import DoublyRobust, InverseProbabilityWeighting

    shared = {"reward": log.click, "action": log.item, "pscore": log.propensity, "action_dist": probs[:, :, None]}
    predicted = {"estimated_rewards_by_reg_model": model[:, :, None]}
    return {
        "DR": DoublyRobust().estimate_policy_value(**shared, **predicted),
        "IPS": InverseProbabilityWeighting().estimate_policy_value(**shared),
    }


def of_coba(log: Log, probs: np.ndarray) -> float:
    """IPS by coba's simulated rewards, which it does not clip; its other estimates fit a model of their own."""
    from coba.environments import OpeRewards

    rows = zip(log.item.tolist(), log.click.tolist(), log.propensity.tolist(), strict=True)
    logged = ({"context": None, "action": item, "reward": click, "probability": p} for item, click, p in rows)
    found = [one["rewards"] for one in OpeRewards("IPS").filter(logged)]
    pairs = zip(probs.tolist(), found, strict=True)
    return float(np.mean([sum(p * reward(item) for item, p in enumerate(own)) for own, reward in pairs]))


def check(log: Log, probs: np.ndarray, model: np.ndarray) -> None:
    """Compares on the rows whose weights we do not clip, which neither of the others does."""
    kept = probs[np.arange(len(log.item)), log.item] / log.propensity < MAX_WEIGHT
    assert kept.mean() > 0.95
    log, probs, model = log.rows(kept), probs[kept], model[kept]
    found = ours(log, probs, model)
    assert found == pytest.approx(of_obp(log, probs, model), abs=EXACT, rel=EXACT)
    assert found["IPS"] == pytest.approx(of_coba(log, probs), abs=EXACT, rel=EXACT)


@pytest.mark.parametrize("campaign", CAMPAIGNS)
@pytest.mark.parametrize("source", POLICIES)
def test_real_logs_of_two_policies_get_the_same_estimates(campaign: str, source: str) -> None:
    log = read_log(source, campaign)
    target = target_of(next(name for name in POLICIES if name != source), campaign, log.items)
    check(log, target[:, log.place].T, np.tile(model_of(log), (len(log.item), 1)))


@pytest.mark.parametrize("seed", range(5))
def test_simulated_logs_get_the_same_estimates(seed: int) -> None:
    rng, n, m = np.random.default_rng(seed), 500, 6
    behaviour, probs = (rng.dirichlet(np.full(m, alpha), n) for alpha in (0.5, 1.0))
    item = np.array([rng.choice(m, p=own) for own in behaviour])
    log = Log(item, np.zeros(n, dtype=np.int64), rng.random(n), behaviour[np.arange(n), item], m)
    check(log, probs, rng.random((n, m)))
