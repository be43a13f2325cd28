"""What a JSON body may be called and hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import yarl

from tests.gateway.retrieval.serving import Serving, serving

FORM = {"content-type": "application/x-www-form-urlencoded"}  # what `curl -d` says


@pytest.fixture
async def running(tmp_path: Path) -> Any:
    async with serving(tmp_path) as it:
        yield it


async def send(running: Serving, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    skipped = () if headers else ("content-type",)
    async with running.http.post(running.url + path, data=body, headers=headers, skip_auto_headers=skipped) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("headers", [None, FORM, {"content-type": "text/plain"}])
async def test_a_body_is_json_whatever_it_is_called(running: Serving, headers: dict[str, str] | None) -> None:
    _, store = await send(running, "/vector_stores", b'{"name":"plain"}', headers)
    texts = b'{"texts":[{"text":"an animal purrs","filename":"a.txt"}]}'
    status, added = await send(running, f"/vector_stores/{store['id']}/texts", texts, headers)
    assert (status, added["data"][0]["status"]) == (200, "completed")
    status, found = await send(running, f"/vector_stores/{store['id']}/search", b'{"query":"purrs"}', headers)
    assert status == 200
    said = {
        "decision_id": found["decisions"][0]["decision_id"],
        "document_id": found["data"][0]["document_id"],
        "kind": "thumb",
        "value": 1,
    }
    assert (await send(running, "/feedback", orjson.dumps(said), headers))[0] == 202
    assert (await send(running, "/embeddings", b'{"input":"x"}', headers))[0] == 200
    assert (await send(running, "/rerank", b'{"query":"x","documents":["x"]}', headers))[0] == 200


LONE = "\ud800"
POISONED: tuple[tuple[str, dict[str, object]], ...] = (
    ("/vector_stores", {"name": "poison", "metadata": {"a": LONE}}),
    ("/vector_stores", {"name": "poison", "metadata": {LONE: "a"}}),
    ("/vector_stores", {"name": LONE}),
    ("/vector_stores", {"name": "poison", "file_ids": [LONE]}),
    ("{store}", {"metadata": {"a": LONE}}),
    ("{store}/texts", {"texts": [{"text": "x", "attributes": {"a": LONE}}]}),
    ("{store}/texts", {"texts": [{"text": LONE}]}),
    ("{store}/files", {"file_id": LONE}),
    ("{store}/files", {"file_id": "{file}", "attributes": {"a": LONE}}),
    ("{store}/files/{file}", {"attributes": {"a": LONE}}),
    ("{store}/file_batches", {"file_ids": [LONE]}),
    ("{store}/search", {"query": LONE}),
    ("{store}/search", {"query": "x", "filters": {"type": "eq", "key": "a", "value": LONE}}),
    ("/embeddings", {"input": f"a {LONE} b"}),
    ("/embeddings", {"input": "x", "user": LONE}),
    ("/rerank", {"query": "x", "documents": [LONE]}),
    ("/feedback", {"decision_id": LONE, "kind": "thumb", "value": 1}),
    ("/route", {"text": LONE}),
)


async def test_lone_surrogates_are_refused_and_poison_nothing(running: Serving) -> None:
    store_id = await running.store_of({"a.txt": "x y z"})
    _, files = await get(running, f"/vector_stores/{store_id}/files")
    places = {"{store}": f"/vector_stores/{store_id}", "{file}": files["data"][0]["id"]}
    for path, body in POISONED:
        raw = json.dumps(body)
        for name, value in places.items():
            path, raw = path.replace(name, value), raw.replace(name, value)
        status, answer = await send(running, path, raw.encode())
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "invalid_json", None), raw
        assert "surrogate" in answer["error"]["message"], answer
    status, listed = await get(running, "/vector_stores")
    assert (status, [each["id"] for each in listed["data"]]) == (200, [store_id])
    assert (await get(running, f"/vector_stores/{store_id}/files"))[1] == files
    assert running.log.records == []
    pair = await send(running, "/vector_stores", b'{"metadata":{"a":"\\ud83d\\ude00"}}')
    assert pair[1]["metadata"] == {"a": "\U0001f600"}


async def get(running: Serving, path: str) -> tuple[int, Any]:
    async with running.http.get(running.url + path) as response:
        return response.status, await response.json()


async def test_surrogates_in_the_address_are_no_fault_of_ours(running: Serving) -> None:
    lone = "%ED%A0%80"
    for path, wanted in (
        (f"/vector_stores?after={lone}", 200),
        (f"/vector_stores?limit={lone}", 400),
        (f"/vector_stores/{lone}", 404),
        (f"/files?purpose={lone}", 200),
        (f"/files/{lone}/content", 404),
        (f"/models/{lone}", 404),
        (f"/decisions/{lone}", 404),
        (f"/nothing/{lone}", 404),
    ):
        async with running.http.get(yarl.URL(running.url + path, encoded=True)) as response:
            assert response.status == wanted, path
            assert await response.json()
