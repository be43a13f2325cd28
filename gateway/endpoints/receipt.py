"""The receipt of a decision: how the request ended, what was weighed, and what was said of the answer."""

from __future__ import annotations

from decision_log.feedback_types import Feedback, ImplicitSignal
from router.types import DecisionRecord, Record, RoutingDecision


class CategoryProb(Record):
    """A category that stage 1 thought of."""

    category: str
    prob: float


class Signals(Record):
    """The view of stage 1. Above `threshold` the decision falls back to `general`; None: nothing passes it."""

    categories: tuple[CategoryProb, ...]
    uncertainty: float
    threshold: float | None
    is_fallback: bool


class WeighedExpert(Record):
    """One expert as the decision weighed it. `prob` is 0 and `lacks` says why where it could not serve, or the policy
    does not let it. `rank` is its place in the policy's order, from 1.

    Cost and wait are means for a query of this category; a wait of None was never measured.
    """

    expert: str
    prob: float
    predicted_quality: float
    predicted_cost_usd: float
    predicted_wait_ms: float | None
    lacks: str | None = None
    rank: int | None = None
    is_chosen: bool = False
    is_runner_up: bool = False


SHOWN_ONCE = {
    *("eligible", "eligible_probs", "predicted_quality", "excluded", "excluded_quality", "outside_policy", "ranking"),
    *("predicted_cost_usd", "predicted_wait_ms", "category_probs", "uncertainty", "threshold"),
}
"""Fields of a decision that `signals` and `experts` of a receipt show."""


class Receipt(Record):
    """One request: how it ended, what was weighed, and the feedback since.

    `signals` and `experts` are empty where the client named the expert or none was chosen. `implicit` is what clients
    did, which is not feedback.
    """

    record: DecisionRecord
    why: str
    signals: Signals | None = None
    experts: tuple[WeighedExpert, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    implicit: tuple[ImplicitSignal, ...] = ()

    def compact(self) -> dict[str, object]:
        """As JSON values: what `signals` and `experts` show is not in `record.decision` again, and numbers have six
        digits, or three decimals where that is more."""
        shown_once = SHOWN_ONCE if self.signals and self.experts else set()
        values = self.model_dump(mode="json", exclude={"record": {"decision": shown_once}})
        return {name: with_fewer_digits(value) for name, value in values.items()}


def with_fewer_digits(value: object) -> object:
    """A JSON value whose numbers have six digits, or three decimals where that is more; the log keeps them all."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < 1000 else round(value, 3)
    if isinstance(value, dict):
        return {name: with_fewer_digits(part) for name, part in value.items()}
    return [with_fewer_digits(part) for part in value] if isinstance(value, list) else value


def signals_of(decision: RoutingDecision) -> Signals:
    return Signals(
        categories=tuple(CategoryProb(category=name, prob=prob) for name, prob in decision.category_probs.items()),
        uncertainty=decision.uncertainty,
        threshold=decision.threshold,
        is_fallback=decision.is_fallback,
    )


def weighed_experts(decision: RoutingDecision) -> tuple[WeighedExpert, ...]:
    """Every expert of the router, those that could serve first."""
    names = (*decision.eligible, *decision.excluded, *decision.outside_policy)
    lacks, rank = decision.excluded | decision.outside_policy, {e: i for i, e in enumerate(decision.ranking, start=1)}
    probs = dict(zip(decision.eligible, decision.eligible_probs, strict=True))
    qualities = (*decision.predicted_quality, *decision.excluded_quality)
    columns = zip(names, qualities, decision.predicted_cost_usd, decision.predicted_wait_ms, strict=True)
    return tuple(
        WeighedExpert(
            expert=name,
            prob=probs.get(name, 0.0),
            predicted_quality=quality,
            predicted_cost_usd=cost,
            predicted_wait_ms=wait,
            lacks=lacks.get(name),
            rank=rank.get(name),
            is_chosen=name == decision.expert,
            is_runner_up=name == decision.runner_up,
        )
        for name, quality, cost, wait in columns
    )
