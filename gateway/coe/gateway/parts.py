"""The components of one gateway process, built and connected here.

Only `app.py` and `lifecycle/serve.py` hold all of them: what they build gets the components that it uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coe.decision_log.database import Database
from coe.decision_log.sink import DecisionLog
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.calls.replicas import ExpertBackend
from coe.fleet.certificate import Standing, read_standing
from coe.gateway.answer_cache import cache_of
from coe.gateway.batches.batch_store import BatchStore
from coe.gateway.chat.conversations import Conversations
from coe.gateway.chat.deciding import Decider
from coe.gateway.chat.log import ChatCounts, ChatLog, ServedModels
from coe.gateway.experts.availability import Waking
from coe.gateway.experts.call import ExpertCall
from coe.gateway.http.admission import BodyLimits, ConcurrencyLimit
from coe.gateway.http.auth import Auth
from coe.gateway.keys.limits import Limits
from coe.gateway.metrics import Metrics
from coe.gateway.routers.live_router import LiveRouter
from coe.gateway.telemetry.telemetry import Telemetry
from coe.router.config.composition import CoeConfig
from coe.router.strategies.agree import StrategyName

if TYPE_CHECKING:
    from coe.fleet.residency.controller import Controller
    from coe.gateway.changes.live_config import LiveConfig
    from coe.gateway.chat.judge import Judge
    from coe.retrieval.service import RetrievalService

LEASE_SLACK_S = 60.0
"""Between the end of the longest request that is allowed and its last settlement."""


@dataclass
class Parts:
    """Everything that a gateway works with.

    Args:
        expert_keys: the secrets that experts are called with, by expert.
        hash_key: of the hashes of conversations and of features.
        redis_url: where caps of keys are counted and answers kept.
        shares_redis: other gateways use it too, so that all know the experts of conversations.
        live_config: puts other configurations in force; None where there is one for good.
        seed: makes exploration and samples repeatable in tests.
        telemetry: follows requests; None where the environment asks for neither traces nor lines.
        residency: decides which engines are awake; None where experts.yaml does not ask for it.
        is_stopping: set when the gateway begins to end.
    """

    config: CoeConfig
    pool: ExpertPool
    live: LiveRouter
    sink: DecisionLog
    database: Database
    auth: Auth = field(default_factory=Auth)
    hash_key: bytes = b""
    expert_keys: Mapping[str, str] = field(default_factory=dict)
    retrieval: RetrievalService | None = None
    batches: BatchStore | None = None
    seed: int | None = None
    redis_url: str | None = None
    shares_redis: bool = True
    live_config: LiveConfig | None = None
    telemetry: Telemetry | None = None
    residency: Controller | None = None
    is_stopping: bool = False

    def __post_init__(self) -> None:
        """Makes what a change of experts.yaml leaves as it is, because it counts, or holds what all requests share."""
        config, limits = self.config, self.config.gateway
        concurrency = self.concurrency = ConcurrencyLimit(limits.max_concurrency)
        self.metrics, self.chat_counts = Metrics(), ChatCounts()
        self.metrics.watch(self.chat_counts.families)
        self.body_limits = BodyLimits(limits.max_bytes_in_flight, limits.max_connections)
        self.limits = Limits(self.redis_url, lease_s=0.0)
        self.conversations = Conversations(self.redis_url if self.shares_redis else None)
        self.judge: Judge | None = None
        if config.judge is not None:
            from coe.gateway.chat.judge import Judge

            self.judge = Judge(
                config.judge,
                config.experts,
                self.pool,
                self.database,
                lambda: concurrency.running,
                self.seed,
            )
        self._connect()

    def _connect(self) -> None:
        """Makes what belongs to one experts.yaml."""
        config, limits = self.config, self.config.gateway
        longest_s = max(entry.total_timeout_s for entry in config.experts.values()) * (limits.retries + 1)
        if any(policy.strategy is not StrategyName.SINGLE for policy in config.policies.values()):
            longest_s += sum(entry.total_timeout_s for entry in config.experts.values())
        self.limits.allow(longest_s + LEASE_SLACK_S)
        self.cache = cache_of(config, self.redis_url)
        self.decider = Decider(
            config,
            self.live,
            self.pool,
            None if self.residency is None else Waking(self.pool, self.residency),
            self.hash_key,
            seed=self.seed,
            conversations=self.conversations,
            cache=self.cache,
        )
        self.experts = ExpertCall(self.pool, config.experts, self.expert_keys, self.hash_key, retries=limits.retries)
        self.chat_log = ChatLog(self.sink, self.metrics, self.chat_counts, ServedModels(config.experts, self.metrics))

    def standing(self) -> Standing | None:
        """The certificate of the data folder, and whether it holds here."""
        folder = Path() if self.live_config is None else self.live_config.folder
        data_dir, router = self.live.folder.parent, self.live.current
        return read_standing(data_dir, self.hash_key, self.config, folder, router, self.metrics.replaced_models)

    def missing(self, *, is_answered: bool = True) -> list[str]:
        """The reasons why the gateway cannot serve: at the start of `coe serve`, on `/readyz`, and while it stops.

        Args:
            is_answered: an expert that gets requests is there, as `ExpertPool.is_answering` found.
        """
        lacks = []
        if self.is_stopping:
            lacks.append("the gateway is stopping")
        if self.live.current is None:
            first = "; `coe up` or `coe train` makes the first"
            lacks.append(f"no router is loaded{f' ({self.live.last_error})' if self.live.last_error else first}")
        if self.sink.problem is not None:
            lacks.append(f"the decision log cannot be written ({self.sink.problem})")
        if not ((self.pool.alive or self.pool.limited) and is_answered):
            lacks.append(f"no expert answers: {', '.join(self.pool.names)}")
        return lacks

    def changed(self, config: CoeConfig, pool: ExpertPool, live: LiveRouter, expert_keys: Mapping[str, str]) -> Parts:
        """Parts for another experts.yaml, to be served by `Gateway.change`."""
        parts = copy(self)
        parts.config, parts.pool, parts.live, parts.expert_keys = config, pool, live, expert_keys
        parts._connect()
        return parts

    async def start(self) -> None:
        """Probes the experts and loads the promoted router. The sink's owner starts it."""
        await asyncio.gather(self.start_changed(), self.auth.ring.start())
        if self.residency is not None:
            self.residency.start(self.pool)
        if self.retrieval is not None:
            await self.retrieval.start()
        if self.judge is not None:
            await self.judge.start()

    async def start_changed(self) -> None:
        """Starts what `changed` does not share."""
        await asyncio.gather(self.pool.start(), self.live.start())

    async def close_changed(self, in_use: Collection[ExpertBackend] = ()) -> None:
        """Closes what `changed` does not share, less the backends that other parts use."""
        await asyncio.gather(self.live.aclose(), self.pool.aclose(in_use))
        if self.cache is not None:
            await self.cache.aclose()
        self.decider.close()

    async def aclose(self) -> None:
        kept = (self.residency, self.judge, self.retrieval, self.auth.ring, self.limits, self.conversations)
        for part in kept:
            if part is not None:
                await part.aclose()
        await self.close_changed()
