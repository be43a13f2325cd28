"""The experts that can be called now: some may be down, and the engines of some may sleep."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from coe.base.errors import NoEligibleExpertError
from coe.fleet.calls.backend import RETRY_AFTER_S, SPENT
from coe.fleet.calls.pool import ExpertPool
from coe.gateway.http_errors import OUT_OF_QUOTA, RATE_LIMITED, TOO_LONG, ApiError
from coe.router.capabilities import FOR_NOW, LIMITED, NOT_ALLOWED, NOT_REACHABLE, Capabilities
from coe.router.pipeline import Router
from coe.router.types import Asleep, DecisionReason, FloatArray, Query, RoutingDecision

if TYPE_CHECKING:
    from coe.fleet.residency.controller import Controller
    from coe.gateway.chat_request import ChatRequest

MAX_SHOWN_LOSSES = 5


class WaitFor(Exception):
    """A request that has to wait for one of these experts: nobody awake can serve it, or its policy says so."""

    def __init__(self, experts: Iterable[str]) -> None:
        self.experts = tuple(experts)
        super().__init__(*self.experts)


class Waking:
    """Has engines woken for requests, and says what would serve if none slept. There where engines may sleep."""

    def __init__(self, pool: ExpertPool, controller: Controller) -> None:
        self._pool, self._controller = pool, controller

    async def wake(self, experts: Sequence[str]) -> None:
        """Wakes one of the experts that a client named where none can be called, and counts the request as one for the
        first of them. Raises as `Controller.wait_for` does."""
        sleeping = [name for name in experts if name in self._pool.asleep]
        if sleeping and self._pool.alive.isdisjoint(experts):
            one = len(sleeping) == 1
            await (self._controller.wait_for(sleeping[0]) if one else self._controller.wait_for_one(sleeping))
        self._controller.note(f"named {experts[0]}", {experts[0]: 1.0}, None)  # a whole answer: no other one would do

    async def wait_for_one(self, experts: Collection[str]) -> None:
        """Has the first of them woken that can be, and returns once any is awake. Raises as `wait_for` does."""
        await self._controller.wait_for_one(experts)

    def note(self, served: RoutingDecision, ideal: RoutingDecision | None, *, begins: bool) -> None:
        """Counts a routed request for the engines; `ideal` is as of `decision_of_all_awake`, None where all are."""
        weighed = ideal or served
        self._controller.note(weighed.category, quality_of(weighed), begins)

    def decision_of_all_awake(
        self, router: Router, policy: str, query: Query, embedding: FloatArray
    ) -> RoutingDecision | None:
        """The decision if nobody slept; None where nobody sleeps. It draws nothing that counts. Raises
        NoEligibleExpertError."""
        if not query.facts.asleep:
            return None
        awake, rng = replace(query, facts=replace(query.facts, asleep=())), np.random.default_rng(0)
        alive = self._pool.alive | self._pool.asleep
        return router.decide(awake, policy=policy, alive=alive, rng=rng, embedding=embedding)

    def beside(self, decision: RoutingDecision, ideal: RoutingDecision) -> RoutingDecision:
        """The decision with what its receipt says of the best expert where it sleeps."""
        return decision.model_copy(update={"asleep": asleep_for(decision, ideal, self._controller)})


def wanted(ideal: RoutingDecision) -> str:
    """The expert that is planned, or that the conversation stays with; never one that exploration drew."""
    is_settled = ideal.reason is DecisionReason.ESCALATED or (ideal.stay is not None and ideal.stay.kept)
    return ideal.expert if is_settled else ideal.ranking[0]


def quality_of(ideal: RoutingDecision) -> dict[str, float]:
    """Predicted quality of experts that could have served; of a conversation's with the price of reading it again."""
    found = dict(zip(ideal.eligible, ideal.predicted_quality, strict=True))
    if ideal.stay is not None and ideal.stay.kept:
        found[ideal.stay.last_expert] += max(ideal.stay.price or 0.0, 0.0)
    return found


def asleep_for(decision: RoutingDecision, ideal: RoutingDecision, controller: Controller) -> Asleep | None:
    """Words of a receipt about the best expert where it slept."""
    best, quality = wanted(ideal), quality_of(ideal)
    if best in decision.eligible or decision.expert not in quality:
        return None
    lost = quality[best] - quality[decision.expert]
    return Asleep(expert=best, lost=lost, is_waking=controller.is_waking(best))


def no_expert(
    error: NoEligibleExpertError, request: ChatRequest, able: Mapping[str, Capabilities], pool: ExpertPool
) -> ApiError:
    """The reason why no expert serves a request: what it asks for, or asks of its policy (400), or that those who could
    are down (503) or all at their rate limit or without quota (429)."""
    facts, native, names = request.facts, request.native, tuple(error.reasons)
    down = {name: reason for name, reason in error.reasons.items() if reason in FOR_NOW}
    forbidden = [name for name, reason in error.reasons.items() if reason == NOT_ALLOWED]
    lacking = [name for name in names if able[name].lacks(facts) is not None]
    outside = {name: error.reasons[name] for name in names if name not in {*down, *lacking, *forbidden}}
    if down:
        told = down | dict.fromkeys(down.keys() & pool.problems().keys(), "has a fault that /v1/experts names")
        told |= dict.fromkeys(down.keys() & pool.spent, SPENT)
        away = ", ".join(name if reason == NOT_REACHABLE else f"{name} {reason}" for name, reason in told.items())
        kept_out = "".join(f"; {name}: {reason}" for name, reason in outside.items())
        are_limited, cooldowns_s = set(down.values()) == {LIMITED}, pool.cooldowns_s()
        limit = OUT_OF_QUOTA if set(told.values()) == {SPENT} else RATE_LIMITED
        return ApiError(
            f"no expert that can serve this request is reachable now ({away}{kept_out})",
            status=429 if are_limited else 503,
            code=limit if are_limited else "no_expert_alive",
            retry_after_s=min(cooldowns_s.get(name, 0.0) for name in down) if are_limited else RETRY_AFTER_S,
        )
    if outside:
        return ApiError(str(error), code="outside_policy", param="model")
    if native is not None and native.losses:
        shown = ", ".join(f"'{name}'" for name in native.losses[:MAX_SHOWN_LOSSES])
        return ApiError(
            f"{shown}: a chat request cannot say this, and no expert that can serve this request speaks "
            f"/v1/{native.api} itself (`apis` of an expert in experts.yaml)",
            code="unsupported_parameter",
            param=native.losses[0].partition(" ")[0],
        )
    # Whoever would take a short prompt with the same demands lacks only context.
    short = replace(facts, prompt_chars=0, max_output_tokens=None)
    is_too_long = any(able[name].lacks(short) is None for name in names if name not in forbidden)
    code = TOO_LONG if is_too_long else "unsupported_by_experts"
    return ApiError(str(error), code=code, param="messages")
