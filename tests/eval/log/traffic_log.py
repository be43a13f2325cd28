"""A decision log with known truth: two categories, two experts, a switch of routers, an expert that gets worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.decision_log.feedback_types import Feedback, FeedbackKind
from coe.router.prices.usage import Usage
from coe.router.types import DecisionReason, RoutingDecision

EXPERTS = ("coder", "writer")
TRUTH = {"code": (0.9, 0.4), "prose": (0.5, 0.8)}  # chance of a thumb up, per expert
OLD, NEW = "a" * 16, "b" * 16
START = 1_780_000_000.0
EPSILON = 0.3


def decision_of(category: str, expert: str, propensity: float, version: str, **fields: object) -> RoutingDecision:
    values: dict[str, object] = {
        "expert": expert,
        "category": category,
        "confidence": 0.9,
        "is_fallback": False,
        "reason": DecisionReason.MAP,
        "likely_category": category,
        "uncertainty": 0.1,
        "eligible": EXPERTS,
        "eligible_probs": (propensity, 1 - propensity),
        "predicted_quality": TRUTH.get(category, (0.5, 0.5)),
        "propensity": propensity,
        "router_version": version,
    }
    return RoutingDecision.model_validate(values | fields)


def record_of(number: int, decision: RoutingDecision | None, **fields: object) -> DecisionRecord:
    values: dict[str, object] = {
        "decision_id": f"dec-{number:06}",
        "request_id": "r",
        "replica": "one",
        "seq": number,
        "at": START + 60.0 * number,
        "requested_model": "auto",
        "state": TerminalState.ANSWERED,
        "decision": decision,
        "served_expert": decision.expert if decision else None,
        "status": 200,
        "usage": Usage(prompt_tokens=10, completion_tokens=20),
        "cost_usd": 0.002 if decision and decision.expert == "writer" else 0.001,
        "latency_ms": 100.0 + number % 50,
        "ttft_ms": 20.0,
        "text": f"a secret text {number}",
    }
    return DecisionRecord.model_validate(values | fields)


def traffic(n: int, *, seed: int = 0, degrade_at: float = 2.0) -> Iterator[tuple[DecisionRecord, float]]:
    """n decisions with what a user would say of each. The old router sends all prose to the coder, the new one (second
    half) to the writer, both explore; from share `degrade_at` of the log on the coder answers one in five."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        is_new = number >= n / 2
        category = "code" if rng.random() < 0.5 else "prose"
        wanted = "writer" if category == "prose" and is_new else "coder"
        is_explored = rng.random() < EPSILON / 2
        expert = EXPERTS[1 - EXPERTS.index(wanted)] if is_explored else wanted
        propensity = EPSILON / 2 if is_explored else 1 - EPSILON / 2
        reason = DecisionReason.EXPLORED if is_explored else DecisionReason.MAP
        chance = TRUTH[category][EXPERTS.index(expert)]
        if number >= degrade_at * n and expert == "coder":
            chance = 0.2
        decision = decision_of(category, expert, propensity, NEW if is_new else OLD, reason=reason)
        yield record_of(number, decision), float(rng.random() < chance)


def write_log(
    path: Path, n: int, *, seed: int = 0, rate_of: tuple[float, float] = (0.5, 0.5), degrade_at: float = 2.0
) -> str:
    """A database with that traffic; `rate_of` is the chance of feedback on a bad and on a good answer."""
    url = f"sqlite:///{path}"
    rng = np.random.default_rng(seed + 1)
    store = Database(url)
    pairs = list(traffic(n, seed=seed, degrade_at=degrade_at))
    store.write_decisions([record for record, _ in pairs])
    for record, reward in pairs:
        if rng.random() < rate_of[int(reward)]:
            store.put_feedback(
                Feedback(decision_id=record.decision_id, kind=FeedbackKind.THUMB, value=reward, at=record.at + 5)
            )
    store.close()
    return url
