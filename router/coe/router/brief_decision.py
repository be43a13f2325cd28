"""A decision as the log keeps it: the experts that matter by name, the others as sums and a hash. The whole of it
follows from the router's artifact and the inputs of the decision (`decision_log.replayed`)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import compress
from typing import TypeVar

from coe.base.json_text import to_json
from coe.router.types import Rest, RoutingDecision

MOST_EXPERTS = 10
"""Experts that are kept by name, beside those that the record names elsewhere (ours)."""

MOST_REASONS = 5
Value = TypeVar("Value")
OF_EXPERTS = (
    *("ranking", "eligible", "eligible_probs", "predicted_quality", "excluded", "outside_policy", "excluded_quality"),
    *("predicted_cost_usd", "predicted_wait_ms"),
)
"""Fields of a decision that have a value for each expert."""


def brief(decision: RoutingDecision, also: Collection[str | None] = ()) -> RoutingDecision:
    """Return the decision with few experts: the first of its ranking, the best others, those it names, and `also`. A
    decision that has no more than `MOST_EXPERTS` is returned as it is."""
    shut_out = (*decision.excluded, *decision.outside_policy)
    names = (*decision.eligible, *shut_out)
    if len(names) <= MOST_EXPERTS:
        return decision
    predicted = (*decision.predicted_quality, *decision.excluded_quality)  # nothing where no router decided
    quality = dict(zip(names, predicted or (0.0,) * len(names), strict=True))
    ranked = set(decision.ranking)
    others = sorted((name for name in names if name not in ranked), key=lambda name: -quality[name])
    kept = {*(*decision.ranking, *others)[:MOST_EXPERTS], *named_in(decision), *also}
    kept.add(max(decision.eligible, key=lambda name: quality[name]))
    is_able, is_out = ([name in kept for name in group] for group in (decision.eligible, shut_out))
    if all(is_able) and all(is_out):
        return decision
    changes = {
        "ranking": tuple(name for name in decision.ranking if name in kept),
        "eligible": chosen(decision.eligible, is_able),
        "eligible_probs": chosen(decision.eligible_probs, is_able),
        "predicted_quality": chosen(decision.predicted_quality, is_able),
        "excluded": {name: lack for name, lack in decision.excluded.items() if name in kept},
        "outside_policy": {name: bar for name, bar in decision.outside_policy.items() if name in kept},
        "excluded_quality": chosen(decision.excluded_quality, is_out),
        "predicted_cost_usd": chosen(decision.predicted_cost_usd, is_able + is_out),
        "predicted_wait_ms": chosen(decision.predicted_wait_ms, is_able + is_out),
        "rest": rest_of(decision, kept),
    }
    return decision.model_copy(update=changes)


def named_in(decision: RoutingDecision) -> tuple[str | None, ...]:
    """Return the experts that a decision names besides its lists."""
    stay, asleep = decision.stay, decision.asleep
    beside = (stay.last_expert if stay else None, asleep.expert if asleep else None)
    return (decision.expert, decision.runner_up, *beside)


def rest_of(decision: RoutingDecision, kept: Collection[str | None]) -> Rest:
    """Return sums over the experts that are not kept, and a hash of the decision's lists for every expert."""
    probs = [prob for name, prob in zip(decision.eligible, decision.eligible_probs, strict=True) if name not in kept]
    lacks = decision.excluded | decision.outside_policy
    reasons = Counter(lack for name, lack in lacks.items() if name not in kept)
    whole = to_json([getattr(decision, name) for name in OF_EXPERTS])
    return Rest(
        eligible=len(probs),
        prob=sum(probs),
        shut_out=reasons.total(),
        reasons=dict(reasons.most_common(MOST_REASONS)),
        sha256=hashlib.sha256(whole).hexdigest()[:16],
    )


def chosen(values: Iterable[Value], keep: Iterable[bool]) -> tuple[Value, ...]:
    return tuple(compress(values, keep))
