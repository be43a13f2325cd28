"""Whether a request may be asked of several experts, and how their answers compare."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.wire import ChatRequest
from router.pipeline import Router
from router.section import PluginConfig
from router.strategies.kind_of import answer_kind
from router.strategies.types import Chosen
from router.types import DecisionReason, FloatArray, RoutingDecision

BY_PLAN = frozenset({DecisionReason.MAP, DecisionReason.QUERY, DecisionReason.UNCERTAIN, DecisionReason.NEXT_BEST})
"""Reasons of decisions that a strategy may widen. Pinned, kept, explored and builtin experts stay alone."""

MORE_THAN_TEXT = ("tools", "functions", "logprobs", "top_logprobs", "audio", "modalities", "prediction")
"""Fields with which an answer is more than a text, or belongs to the expert that wrote it."""


def chosen_strategy(
    router: Router,
    decision: RoutingDecision,
    embedding: FloatArray,
    chat: ChatRequest,
    declared: Mapping[str, PluginConfig],
) -> Chosen | None:
    """The strategy by which a policy asks several experts for a request; None where one expert serves it: the plan says
    so, its answers cannot be compared, or they are more than a text.

    Args:
        embedding: (1, d) what was decided from.
        declared: the kind of each category's answers.
    """
    strategy, plan = router.strategy(decision.policy, decision.category, embedding), router.policy(decision.policy).plan
    is_more = chat.body.get("n") not in (None, 1) or any(chat.body.get(name) for name in MORE_THAN_TEXT)
    if strategy is None or plan is None or is_more or chat.native is not None or decision.reason not in BY_PLAN:
        return None
    kind = answer_kind(chat.facts, decision.category, declared)
    return None if kind is None else Chosen(plan.strategy, strategy, router.experts, kind)
