"""Content types and contents of a JSON body, the time that a bad one takes, and the field that an error names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import yarl

from coe.gateway.endpoints.access import validation_error
from coe.gateway.http_errors import ApiError
from tests.gateway.retrieval.serving import Serving, serving

FORM = {"content-type": "application/x-www-form-urlencoded"}  # what `curl -d` says
MANY = 40_000


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


FLOODS: tuple[tuple[str, dict[str, object]], ...] = (
    ("/embeddings", {"input": [None] * MANY}),
    ("/embeddings", {"input": [[]] * MANY}),
    ("/embeddings", {"input": [[None] * MANY]}),
    ("/embeddings", {"input": "x", **dict.fromkeys(map(str, range(MANY)))}),
    ("/rerank", {"query": "x", "documents": [None] * MANY}),
    ("/rerank", {"query": "x", "documents": [{}] * MANY}),
    ("/feedback", dict.fromkeys(map(str, range(MANY)))),
    ("/vector_stores", {"file_ids": [None] * MANY}),
    ("/vector_stores", {"metadata": dict.fromkeys(map(str, range(MANY)))}),
    ("/vector_stores", {"expires_after": dict.fromkeys(map(str, range(MANY)))}),
    ("{store}/texts", {"texts": [None] * MANY}),
    ("{store}/texts", {"texts": [{"text": "x", "attributes": dict.fromkeys(map(str, range(MANY)))}]}),
    ("{store}/file_batches", {"files": [None] * MANY}),
    ("{store}/search", {"query": [None] * MANY}),
    ("{store}/search", {"query": "x", "filters": {"type": "and", "filters": [None] * MANY}}),
    ("{store}/search", {"query": "x", "filters": {"type": "in", "key": "a", "value": [None] * MANY}}),
)


async def test_a_flood_of_bad_values_is_a_few_faults(running: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault costs tens of microseconds of the event loop, and a kilobyte."""
    counts = []

    def counted(faults: Sequence[Any], body: object) -> ApiError:
        counts.append(len(faults))
        return validation_error(faults, body)

    monkeypatch.setattr("coe.gateway.endpoints.fastapi_app.validation_error", counted)
    _, store, _ = await running.post("/vector_stores", {})
    for path, body in FLOODS:
        path = path.replace("{store}", f"/vector_stores/{store['id']}")
        status, answer = await send(running, path, orjson.dumps(body))
        assert status == 400, (path, answer)
    assert len(counts) == len(FLOODS)
    assert max(counts) < 20


NAMED: tuple[tuple[str, object, str | None, str], ...] = (
    ("/embeddings", {"input": 5}, "input", "must be text"),
    ("/embeddings", {"input": ["a", None]}, "input[1]", "must be text"),
    ("/embeddings", {"input": ["x"] * 2049}, "input", "holds 2049 texts; allowed: at most 2048"),
    ("/embeddings", {}, "input", "required key is missing"),
    ("/embeddings", [], None, "'body': "),
    ("/rerank", {"query": 5, "documents": ["a"]}, "query", "must be text"),
    ("/rerank", {"query": "x", "documents": ["a", None]}, "documents[1]", "must be text"),
    ("/rerank", {"query": "x", "documents": [{"text": 5}]}, "documents[0].text", "must be text"),
    ("/rerank", {"query": "x", "documents": [{}]}, "documents[0].text", "required key is missing"),
    ("{store}/search", {"query": 5}, "query", "must be text"),
    ("{store}/search", {"query": "x", "filters": {"type": "secret"}}, "filters.type", "one of 'eq', 'ne'"),
    ("{store}/search", {"query": "x", "filters": {}}, "filters.type", "required key is missing"),
    (
        "{store}/search",
        {"query": "x", "filters": {"type": "eq", "key": "a"}},
        "filters.value",
        "required key is missing",
    ),
    (
        "{store}/search",
        {"query": "x", "filters": {"type": "or", "filters": [{"type": "in", "key": "a", "value": [1, None]}]}},
        "filters.filters[0].value[1]",
        "must be text",
    ),
    (
        "/vector_stores",
        {"chunking_strategy": {"type": "static"}},
        "chunking_strategy.static",
        "required key is missing",
    ),
    (
        "/vector_stores",
        {"chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 1}}},
        "chunking_strategy.static.max_chunk_size_tokens",
        "must be at least 100",
    ),
    (
        "/vector_stores",
        {"chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}}},
        "chunking_strategy.static",
        "chunk_overlap_tokens is 51",
    ),
    ("/vector_stores", {"chunking_strategy": {"type": "secret"}}, "chunking_strategy.type", "one of 'auto', 'static'"),
    ("{store}/texts", {"texts": [{"text": "x", "attributes": {"a": None}}]}, "texts[0].attributes.a", "must be text"),
    ("{store}/texts", {"texts": [{"text": "x", "colour": 1}]}, "texts[0].colour", "is not a field"),
)


async def test_errors_name_fields_that_there_are(running: Serving) -> None:
    _, store, _ = await running.post("/vector_stores", {})
    for path, body, param, words in NAMED:
        status, answer = await send(
            running, path.replace("{store}", f"/vector_stores/{store['id']}"), orjson.dumps(body)
        )
        error = answer["error"]
        assert (status, error["param"]) == (400, param), (body, error)
        assert words in error["message"], error
        assert error["message"].startswith(f"'{param or 'body'}': ")
        assert "secret" not in error["message"]
    status, answer = await get(running, "/vector_stores?limit=x")
    assert (status, answer["error"]["param"]) == (400, "limit")
    status, answer = await send(running, "/embeddings", b'{"input": ')
    assert (answer["error"]["code"], answer["error"]["param"]) == ("invalid_json", None)
    assert "line 1 column" in answer["error"]["message"]


async def test_a_body_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the reader with bounds: FastAPI validates its values, and does not read the bytes again."""

    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("a second reader")

    async with serving(tmp_path) as running:
        monkeypatch.setattr("starlette.requests.json.loads", refuse)
        content = b'{"input": "a cat", "encoding_format": "base64"}'
        async with running.http.post(f"{running.url}/embeddings", data=content) as answer:
            assert (answer.status, b"embedding" in await answer.read()) == (200, True)
