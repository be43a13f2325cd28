"""A gateway that serves retrieval over hashing encoders, with decisions that a reader can foresee."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import openai

from coe.decision_log.database import Database
from coe.fleet.calls.backend import ChatBackend
from coe.fleet.calls.pool import ExpertPool
from coe.gateway.batches.batch_store import BatchStore
from coe.gateway.http.auth import Auth
from coe.gateway.keys.key_ring import KeyRing
from coe.gateway.keys.key_store import KeyStore
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import LiveRouter
from coe.gateway.telemetry.telemetry import Telemetry
from coe.retrieval.build_experts import build_experts
from coe.retrieval.routing.pilot_router import RetrievalRouter
from coe.retrieval.routing.query_routing import Choices, QueryRouting
from coe.retrieval.service import RetrievalService
from coe.retrieval.stores.files import Files
from coe.retrieval.types import BASE, Arm, DenseExpert
from coe.router.config.retrieval import RetrievalConfig
from coe.router.types import FloatArray
from tests.gateway.running import config_of, echoes
from tests.gateway.small_router import small_router
from tests.memory_log import MemoryLog

ANIMAL_QUERIES = ("which animal purrs when it is content", "animal that barks at night")
WORD_QUERIES = ("error code E1234", "error code E9")
BOTH_QUERIES = ("zebra stripes riddle",)
PHRASE_QUERIES = ("storm warning",)

EXPERTS = {
    "animals": {"kind": "encoder", "encoder": "hashing", "query_prefix": "animal ", "shares_documents": True},
    "words": {"kind": "bm25"},
    "other": {"kind": "encoder", "encoder": "hashing", "options": {"dim": 64}},
}
ARMS = (
    Arm(members=(BASE,), weights=(1.0,)),
    Arm(members=("animals",), weights=(1.0,)),
    Arm(members=("words",), weights=(1.0,)),
    Arm(members=("animals", "words"), weights=(0.5, 0.5)),
    Arm(members=("animals", "words"), weights=(0.05, 0.05), evidence=(0.0, 0.8, -0.1), learned_on="weather"),
)


def retrieval_config(dim: int = 256, **sections: Any) -> RetrievalConfig:
    encoder = {"kind": "hashing", "dim": dim}
    animals = {**EXPERTS["animals"], "options": {"dim": dim}}
    return RetrievalConfig.model_validate({"encoder": encoder, "experts": {**EXPERTS, "animals": animals}, **sections})


@dataclass(frozen=True)
class Foreseen:
    """Gains of arms by the labelled query that equals the text; base wins everything else."""

    known: FloatArray
    gains: FloatArray

    def score(self, embeddings: FloatArray) -> tuple[FloatArray, FloatArray, Any]:
        cosine = embeddings @ self.known.T
        nearest, is_known = cosine.argmax(axis=1), cosine.max(axis=1) > 0.999
        lost = np.where(np.arange(self.gains.shape[1]) == 0, 0.0, -0.01).astype(np.float32)
        return np.where(is_known[:, None], self.gains[nearest], lost), cosine.max(axis=1), is_known


def pilots(base: DenseExpert, arms: Sequence[Arm]) -> RetrievalRouter:
    """Animal queries to `animals`, error codes to `words`, riddles to both, warnings to both as the weather taught,
    everything else to base."""
    texts = (*ANIMAL_QUERIES, *WORD_QUERIES, *BOTH_QUERIES, *PHRASE_QUERIES)
    winners = [ARMS[place] for place in (1, 1, 2, 2, 3, 4)]
    gains = np.array([[0.5 if arm == each else 0.0 for arm in arms] for each in winners], dtype=np.float32)
    model: Any = Foreseen(base.encode_queries(texts), gains)
    return RetrievalRouter(tuple(arms), model, base.dim, "pilots-1")


def build_routing(config: RetrievalConfig) -> QueryRouting:
    experts = build_experts(config, Path())
    base = experts[BASE]
    assert isinstance(base, DenseExpert)
    return QueryRouting(experts, Choices(pilots(base, ARMS), pilots(base, ARMS[:2])))


@dataclass
class Serving:
    """A running gateway with clients."""

    gateway: Gateway
    http: aiohttp.ClientSession
    log: MemoryLog
    service: RetrievalService
    store: Database

    @cached_property
    def url(self) -> str:
        return self.gateway.url

    def openai(self, key: str = "none") -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url, api_key=key, max_retries=0)

    async def post(self, path: str, body: Mapping[str, object], key: str | None = None) -> tuple[int, Any, Any]:
        """Status, body, headers."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        async with self.http.post(f"{self.url}{path}", json=body, headers=headers) as response:
            return response.status, await response.json(), response.headers

    async def store_of(self, texts: Mapping[str, str], **attributes: Mapping[str, object]) -> str:
        """A store with those texts by file name; `attributes` by file name without its suffix."""
        _, store, _ = await self.post("/vector_stores", {"name": "test"})
        items = [
            {"text": text, "filename": name, "attributes": attributes.get(name.partition(".")[0])}
            for name, text in texts.items()
        ]
        status, body, _ = await self.post(f"/vector_stores/{store['id']}/texts", {"texts": items})
        assert status == 200, body
        assert {each["status"] for each in body["data"]} == {"completed"}, body
        return str(store["id"])

    async def search(self, store_id: str, query: object, **fields: object) -> tuple[int, Any, Any]:
        return await self.post(f"/vector_stores/{store_id}/search", {"query": query, **fields})


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    keys: Sequence[str] = (),
    config: RetrievalConfig | None = None,
    routing: QueryRouting | None = None,
    service: RetrievalService | None = None,
    backends: Mapping[str, ChatBackend] | None = None,
    has_store: bool = True,
    secrets: Mapping[str, str] | None = None,
    database_url: str | None = None,
    redis_url: str | None = None,
    telemetry: Telemetry | None = None,
    **limits: Any,
) -> AsyncIterator[Serving]:
    """A gateway on port 0 with its database and indexes in a folder."""
    config = config or retrieval_config()
    folder.mkdir(parents=True, exist_ok=True)
    url = database_url or f"sqlite:///{folder / 'coe.db'}"
    store = Database(url)
    batches = BatchStore(Files(store, folder / "incoming")) if has_store else None
    service = service or RetrievalService(config, routing or build_routing(config))
    if batches is not None:
        service.open_stores(batches.files, secrets or {}, url)
    log = MemoryLog(store=store)
    parts = Parts(
        config=config_of(**{"shutdown_grace_s": 1.0, **limits}).model_copy(update={"retrieval": config}),
        pool=ExpertPool(backends if backends is not None else echoes()),
        live=LiveRouter(Path("no-routers"), lambda folder: small_router(), small_router()),
        sink=log,
        database=store,
        auth=Auth(keys, KeyRing(KeyStore(store))),
        hash_key=b"0" * 32,
        retrieval=service,
        batches=batches,
        redis_url=redis_url,
        telemetry=telemetry,
    )
    gateway = Gateway(parts)
    await gateway.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Serving(gateway, http, log, service, store)
    finally:
        await gateway.stop()
        store.close()
