"""The decision for a request, by the routers in force and the experts that can be called now."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from coe.base.errors import NoEligibleExpertError
from coe.decision_log.decision_record import DecisionInputs, TerminalState
from coe.decision_log.privacy import session_hash, session_of
from coe.fleet.calls.backend import RETRY_AFTER_S
from coe.fleet.calls.pool import ExpertPool
from coe.gateway.answer_cache import AnswerCache
from coe.gateway.chat.conversations import CACHE_S, Conversations, Last
from coe.gateway.chat.strategy_run import chosen_strategy
from coe.gateway.chat_request import ChatRequest, no_model
from coe.gateway.exchange import ChatRow, Decided
from coe.gateway.experts.availability import WaitFor, Waking, no_expert, wanted
from coe.gateway.http_errors import ApiError
from coe.gateway.keys.grants import EVERYBODY, Caller
from coe.gateway.routers.live_router import CANDIDATE_FAULTS, LiveRouter
from coe.router.capabilities import (
    Target,
    capabilities,
    explicit_decision,
    model_names,
    resolve_model,
)
from coe.router.config.composition import CoeConfig
from coe.router.config.policy import Budgets
from coe.router.pipeline import Router
from coe.router.reading.features import features_hash
from coe.router.section import AUTO
from coe.router.strategies.agree import Chosen
from coe.router.types import DecisionReason, Query, QueryFacts, RoutingDecision

MOST_AT_ONCE = 8
"""A result waits for at most seven calls more than it needs."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Routed:
    """A request with the router and the policy that decide about it."""

    router: Router
    policy: str
    query: Query
    chat: ChatRequest


class Decider:
    """Decides requests. Encoders that take long run in a thread of their own.

    Args:
        waking: has engines woken; None where all are always awake.
        hash_key: of the hashes of conversations and of features.
        seed: makes exploration repeatable in tests.
        conversations: remembers their experts.
        cache: of answers, looked into before anything is routed; None where experts.yaml has none.
    """

    def __init__(
        self,
        config: CoeConfig,
        live: LiveRouter,
        pool: ExpertPool,
        waking: Waking | None,
        hash_key: bytes,
        *,
        seed: int | None,
        conversations: Conversations,
        cache: AnswerCache | None,
    ) -> None:
        self._config, self._live, self._pool, self._hash_key = config, live, pool, hash_key
        self._waking = waking
        self._capabilities = capabilities(config)
        # One generator for the event loop, one for the encoder's thread: numpy's are not safe to share.
        self._inline_rng, self._thread_rng = np.random.default_rng(seed).spawn(2)
        self._inline, self._encoding = BatchedCalls(), BatchedCalls("coe-encoder")
        self.conversations, self._cache = conversations, cache

    def close(self) -> None:
        self._encoding.close()

    def session_id(self, session: str, tenant: str) -> str:
        """A conversation's name in the log, which does not reveal what was said; no tenant has one of another."""
        return session_hash(session_of(tenant, session), self._hash_key)

    def remember(self, decided: Decided, asked: QueryFacts, expert: str) -> None:
        """Remembers who answers in a conversation."""
        if decided.conversation is None:
            return
        decision, facts = decided.decision, QueryFacts() if decided.inputs is None else decided.inputs.facts
        moves, reason, stay = facts.moves, str(decision.reason), decision.stay
        if stay is not None and decided.strategy is None:  # which asks several at each step
            moves = stay.moves
        if stay is not None and stay.kept and facts.last_reason is not None:
            reason = facts.last_reason
        last = Last(asked.answers + 1, expert, moves, reason, asked.prompt_tokens, time.time() + CACHE_S)
        self.conversations.note(decided.conversation, last)

    def ended(self, row: ChatRow) -> None:
        """Notes what the expert of a conversation has cached, and keeps the answer of a chat that has ended for the
        next that asks the same, where that may be."""
        decided, answer, context = row.decided, row.answer, row.context
        if decided is None:
            return
        if decided.conversation is not None:
            self.conversations.hear(decided.conversation, answer.usage)
        if self._cache is None or decided.slot is None or answer.text is None or context.is_probe:
            return
        is_whole = row.ending.state is TerminalState.ANSWERED and answer.finish_reason == "stop"
        if is_whole and row.calls.expert == decided.decision.expert:
            self._cache.offer(decided.slot, context.decision_id, decided.decision, answer.text)

    async def decide(
        self,
        request: ChatRequest,
        decision_id: str,
        session_id: str | None = None,
        caller: Caller = EVERYBODY,
        conversation: str | None = None,
    ) -> Decided:
        """The decision for a request; named experts can answer before a router is loaded.

        Args:
            session_id: the conversation, which stays with one router during a canary; None: this request alone.
            conversation: what identifies it; None: it has no expert yet.

        Raises:
            ApiError: a model that is unknown or that the caller may not use 404; no expert can serve it: 400 saying
                what each one lacks or why the policy keeps it out, 503 while those that could are down, 429 while they
                are all at their rate limit; routing is asked for and no router is loaded 503.
        """
        target = self._target(request.model, caller)
        if caller.experts is not None:
            facts = replace(request.facts, allowed=tuple(sorted(caller.experts)))
            request = request._replace(facts=facts)
        name = None
        if not target.experts and conversation is not None:
            name = self.conversations.name_of(conversation, caller.tenant)
            if request.facts.continues:
                last = await self.conversations.last(name, request.facts.answers)
                if last is not None:
                    request = request._replace(facts=last.facts(request.facts))
        decided = await self._decide_target(target, request, decision_id, session_id, caller)
        alias = None if target.alias is None else request.model
        return decided if name is None and alias is None else decided._replace(alias=alias, conversation=name)

    def _target(self, model: str, caller: Caller) -> Target:
        """The meaning of a model name to a caller, less what its key may not use. Raises ApiError 404."""
        experts, policies, aliases = self._capabilities, self._config.policies, self._config.aliases
        target = resolve_model(model, experts, policies, aliases)
        may_all = caller.experts is None and caller.policies is None
        if target is not None:
            named = target.experts if may_all else tuple(filter(caller.may_ask, target.experts))
            if may_all or named or (not target.experts and caller.may_ask(f"{AUTO}:{target.policy}")):
                return target._replace(experts=named)
        names = {name: (name,) for name in model_names(experts, policies)} | aliases
        allowed = [name for name, meant in names.items() if any(map(caller.may_ask, meant))]
        raise no_model(model, allowed, "" if may_all else ", or may not be used with this key")

    async def _decide_target(
        self, target: Target, request: ChatRequest, decision_id: str, session_id: str | None, caller: Caller
    ) -> Decided:
        facts, policy = request.facts, target.policy or "default"
        live, candidate = self._live.serving
        router = live
        if candidate is not None and candidate.trial.takes(session_id or decision_id):
            router = candidate.router
        try:
            if target.experts:
                able = [name for name in target.experts if self._capabilities[name].lacks(facts) is None]
                if self._waking is not None:
                    await self._waking.wake(able or target.experts)
                version, alive = "none" if router is None else router.version, self._pool.alive
                facts = self._with_those_away(facts)
                return Decided(explicit_decision(target.experts, facts, self._capabilities, alive, version=version))
            if router is None:
                raise ApiError("no router is loaded yet", status=503, code="not_ready", retry_after_s=RETRY_AFTER_S)
            slot = None
            if self._cache is not None:
                slot = await self._cache.look_up(request, caller, router.version, policy, decision_id)
                if slot is not None and slot.answer is not None:
                    return Decided(slot.answer.decision(router.version, policy), slot=slot)
            query = Query(decision_id, request.text, facts, request.earlier, request.system)
            try:
                routed = Routed(router, policy, query, request)
                decided = await self._route(routed)
                return decided if slot is None else decided._replace(slot=slot)
            except CANDIDATE_FAULTS as error:
                if router is live or live is None:
                    raise
                self._live.note_fault(router.version, error)
                return await self._route(replace(routed, router=live))
        except NoEligibleExpertError as error:
            if router is not None and not target.experts and (found := self._ungraded(router, policy, facts, error)):
                return Decided(found)
            raise no_expert(error, request, self._capabilities, self._pool) from error

    def may_set_params(self, policy: str | None) -> bool:
        """Return whether a request under this policy may replace the params of its expert."""
        found = self._config.policies.get(policy or "")
        return found is not None and found.client_params

    def _ungraded(
        self, router: Router, policy: str, facts: QueryFacts, error: NoEligibleExpertError
    ) -> RoutingDecision | None:
        """The decision for experts that nobody has graded, where no other one can serve; None where none of them can,
        or the policy has budgets, which nobody knows them to keep."""
        names = [name for name in self._config.experts if name not in router.experts]
        names = [name for name in names if facts.allowed is None or name in facts.allowed]
        if not names or self._config.policies[policy].budgets != Budgets():
            return None
        with suppress(NoEligibleExpertError):
            found = explicit_decision(names, facts, self._capabilities, self._pool.alive, version=router.version)
            lacks = {**error.reasons, **found.excluded}
            return found.model_copy(update={"reason": DecisionReason.UNGRADED, "policy": policy, "excluded": lacks})
        return None

    async def _route(self, routed: Routed) -> Decided:
        waking = self._waking
        if waking is None:
            return (await self._in_time(routed, may_wait=False))[0]
        try:
            decided, ideal = await self._in_time(routed, may_wait=True)
        except WaitFor as wait:
            await waking.wait_for_one(wait.experts)
            decided, ideal = await self._in_time(routed, may_wait=False)
        waking.note(decided.decision, ideal, begins=not routed.query.facts.continues)
        return decided

    async def _in_time(self, routed: Routed, *, may_wait: bool) -> tuple[Decided, RoutingDecision | None]:
        """A decision for an expert that has not been put to sleep meanwhile, as `_decide` makes it."""
        is_inline = routed.router.encoder.is_inline
        calls, rng = (self._inline, self._inline_rng) if is_inline else (self._encoding, self._thread_rng)
        while True:
            alive, facts = self._pool.alive, self._with_those_away(routed.query.facts)
            if facts is not routed.query.facts:
                routed = replace(routed, query=replace(routed.query, facts=facts))
            decided, ideal = await calls.run(partial(self._decide, routed, alive, rng, may_wait=may_wait), routed)
            if decided.decision.expert not in self._pool.asleep:
                return decided, ideal

    def _with_those_away(self, facts: QueryFacts) -> QueryFacts:
        asleep, limited = self._pool.asleep, self._pool.limited
        if not (asleep or limited):
            return facts
        return replace(facts, asleep=tuple(sorted(asleep)), limited=tuple(sorted(limited)))

    def _decide(
        self, routed: Routed, alive: frozenset[str], rng: np.random.Generator, *, may_wait: bool
    ) -> tuple[Decided, RoutingDecision | None]:
        """The decision, and that of all experts awake where some sleep. Raises NoEligibleExpertError, WaitFor."""
        router, policy, query = routed.router, routed.policy, routed.query
        vector, stored, view, language = router.features(query)
        query = query.read_from(view, language)
        waking, ideal = self._waking, None
        if waking is not None:
            ideal = waking.decision_of_all_awake(router, policy, query, vector)
        try:
            decision = router.decide(query, policy=policy, alive=alive, rng=rng, embedding=vector)
        except NoEligibleExpertError as error:
            if ideal is None or not may_wait:
                raise
            raise WaitFor(dict.fromkeys((wanted(ideal), *ideal.ranking))) from error
        if waking is not None and ideal is not None:
            decision = waking.beside(decision, ideal)
        strategy = router.strategy(decision.policy, decision.category)
        chosen = None
        if strategy is not None:
            chosen = chosen_strategy(strategy, router, decision, routed.chat, self._config.answers)
        decided = Decided(
            decision,
            decision_inputs(router, policy, query, alive, stored, self._hash_key),
            stored if self._config.log.embeddings else None,
            strategy=chosen if isinstance(chosen, Chosen) else None,
            declined=None if isinstance(chosen, Chosen) else chosen,
        )
        return decided, ideal


class Waiting(NamedTuple):
    """A call, the request that waits for its result, and the query that the call decides."""

    call: Callable[[], Any]
    result: asyncio.Future[Any]
    routed: Routed | None = None


Outcome = tuple[asyncio.Future[Any], Callable[[], None]]
"""The future that waits for a call, and what sets it to the call's result or error."""


class BatchedCalls:
    """Runs calls one after another. Those that come in one turn of the event loop, or while a thread works, are run
    together, by code and tables that are in the processor's caches then: where thread and event loop took turns with
    every call, a chat of 16 at once took a quarter more processor time.

    Args:
        thread: its name; None: the event loop's own runs them, at the end of the turn in which they come.
    """

    def __init__(self, thread: str | None = None) -> None:
        self._thread = None if thread is None else ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread)
        self._waiting: deque[Waiting] = deque()
        self._batch: list[Waiting] = []  # that is run now

    def run(self, call: Callable[[], T], routed: Routed | None = None) -> asyncio.Future[T]:
        """The result of a call, or what it raises."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        if not (self._waiting or self._batch):
            loop.call_soon(self._work)
        self._waiting.append(Waiting(call, result, routed))
        return result

    def close(self) -> None:
        """Runs nothing more. Who still waits is cancelled."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        for each in (*self._batch, *self._waiting):
            each.result.cancel()
        self._waiting.clear()

    def _work(self) -> None:
        self._batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        if self._thread is None or not self._batch:
            self._tell(outcomes(self._batch))
            return
        working = asyncio.get_running_loop().run_in_executor(self._thread, outcomes, self._batch)
        working.add_done_callback(lambda done: None if done.cancelled() else self._tell(done.result()))

    def _tell(self, found: Sequence[Outcome]) -> None:
        self._batch = []
        for result, settle in found:
            if not result.done():  # who waits has not left meanwhile
                settle()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._work)


def outcomes(batch: Sequence[Waiting]) -> list[Outcome]:
    """The result or the error of each call. A call that nobody waits for any more is not run.

    The texts of several queries are encoded before, one after another, while tables and weights are in the processor's
    caches. Their decisions then find the vectors in the memory of the encoder, which all routers share.
    """
    awaited = [each.routed for each in batch if each.routed and not each.result.done()]
    if len(awaited) > 1:
        with suppress(Exception):  # each call does it then
            awaited[0].router.encoder.encode([routed.query.text for routed in awaited])
    return [(each.result, outcome(each)) for each in batch if not each.result.done()]


def outcome(waiting: Waiting) -> Callable[[], None]:
    try:
        return partial(waiting.result.set_result, waiting.call())
    except StopIteration:  # a future refuses it, as a coroutine does, and all that came with it would wait for ever
        return partial(waiting.result.set_exception, RuntimeError("the call raised StopIteration"))
    except Exception as error:  # noqa: BLE001  # raised again where the result is awaited
        return partial(waiting.result.set_exception, error)


def decision_inputs(
    router: Router, policy: str, query: Query, alive: frozenset[str], embedding: bytes, key: bytes
) -> DecisionInputs:
    """The inputs to make the decision again from; `embedding` as the log keeps it, `key` of the hashes."""
    facts = query.facts if query.facts.loop is None else replace(query.facts, loop=None)  # the record has it
    return DecisionInputs(
        encoder=router.encoder.fingerprint,
        features=features_hash(embedding, key),
        settings=router.settings[policy],
        facts=facts,
        unreachable=tuple(name for name in router.experts if name not in alive),
    )
