"""Everything a running gateway holds, made in one place and passed down."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from decision_log.privacy import keyed_hash, session_hash
from decision_log.protocols import DecisionDatabase, DecisionSink
from fleet.pool import ExpertPool
from fleet.retry_budget import RetryBudget
from gateway.admission import Admission
from gateway.auth import Auth
from gateway.http_errors import RETRY_AFTER_S, ApiError, api_error
from gateway.intake import Intake
from gateway.live_router import LiveRouter
from gateway.metrics import Metrics
from gateway.retrieval.attachment import Attachments
from gateway.retrieval.log import RetrievalLog
from gateway.shadow import CANDIDATE_FAULTS, PendingShadow, ShadowAsk, Shadows
from gateway.wire import ChatRequest, Target, resolve_model
from retrieval.service import RetrievalService
from router.build import capabilities
from router.config import CoeConfig
from router.errors import NoEligibleExpertError, StoreError
from router.features import features_hash, to_bytes
from router.pipeline import NOT_REACHABLE, Router, explicit_decision
from router.types import DecisionInputs, FloatArray, Query, QueryFacts, RoutingDecision

if TYPE_CHECKING:
    from gateway.judging.judge import Judge

UPLOAD_PATH = "/v1/files"
UPLOAD_FRAME_BYTES = 64 * 1024  # of a multipart body around its file


class Decided(NamedTuple):
    """A decision, the router in force, and what it decided from.

    `inputs` and `embedding` are None where the client named the expert; `embedding` also where the log keeps none.
    `shadow` is what a router on trial decides meanwhile, None without one.
    """

    router: Router | None
    decision: RoutingDecision
    inputs: DecisionInputs | None = None
    embedding: bytes | None = None
    shadow: PendingShadow | None = None


@dataclass
class GatewayState:
    """The parts of one gateway process.

    `expert_keys` are the secrets that experts are called with, by expert. `session_key` keys the hashes of
    conversations and of features; `seed` makes exploration repeatable in tests.
    """

    config: CoeConfig
    pool: ExpertPool
    live: LiveRouter
    sink: DecisionSink
    store: DecisionDatabase | None = None
    auth: Auth = field(default_factory=Auth)
    session_key: bytes = b""
    expert_keys: Mapping[str, str] = field(default_factory=dict)
    retrieval: RetrievalService | None = None
    judge: Judge | None = None
    seed: int | None = None
    is_stopping: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    retry_budget: RetryBudget = field(default_factory=RetryBudget)

    def __post_init__(self) -> None:
        limits = self.config.gateway
        self.admission = Admission(limits.max_concurrency)
        self.intake = Intake(limits.max_bytes_in_flight, limits.max_bodies_per_client, limits.max_connections)
        self.capabilities = capabilities(self.config)
        # One generator for the event loop, one for the encoder's thread: numpy's are not safe to share.
        self._inline_rng, self._thread_rng = np.random.default_rng(self.seed).spawn(2)
        self._encoder_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coe-encoder")
        self.shadows = Shadows(self.seed)
        self.metrics.watch(self)
        self.retrieval_log = RetrievalLog(self.sink, self.metrics)
        self.attachments = None if self.retrieval is None else self._attachments(self.retrieval)

    def _attachments(self, retrieval: RetrievalService) -> Attachments:
        keeps = self.config.log.embeddings
        return Attachments(retrieval, self.retrieval_log, self.capabilities, keeps_embeddings=keeps)

    async def start(self) -> None:
        """Probes the experts and loads the promoted router. The sink is started by whoever made it."""
        await asyncio.gather(self.pool.start(), self.live.start())
        if self.retrieval is not None:
            await self.retrieval.start()
        if self.judge is not None:
            await self.judge.start()

    async def aclose(self) -> None:
        if self.judge is not None:
            await self.judge.aclose()
        if self.retrieval is not None:
            await self.retrieval.aclose()
        await self.live.aclose()
        await self.pool.aclose()
        self._encoder_thread.shutdown(wait=False, cancel_futures=True)
        self.shadows.close()

    def missing(self, *, is_answered: bool = True) -> list[str]:
        """What keeps this gateway from serving; empty when it is ready.

        Args:
            is_answered: an expert that gets requests is there, as `ExpertPool.is_answering` found.
        """
        lacks = []
        if self.is_stopping:
            lacks.append("the gateway is stopping")
        if self.live.current is None:
            reason = f" ({self.live.last_error})" if self.live.last_error else ""
            lacks.append(f"no router is loaded{reason}")
        if self.sink.problem is not None:
            lacks.append(f"the decision log cannot be written ({self.sink.problem})")
        if not (self.pool.alive and is_answered):
            lacks.append(f"no expert answers: {', '.join(self.pool.names)}")
        return lacks

    async def check_log(self) -> None:
        """Before an expert is asked. Raises ApiError 503 where answers wait for rows that could not be made safe."""
        try:
            await self.sink.check()
        except StoreError as error:
            raise api_error(error) from error

    def max_body_bytes(self, path: str) -> int:
        """How large a body may be: uploads of documents have a limit of their own."""
        if path == UPLOAD_PATH and self.retrieval is not None:
            return self.retrieval.config.stores.max_file_mb * 1024 * 1024 + UPLOAD_FRAME_BYTES
        return self.config.gateway.max_body_bytes

    def target(self, model: str) -> Target:
        """Raises ApiError 404 for a name that nobody has."""
        return resolve_model(model, self.config.experts, self.config.policies)

    def session_id(self, session: str) -> str:
        """A conversation's name in the log, which says nothing of what was said."""
        return session_hash(session, self.session_key)

    def cache_salt(self, key_id: str | None) -> str:
        """A caller's part of an engine's cache, by a name that no other can guess; empty where there are no keys."""
        return "" if key_id is None else keyed_hash(f"cache:{key_id}", self.session_key)

    async def decide(self, request: ChatRequest, decision_id: str, session_id: str | None = None) -> Decided:
        """The decision for a request, and the router in force; an expert that is named answers before there is one.

        Args:
            session_id: the conversation, which stays with one router during a canary; None: this request alone.

        Raises:
            ApiError: unknown model 404; nobody can serve it: 400 saying what each expert lacks or why the policy keeps
                it out, or 503 while those that could are down; routing is asked for and no router is loaded 503.
        """
        target, facts = self.target(request.model), request.facts
        serving = await self.live.for_request()
        router = serving.router_for(session_id or decision_id)
        try:
            if target.expert is not None:
                version = "none" if router is None else router.version
                alive = self.pool.alive
                return Decided(
                    router, explicit_decision(target.expert, facts, self.capabilities, alive, version=version)
                )
            if router is None:
                raise ApiError("no router is loaded yet", status=503, code="not_ready", retry_after_s=RETRY_AFTER_S)
            query = Query(decision_id, request.text, facts)
            try:
                return await self._route(router, target.policy or "default", query, serving.shadow)
            except CANDIDATE_FAULTS as error:
                if router is serving.live or serving.live is None:
                    raise
                self.live.note_fault(router.version, error)
                return await self._route(serving.live, target.policy or "default", query, None)
        except NoEligibleExpertError as error:
            raise self._nobody(error, facts) from error

    async def _route(self, router: Router, policy: str, query: Query, shadow: Router | None) -> Decided:
        alive = self.pool.alive
        if router.encoder.is_inline:
            return self._decide(router, policy, query, alive, self._inline_rng, shadow)
        decide = partial(self._decide, router, policy, query, alive, self._thread_rng, shadow)
        return await asyncio.get_running_loop().run_in_executor(self._encoder_thread, decide)

    def _decide(
        self,
        router: Router,
        policy: str,
        query: Query,
        alive: frozenset[str],
        rng: np.random.Generator,
        shadow: Router | None,
    ) -> Decided:
        vector = router.embed(query.text)
        decision = router.decide(query, policy=policy, alive=alive, rng=rng, embedding=vector)
        kept = to_bytes(vector) if self.config.log.embeddings else None
        pending = None
        if shadow is not None:
            ask = ShadowAsk(shadow, router, decision, query, alive, vector)
            pending = self.shadows.start(ask, self.live.note_fault)
        inputs = decision_inputs(router, policy, query, alive, vector, self.session_key)
        return Decided(router, decision, inputs, kept, pending)

    def _nobody(self, error: NoEligibleExpertError, facts: QueryFacts) -> ApiError:
        """Why no expert serves a request: what it asks for, or asks of its policy (400), or that those who could are
        down (503)."""
        names = tuple(error.reasons)
        down = [name for name, reason in error.reasons.items() if reason == NOT_REACHABLE]
        lacking = [name for name in names if self.capabilities[name].lacks(facts) is not None]
        outside = {name: error.reasons[name] for name in names if name not in down and name not in lacking}
        if down:
            kept_out = "".join(f"; {name}: {reason}" for name, reason in outside.items())
            return ApiError(
                f"no expert that can serve this request is reachable now ({', '.join(down)}{kept_out})",
                status=503,
                code="no_expert_alive",
                retry_after_s=RETRY_AFTER_S,
            )
        if outside:
            return ApiError(str(error), code="outside_policy", param="model")
        # Whoever would take a short prompt with the same demands lacks only context.
        short = QueryFacts(
            has_image=facts.has_image, has_tools=facts.has_tools, wants_json=facts.wants_json, prompt_chars=0
        )
        is_too_long = any(self.capabilities[name].lacks(short) is None for name in names)
        code = "context_length_exceeded" if is_too_long else "unsupported_by_experts"
        return ApiError(str(error), code=code, param="messages")


def decision_inputs(
    router: Router, policy: str, query: Query, alive: frozenset[str], embedding: FloatArray, key: bytes
) -> DecisionInputs:
    """What the log keeps so that the decision can be made again; `embedding` (1, d), `key` of the hashes."""
    return DecisionInputs(
        encoder=router.encoder.fingerprint,
        features=features_hash(embedding, key),
        settings=router.settings[policy],
        facts=query.facts,
        unreachable=tuple(name for name in router.experts if name not in alive),
    )
