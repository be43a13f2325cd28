"""The strategy for a request, or the reason why one expert serves it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.chat_request import ChatRequest
from router.pipeline import Router
from router.section import PluginConfig
from router.strategies.kind_of import answer_kind
from router.strategies.types import Chosen
from router.types import DecisionReason, FloatArray, RoutingDecision, StrategyTrace

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
) -> Chosen | StrategyTrace | None:
    """The strategy by which a policy asks several experts for a request; None where one expert serves it by plan. Where
    the request keeps several from being asked, the trace that says why.

    Args:
        embedding: (1, d) what was decided from.
        declared: the kind of each category's answers.
    """
    strategy, plan = router.strategy(decision.policy, decision.category, embedding), router.policy(decision.policy).plan
    if strategy is None or plan is None or decision.reason not in BY_PLAN:
        return None
    kind = why_single(chat) or answer_kind(chat.facts, decision.category, declared)
    if isinstance(kind, str):
        return StrategyTrace(name=plan.strategy, is_settled=False, declined=kind)
    return Chosen(plan.strategy, strategy, router.experts, kind, router.encoder.encode)


def why_single(chat: ChatRequest) -> str:
    """The reason why a request is for one expert alone; empty where there is none."""
    if chat.native is not None:
        return f"a request to /v1/{chat.native.wire} is for one expert"
    if chat.body.get("n") not in (None, 1):
        return "'n' asks for several answers of one expert"
    field = next((name for name in MORE_THAN_TEXT if chat.body.get(name)), None)
    return "" if field is None else f"with '{field}' the answer is more than a text"
