"""POST /v1/embeddings and /v1/rerank, with OpenAI's client and by hand."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from redis import Redis

from coe.decision_log.decision_record import DecisionKind
from coe.gateway.keys.grants import Grant, Measure, parse_caps
from coe.gateway.keys.key_store import KeyStore
from coe.retrieval.reranker import Reranker
from coe.retrieval.types import BASE, DenseExpert
from coe.router.config.retrieval import RerankerConfig
from tests.gateway.keys.test_limits import counters
from tests.gateway.retrieval.serving import ANIMAL_QUERIES, Serving, build_routing, retrieval_config, serving
from tests.json_server import JsonHandler, answering
from tests.waiting import until

PLAIN = "the tax office opens at nine"


async def test_openai_client_gets_the_vectors_of_the_chosen_experts(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        answer: Any = await client.embeddings.create(model="auto", input=[ANIMAL_QUERIES[0], PLAIN])
        experts = running.service.routing.experts
        wanted = [experts["animals"], experts[BASE]]
        for item, expert, text in zip(answer.data, wanted, [ANIMAL_QUERIES[0], PLAIN], strict=True):
            assert isinstance(expert, DenseExpert)
            np.testing.assert_allclose(item.embedding, expert.encode_queries([text])[0], atol=1e-6)
            assert item.expert == expert.name
        assert answer.model == "auto"
        assert "nearby" in answer.data[0].why
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


async def test_caps_of_tokens_count_what_was_embedded_and_ranked(tmp_path: Path, redis_url: str) -> None:
    async with serving(tmp_path, redis_url=redis_url) as running:
        caps = parse_caps(Measure.TOKENS, ["30/month"])
        _, key = KeyStore(running.store).create("acme", "", Grant(caps=caps))
        ring = running.gateway.parts.auth
        await until(lambda: ring.needs_key)
        status, answer, _ = await running.post("/embeddings", {"input": PLAIN}, key)
        used = answer["usage"]["total_tokens"]
        assert (status, 0 < used < 15) == (200, True)
        _, ranked, _ = await running.post("/rerank", {"query": "tax", "documents": [PLAIN]}, key)
        used += ranked["usage"]["total_tokens"]
        assert (await running.post("/vector_stores/nothing/search", {"query": "tax"}, key))[0] == 404
        assert (await running.post("/embeddings", {"input": PLAIN, "model": "words"}, key))[0] == 400
        await until(lambda: not running.gateway.parts.limits._unsettled)
        with Redis.from_url(redis_url) as client:
            (count,) = [count for name, count in counters(client).items() if name.endswith("tokens/month")]
        assert count == used
        status, refused, _ = await running.post("/embeddings", {"input": [PLAIN] * 10}, key)
        assert (status, refused["error"]["code"]) == (429, "rate_limit_exceeded")


async def test_float_base64_and_dimensions_agree(running: Serving) -> None:
    _, whole, headers = await running.post("/embeddings", {"model": "base", "input": PLAIN})
    _, packed, _ = await running.post(
        "/embeddings", {"model": "base", "input": PLAIN, "encoding_format": "base64", "dimensions": 64}
    )
    cut = np.array(whole["data"][0]["embedding"][:64])
    packed_vector = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_allclose(packed_vector, cut / np.linalg.norm(cut), atol=1e-6)
    assert headers["x-coe-expert"] == "base"
    assert headers["x-coe-reason"] == "explicit"


async def test_documents_of_auto_are_encoded_by_base_and_decide_nothing(running: Serving) -> None:
    body = {"input": [ANIMAL_QUERIES[0]], "input_type": "document"}
    _, answer, headers = await running.post("/embeddings", body)
    assert answer["model"] == "base"
    np.testing.assert_allclose(
        answer["data"][0]["embedding"], running.service.routing.base.encode_documents(body["input"])[0], atol=1e-6
    )
    assert "x-coe-decision-id" not in headers
    assert running.log.records == []


async def test_each_query_is_encoded_once_by_base_and_once_by_the_expert_that_was_chosen(tmp_path: Path) -> None:
    routing = build_routing(retrieval_config())
    calls: list[tuple[str, int]] = []

    class Counted:
        def __init__(self, expert: Any) -> None:
            self._expert = expert

        def __getattr__(self, name: str) -> Any:
            return getattr(self._expert, name)

        def encode_queries(self, texts: Any) -> Any:
            calls.append((self._expert.name, len(texts)))
            return self._expert.encode_queries(texts)

        def encode_documents(self, texts: Any) -> Any:
            return self._expert.encode_documents(texts)

    for name in (BASE, "animals"):
        routing.experts[name] = Counted(routing.experts[name])
    async with serving(tmp_path, routing=routing) as running:
        await running.post("/embeddings", {"input": [PLAIN, *ANIMAL_QUERIES, "opening hours"]})
        assert calls == [(BASE, 4), ("animals", 2)]
        calls.clear()
        await running.post("/embeddings", {"input": PLAIN})
        assert calls == [(BASE, 1)]


async def test_every_query_has_a_record_with_its_propensity(running: Serving) -> None:
    _, answer, headers = await running.post("/embeddings", {"input": [ANIMAL_QUERIES[0], PLAIN]})
    first, second = running.log.records
    assert [first.decision_id, second.decision_id] == [each["decision_id"] for each in answer["data"]]
    assert headers["x-coe-decision-id"] == first.decision_id
    assert first.kind is DecisionKind.EMBEDDING
    assert first.decision.expert == "animals"
    assert first.decision.propensity == 1.0
    assert first.decision.router_version == "pilots-1"
    assert first.retrieval.reason == "pilots"
    assert first.text == ANIMAL_QUERIES[0]
    assert second.retrieval.members == ("base",)
    async with running.http.get(f"{running.url}/decisions/{first.decision_id}") as response:
        receipt = await response.json()
    assert receipt["why"].startswith("animals did best on labelled queries nearby")
    assert receipt["signals"] is None
    assert 0 < first.overhead_ms < first.latency_ms


BAD_EMBEDDINGS: tuple[tuple[dict[str, object], int, str], ...] = (
    ({"input": ""}, 400, "'input' is empty"),
    ({"input": []}, 400, "empty list"),
    ({"input": ["a", "  "]}, 400, r"'input[1]' is empty"),
    ({"input": [1, 2, 3]}, 400, "token numbers"),
    ({"input": [[1, 2], [3]]}, 400, "token numbers"),
    ({"input": ["x"] * 2049}, 400, "at most 2048"),
    ({"input": "x" * 100_001}, 400, "at most 100000"),
    ({"input": "x", "dimensions": 257}, 400, "1 to 256"),
    ({"input": "x", "dimensions": 0}, 400, "dimensions"),
    ({"input": "x", "model": "animal"}, 404, "did you mean 'animals'?"),
    ({"input": "x", "model": "words"}, 400, "has no vectors; allowed: auto, base, animals, other"),
    ({"input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
    ({"input": "x", "colour": "red"}, 400, "colour"),
    ({}, 400, "input"),
)


async def test_bad_requests_name_the_field_and_what_is_allowed(shared: Serving) -> None:
    for body, status, words in BAD_EMBEDDINGS:
        got, answer, _ = await shared.post("/embeddings", body)
        assert got == status, (body, answer)
        assert words in answer["error"]["message"]


@pytest.fixture
async def shared(tmp_path: Path) -> Any:
    async with serving(tmp_path, has_store=False) as running:
        yield running


async def test_rerank_orders_documents_and_says_who_judged(shared: Serving) -> None:
    documents = ["the tax office opens at nine", "code E1234 means no paper", {"text": "an animal purrs"}]
    body = {"query": "error code E1234", "documents": documents, "top_n": 2, "return_documents": True}
    _, answer, headers = await shared.post("/rerank", body)
    assert answer["expert"] == answer["model"] == headers["x-coe-expert"] == "words"
    assert answer["results"][0]["index"] == 1
    assert answer["results"][0]["document"] == {"text": documents[1]}
    assert len(answer["results"]) == 2
    assert shared.log.records[-1].kind is DecisionKind.RERANK
    assert shared.log.records[-1].decision_id == answer["id"]


async def test_rerank_by_base_gives_every_document_once_by_falling_score(shared: Serving) -> None:
    documents = ["one two", "tax office", PLAIN, "nine"]
    _, answer, _ = await shared.post("/rerank", {"query": PLAIN, "documents": documents, "return_documents": False})
    scores = [each["relevance_score"] for each in answer["results"]]
    assert sorted(each["index"] for each in answer["results"]) == [0, 1, 2, 3]
    assert answer["results"][0]["index"] == 2
    assert scores == sorted(scores, reverse=True)
    assert "document" not in answer["results"][0]


class Ranks(JsonHandler):
    """Scores documents by how often they name the query; knows no `down`, and forgets a document that says so."""

    def do_POST(self) -> None:
        asked = self.body()
        rows = [(i, float(text.count(asked["query"]))) for i, text in enumerate(asked["documents"]) if text != "forget"]
        results = [{"index": i, "relevance_score": score} for i, score in rows]
        self.send_json({"results": results}, 503 if asked["query"] == "down" else 200)


async def test_a_reranker_orders_documents_unless_the_client_names_an_expert(running: Serving) -> None:
    with answering(Ranks) as url:
        running.service.reranker = Reranker(RerankerConfig(url=url, model="cross"), {})
        body = {"query": "tax", "documents": ["animal", "tax", "tax and tax"]}
        for model in ("auto", "reranker"):
            status, answer, _ = await running.post("/rerank", {**body, "model": model})
            assert (status, answer["expert"]) == (200, "reranker")
            assert [each["index"] for each in answer["results"]] == [2, 1, 0]
        assert running.log.records[-1].kind is DecisionKind.RERANK
        assert (await running.post("/rerank", {**body, "model": "base"}))[1]["expert"] == "base"
        for query, document, status in (("down", "a", 502), ("tax", "forget", 502)):
            got, answer, _ = await running.post("/rerank", {"query": query, "documents": ["a", document]})
            assert (got, "rerank endpoint" in answer["error"]["message"]) == (status, True)


BAD_RERANKS: tuple[tuple[dict[str, object], str], ...] = (
    ({"query": " ", "documents": ["a"]}, "'query' is empty"),
    ({"query": "a", "documents": []}, "documents"),
    ({"query": "a", "documents": ["x"], "top_n": 0}, "top_n"),
)


async def test_rerank_refuses_what_it_cannot_order(shared: Serving) -> None:
    for body, words in BAD_RERANKS:
        status, answer, _ = await shared.post("/rerank", body)
        assert status == 400, body
        assert words in answer["error"]["message"]


async def test_openai_client_sees_a_not_found_error_for_an_unknown_expert(shared: Serving) -> None:
    async with shared.openai() as client:
        with pytest.raises(openai.NotFoundError, match="no retrieval expert"):
            await client.embeddings.create(model="text-embedding-3-small", input="x")


async def test_no_encoder_is_asked_while_no_row_could_be_written(
    running: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = await running.store_of({"a.txt": "the animal purrs"})
    running.log.problem = "spool: No space left on device"
    monkeypatch.setattr(type(running.service), "run", None)  # nothing may be encoded
    for path, body in (
        ("/embeddings", {"model": "auto", "input": PLAIN}),
        ("/rerank", {"model": "auto", "query": PLAIN, "documents": ["a", "b"]}),
        (f"/vector_stores/{store_id}/search", {"query": PLAIN}),
    ):
        status, answer, _ = await running.post(path, body)
        assert (status, answer["error"]["code"]) == (503, "store_unavailable"), path
        assert "No space left on device" in answer["error"]["message"]
    assert running.log.records == []
