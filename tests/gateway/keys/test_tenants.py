"""Nothing that a team makes is there for keys of another: every endpoint, a new one included, is in one list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coe.decision_log.erase import stored_forms
from coe.gateway.app import REST_PATHS
from coe.gateway.endpoints.fastapi_app import create_rest
from coe.gateway.endpoints.status import PLAIN
from coe.gateway.keys.grants import Grant, Measure, parse_caps
from coe.gateway.keys.key_store import KeyStore
from coe.retrieval.service import RetrievalService
from tests.gateway.keys.test_limits import counters
from tests.gateway.retrieval.serving import Serving, retrieval_config, serving
from tests.waiting import until

STORE = "/v1/vector_stores/{store_id}"
OWNED = {
    "GET /v1/decisions/{decision_id}": None,
    "GET /v1/files/{file_id}": None,
    "GET /v1/files/{file_id}/content": None,
    f"GET {STORE}": None,
    f"GET {STORE}/files": None,
    f"GET {STORE}/files/{{file_id}}": None,
    f"GET {STORE}/files/{{file_id}}/content": None,
    f"GET {STORE}/file_batches/{{batch_id}}": None,
    f"GET {STORE}/file_batches/{{batch_id}}/files": None,
    "GET /v1/batches/{job_id}": None,
    "POST /v1/batches": {"input_file_id": "{input_id}", "endpoint": "/v1/completions"},
    "POST /v1/batches/{job_id}/cancel": None,
    "POST /v1/feedback": {"decision_id": "{decision_id}", "kind": "thumb", "value": 1},
    f"POST {STORE}": {"name": "mine"},
    f"POST {STORE}/search": {"query": "cats"},
    f"POST {STORE}/files": {"file_id": "{file_id}"},
    f"POST {STORE}/files/{{file_id}}": {"attributes": {}},
    f"POST {STORE}/texts": {"texts": [{"text": "x", "filename": "x.txt"}]},
    f"POST {STORE}/file_batches": {"file_ids": ["{file_id}"]},
    f"POST {STORE}/file_batches/{{batch_id}}/cancel": {},
    f"DELETE {STORE}/files/{{file_id}}": None,
    f"DELETE {STORE}": None,
    "DELETE /v1/files/{file_id}": None,
}
"""Endpoints that name something a team made, with a body for them. Deletions come last: the owner does them all."""

LISTS = {"GET /v1/batches", "GET /v1/decisions", "GET /v1/files", "GET /v1/spend", "GET /v1/vector_stores"}

TEAMLESS = {
    "GET /healthz",
    "GET /metrics",  # of all teams, for an admin
    "GET /readyz",
    "GET /v1/admin/config",
    "GET /v1/admin/routers",
    "GET /v1/experts",
    "GET /v1/models",
    "GET /v1/models/{name}",
    "POST /v1/admin/routers/{version}/promote",
    "POST /v1/admin/routers/{version}/try",
    "POST /v1/admin/routers/rollback",
    "POST /v1/embeddings",
    "POST /v1/files",
    "POST /v1/rerank",
    "POST /v1/route",
    "POST /v1/vector_stores",
}
"""Endpoints that show nothing which a team made."""


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def call(
    gateway: Serving, endpoint: str, key: str, body: object = None, ids: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    method, path = endpoint.split(" ")
    headers = {**bearer(key), "content-type": "application/json"}
    text = "" if body is None else json.dumps(body)
    for name, value in (ids or {}).items():
        path, text = (part.replace(f"{{{name}}}", value) for part in (path, text))
    url = gateway.url.removesuffix("/v1") + path
    async with gateway.http.request(method, url, data=text or None, headers=headers) as answer:
        return answer.status, await answer.read()


async def made_by(gateway: Serving, key: str) -> dict[str, str]:
    """One of each thing that a team can own."""
    _, store = await call(gateway, "POST /v1/vector_stores", key, {"name": "cats"})
    store_id = json.loads(store)["id"]
    _, file = await call(gateway, f"POST {STORE}/texts", key, OWNED[f"POST {STORE}/texts"], {"store_id": store_id})
    ids = {"store_id": store_id, "file_id": json.loads(file)["data"][0]["id"]}
    _, batch = await call(gateway, f"POST {STORE}/file_batches", key, {"file_ids": [ids["file_id"]]}, ids)
    await call(
        gateway, "POST /v1/chat/completions", key, {"model": "auto", "messages": [{"role": "user", "content": "red"}]}
    )
    await until(lambda: bool(gateway.log.records))
    gateway.store.write_decisions(gateway.log.records)
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", b"{}", filename="in.jsonl")
    async with gateway.http.post(f"{gateway.url}/files", data=form, headers=bearer(key)) as answer:
        ids["input_id"] = (await answer.json())["id"]
    _, job = await call(gateway, "POST /v1/batches", key, OWNED["POST /v1/batches"], ids)
    ids["job_id"] = json.loads(job)["id"]
    return ids | {"batch_id": json.loads(batch)["id"], "decision_id": gateway.log.records[-1].decision_id}


@pytest.mark.parametrize("other_team", ["rival", "acme2"])
async def test_another_team_gets_404_everywhere(tmp_path: Path, other_team: str) -> None:
    async with serving(tmp_path) as gateway:
        keys = KeyStore(gateway.store)
        mine, colleague, other = (keys.create(team, "", Grant())[1] for team in ("acme", "acme", other_team))
        await until(lambda: gateway.gateway.parts.auth.ring.version == 3)
        ids = await made_by(gateway, mine)
        for endpoint, body in OWNED.items():
            status, answer = await call(gateway, endpoint, other, body, ids)
            assert status == 404, (endpoint, answer)
            assert b"cats" not in answer, endpoint
        for endpoint in LISTS:
            assert json.loads((await call(gateway, endpoint, other))[1])["data"] == [], endpoint
            assert json.loads((await call(gateway, endpoint, colleague))[1])["data"] != [], endpoint
        for endpoint, body in OWNED.items():
            status, answer = await call(gateway, endpoint, colleague, body, ids)
            assert status in (200, 202), (endpoint, answer)


async def test_the_list_names_every_endpoint(tmp_path: Path) -> None:
    async with serving(tmp_path) as gateway:
        paths = create_rest(gateway.gateway.parts).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert served == {*OWNED, *LISTS, *TEAMLESS}
    assert {
        "/".join(path.split("/")[:3]) for path in paths.keys() - PLAIN.keys() - {"/v1/models/{name}"}
    } == REST_PATHS - {"/openapi.json"}


async def test_metrics_of_all_teams_need_an_admin(tmp_path: Path) -> None:
    async with serving(tmp_path) as gateway:
        gateway.gateway.current.app._is_exposed = True
        keys = KeyStore(gateway.store)
        plain, admin = (keys.create("acme", "", Grant(is_admin=is_admin))[1] for is_admin in (False, True))
        await until(lambda: gateway.gateway.parts.auth.ring.version == 2)
        assert (await call(gateway, "GET /metrics", plain))[0] == 403
        assert (await call(gateway, "GET /metrics", "wrong"))[0] == 401
        assert (await call(gateway, "GET /metrics", admin))[0] == 200
        assert (await call(gateway, "GET /readyz", plain))[0] == 200
        assert (await call(gateway, "GET /v1/admin/config", plain))[0] == 403


async def test_conversations_of_two_teams_with_one_name_stay_apart(tmp_path: Path) -> None:
    """Else one team's question would count as another's that was asked again."""
    async with serving(tmp_path) as gateway:
        keys = KeyStore(gateway.store)
        secrets = [keys.create(team, "", Grant())[1] for team in ("acme", "acme", "rival")]
        await until(lambda: gateway.gateway.parts.auth.ring.version == 3)
        chat = {"model": "auto", "user": "ann", "messages": [{"role": "user", "content": "red"}]}
        for secret in secrets:
            assert (await call(gateway, "POST /v1/chat/completions", secret, chat))[0] == 200
        await until(lambda: len(gateway.log.records) == 3)
    mine, colleague, other = (record.session_id for record in gateway.log.records)
    assert mine == colleague != other
    assert mine in stored_forms("acme/ann", b"0" * 32)
    assert other in stored_forms("rival/ann", b"0" * 32)
    assert not {mine, other} & stored_forms("ann", b"0" * 32)


async def test_searches_and_embeddings_count_as_requests(tmp_path: Path, redis_url: str) -> None:
    async with serving(tmp_path, redis_url=redis_url) as gateway:
        keys = KeyStore(gateway.store)
        caps = parse_caps(Measure.REQUESTS, ["2/month"])
        _, secret = keys.create("acme", "", Grant(caps=caps))
        await until(lambda: gateway.gateway.parts.auth.ring.version == 1)
        texts = {"model": "auto", "input": "cats"}
        documents = {"model": "auto", "query": "cats", "documents": ["a", "b"]}
        asked = (("embeddings", texts, 200), ("rerank", documents, 200), ("embeddings", texts, 429))
        for path, body, status in asked:
            assert (await call(gateway, f"POST /v1/{path}", secret, body))[0] == status, path


async def test_what_a_provider_bills_for_retrieval_counts_in_usd(tmp_path: Path, redis_url: str) -> None:
    from redis import Redis

    prices = {"base": 1000.0, "animals": 500.0, "words": 7.0}
    async with serving(tmp_path, redis_url=redis_url, config=retrieval_config(prices_per_m_usd=prices)) as gateway:
        caps = parse_caps(Measure.USD, ["0.05/month"])
        key_id, secret = KeyStore(gateway.store).create("acme", "", Grant(caps=caps))
        await until(lambda: gateway.gateway.parts.auth.ring.version == 1)
        asked = {"model": "animals", "input": "which animal purrs when it is content"}
        status, answer = await call(gateway, "POST /v1/embeddings", secret, asked)
        tokens = json.loads(answer)["usage"]["total_tokens"]
        assert status == 200
        assert gateway.log.records[0].cost_usd == pytest.approx(tokens * 1500 / 1e6)
        with Redis.from_url(redis_url) as redis:
            await until(lambda: counters(redis) == {f"{key_id}:usd/month": tokens * 1_500_000})
        long = {"model": "auto", "input": ["cats " * 40]}
        status, refused = await call(gateway, "POST /v1/embeddings", secret, long)
        assert (status, json.loads(refused)["error"]["code"]) == (429, "insufficient_quota")


async def test_a_search_that_is_given_up_is_charged(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its texts may have been read, and billed."""
    from redis import Redis

    begun = asyncio.Event()

    async def reading(*args: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(RetrievalService, "run_soon", reading)
    prices = {"base": 1000.0, "animals": 500.0, "words": 7.0}
    async with serving(tmp_path, redis_url=redis_url, config=retrieval_config(prices_per_m_usd=prices)) as gateway:
        caps = (*parse_caps(Measure.USD, ["1/month"]), *parse_caps(Measure.TOKENS, ["1000/month"]))
        key_id, secret = KeyStore(gateway.store).create("acme", "", Grant(caps=caps))
        await until(lambda: gateway.gateway.parts.auth.ring.version == 1)
        asking = asyncio.create_task(call(gateway, "POST /v1/embeddings", secret, {"model": "auto", "input": "cats"}))
        await begun.wait()
        asking.cancel()
        await until(lambda: gateway.gateway.parts.concurrency.running == 0)
        await until(lambda: not gateway.gateway.parts.limits._unsettled)
        with Redis.from_url(redis_url) as redis:
            spent = {f"{key_id}:usd/month": 1_507_000, f"{key_id}:tokens/month": 1}
            await until(lambda: counters(redis) == spent, f"{spent}")
