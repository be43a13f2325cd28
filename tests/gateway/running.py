"""A gateway on a real socket in this process, over any backends."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.feedback_types import Feedback, FeedbackStatus, ImplicitKind, JudgedAnswer
from coe.fleet.calls.backend import ChatBackend
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.providers import echo, vllm
from coe.fleet.residency.controller import Controller
from coe.gateway.batches.batch_store import BatchStore
from coe.gateway.http.auth import Auth
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import LiveRouter
from coe.gateway.telemetry.telemetry import Telemetry
from coe.router.config.composition import CoeConfig, parse_config
from coe.router.config.feedback import FeedbackConfig
from coe.router.pipeline import Router
from tests.gateway.fault_upstream import FaultUpstream, fault_upstream
from tests.gateway.small_router import EXPERTS, small_router
from tests.memory_log import MemoryLog
from tests.waiting import until


class MemoryStore:
    """The fake of the database."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.log = log or MemoryLog()
        self.decisions: dict[str, DecisionRecord] = {}
        self.feedback: dict[tuple[str, str, str | None], Feedback] = {}
        self.judgements: list[JudgedAnswer] = []

    def get_decision(self, decision_id: str) -> DecisionRecord | None:
        logged = (each for each in self.log.records if each.decision_id == decision_id)
        return self.decisions.get(decision_id) or next(logged, None)

    def put_feedback(self, feedback: Feedback, caps: FeedbackConfig, about: DecisionRecord) -> FeedbackStatus:
        key = (feedback.decision_id, feedback.kind.value, feedback.key_id)
        before = self.feedback.get(key)
        if before is None and len(self.feedback) >= caps.max_per_hour:
            return FeedbackStatus.OVER_HOUR
        self.feedback[key] = feedback
        if before is None:
            return FeedbackStatus.ACCEPTED
        return FeedbackStatus.REPEATED if before.value == feedback.value else FeedbackStatus.REPLACED

    def get_feedback(self, decision_id: str) -> tuple[Feedback, ...]:
        return tuple(kept for kept in self.feedback.values() if kept.decision_id == decision_id)

    def get_signals(self, record: DecisionRecord) -> tuple[ImplicitKind, ...]:
        return ()

    def put_judgements(self, judgements: Sequence[JudgedAnswer]) -> None:
        self.judgements.extend(judgements)

    def count_compared(self, judge: str, rubric: str) -> Counter[str]:
        return Counter(name for each in self.judgements if each.other for name in (each.expert, each.other))


def config_of(
    experts: Sequence[str] = EXPERTS,
    sections: Mapping[str, object] | None = None,
    entries: Mapping[str, Mapping[str, object]] | None = None,
    **gateway: Any,
) -> CoeConfig:
    """A composition of echoes; `entries` add to what it says of an expert."""
    more = entries or {}
    return parse_config(
        {
            "categories": {"red": "red", "green": "green", "general": "the rest"},
            "experts": {name: {"engine": "echo", "model": "echo", **more.get(name, {})} for name in experts},
            "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
            "policies": {"default": {}, "wild": {"exploration": 1.0}},
            "gateway": gateway,
            **(sections or {}),
        }
    )


def provider(url: str, name: str = "expert", **options: Any) -> ChatBackend:
    """A backend on a fault upstream."""
    return vllm.build(vllm.Options(url=url, served_model=name, **options))


def echoes(**replaced: ChatBackend) -> dict[str, ChatBackend]:
    """Echo backends for every expert but those given."""
    return {name: replaced.get(name) or echo.build(echo.Options(model=name)) for name in EXPERTS}


@dataclass
class Running:
    """A running gateway with what a test needs at hand."""

    gateway: Gateway
    client: aiohttp.ClientSession
    log: MemoryLog
    store: MemoryStore

    @property
    def parts(self) -> Parts:
        return self.gateway.parts

    @property
    def root(self) -> str:
        return self.gateway.url.removesuffix("/v1")

    def chat(
        self, text: str = "red", *, model: str = "auto", headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return self.client.post(f"{self.gateway.url}/chat/completions", json=body, headers=headers)

    def stop_clock(self, later_s: float = 0.0) -> None:
        """Stops the experts' time, so much later: no rest of one ends before a test on a busy machine has looked."""
        now = self.parts.pool.clock() + later_s
        self.parts.pool.clock = lambda: now

    async def record(self, number: int = 0) -> DecisionRecord:
        """The record of that number, once it is there."""
        await until(lambda: len(self.log.records) > number)
        return self.log.records[number]


@asynccontextmanager
async def running(
    backends: Mapping[str, ChatBackend] | None = None,
    *,
    router: Router | None = None,
    routers: Path = Path("no-routers"),
    load: Callable[[Path], Router] | None = None,
    keys: Sequence[str] = (),
    auth: Auth | None = None,
    has_router: bool = True,
    log: MemoryLog | None = None,
    sections: Mapping[str, object] | None = None,
    store: Database | None = None,
    host: str = "127.0.0.1",
    entries: Mapping[str, Mapping[str, object]] | None = None,
    expert_keys: Mapping[str, str] | None = None,
    redis_url: str | None = None,
    telemetry: Telemetry | None = None,
    batches: BatchStore | None = None,
    residency: Controller | None = None,
    **limits: Any,
) -> AsyncIterator[Running]:
    """A gateway with a small router on port 0; `limits` are the gateway section of experts.yaml, `sections` others."""
    current = (router or small_router()) if has_router else None
    log = log or MemoryLog(store=store)
    memory = MemoryStore(log)
    parts = Parts(
        config=config_of(sections=sections, entries=entries, **{"shutdown_grace_s": 1.0, **limits}),
        pool=ExpertPool(backends if backends is not None else echoes()),
        live=LiveRouter(routers, load or (lambda folder: small_router()), current),
        sink=log,
        database=store or memory,
        auth=auth or Auth(keys),
        hash_key=b"0" * 32,
        expert_keys=expert_keys or {},
        seed=0,
        redis_url=redis_url,
        telemetry=telemetry,
        batches=batches,
        residency=residency,
    )
    gateway = Gateway(parts, host=host)
    await gateway.start()
    try:
        async with aiohttp.ClientSession() as client:
            yield Running(gateway, client, log, memory)
    finally:
        await gateway.stop()


@asynccontextmanager
async def faulty(
    mode: str = "ok", provider_options: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Running, FaultUpstream]]:
    """Ruby is a fault upstream: `provider_options` for its provider, and `options` for the gateway."""
    async with (
        fault_upstream(mode) as upstream,
        running(echoes(ruby=provider(upstream.url, **(provider_options or {}))), **options) as gateway,
    ):
        yield gateway, upstream
