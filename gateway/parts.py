"""The parts of one gateway process, made and connected here. Only gateway/app.py and gateway/serve.py hold all of them:
what they build gets the parts that it uses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from decision_log.protocols import DecisionDatabase, DecisionSink
from fleet.pool import ExpertPool
from gateway.auth import Auth
from gateway.chat_log import ChatLog
from gateway.deciding import Decider
from gateway.expert_call import ExpertCall
from gateway.intake import Admission, Intake
from gateway.judging.judge import Judge
from gateway.keys.limits import Limits
from gateway.live_router import LiveRouter
from gateway.metrics import Metrics
from gateway.part_metrics import (
    expert_metrics,
    intake_metrics,
    judge_metrics,
    log_metrics,
    pilot_metrics,
    router_metrics,
)
from gateway.readiness import Readiness
from gateway.retrieval.attachment import Attachments
from gateway.retrieval.log import RetrievalLog
from gateway.siblings import Siblings
from retrieval.service import RetrievalService
from router.build import capabilities
from router.config import CoeConfig

LEASE_SLACK_S = 60.0
"""Between the end of the longest request that is allowed and its last settlement."""


@dataclass
class Parts:
    """Everything that a gateway works with.

    Args:
        expert_keys: the secrets that experts are called with, by expert.
        hash_key: of the hashes of conversations and of features.
        siblings: the other processes of this gateway.
        redis_url: where caps of keys are counted.
        seed: makes exploration and samples repeatable in tests.
    """

    config: CoeConfig
    pool: ExpertPool
    live: LiveRouter
    sink: DecisionSink
    store: DecisionDatabase | None = None
    auth: Auth = field(default_factory=Auth)
    hash_key: bytes = b""
    expert_keys: Mapping[str, str] = field(default_factory=dict)
    retrieval: RetrievalService | None = None
    seed: int | None = None
    siblings: Siblings = field(default_factory=Siblings)
    redis_url: str | None = None

    def __post_init__(self) -> None:
        config, limits = self.config, self.config.gateway
        can_take = capabilities(config)
        self.metrics = Metrics()
        self.admission = Admission(limits.max_concurrency)
        self.intake = Intake(limits.max_bytes_in_flight, limits.max_bodies_per_client, limits.max_connections)
        self.readiness = Readiness(self.pool, self.live, self.sink)
        self.decider = Decider(
            self.live,
            self.pool,
            can_take,
            config.policies,
            self.hash_key,
            aliases=config.aliases,
            keeps_embeddings=config.log.embeddings,
            seed=self.seed,
        )
        self.experts = ExpertCall(self.pool, config.experts, self.expert_keys, self.hash_key, retries=limits.retries)
        longest_s = max(entry.total_timeout_s for entry in config.experts.values()) * (limits.retries + 1)
        self.limits = Limits(self.redis_url, lease_s=longest_s + LEASE_SLACK_S)
        self.chat_log = ChatLog(self.sink, self.metrics, config.experts)
        self.retrieval_log = RetrievalLog(self.sink, self.metrics.registry, keeps_embeddings=config.log.embeddings)
        self.attachments: Attachments | None = None
        if self.retrieval is not None:
            self.attachments = Attachments(self.retrieval, self.retrieval_log, can_take)
        self.judge: Judge | None = None
        if config.judge is not None and self.store is not None:
            self.judge = Judge(config.judge, config.experts, self.pool, self.store, self._running, self.seed)
        self._watch()

    def _watch(self) -> None:
        """Adds what the parts count themselves to the metrics."""
        watch, judge, pilots = self.metrics.watch, self.judge, self.retrieval.pilots if self.retrieval else None
        self.metrics.watch_running(self._running)
        watch(lambda: log_metrics(self.sink))
        watch(lambda: intake_metrics(self.intake))
        watch(lambda: router_metrics(self.live, self.decider.shadows))
        watch(lambda: expert_metrics(self.pool))
        if judge is not None:
            watch(lambda: judge_metrics(judge))
        if pilots is not None:
            watch(lambda: pilot_metrics(pilots))

    def _running(self) -> int:
        return self.admission.running

    async def start(self) -> None:
        """Probes the experts and loads the promoted router. The sink's owner starts it."""
        await asyncio.gather(self.pool.start(), self.live.start(), self.auth.start())
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
        await self.auth.aclose()
        await self.limits.aclose()
        await self.pool.aclose()
        self.decider.close()
