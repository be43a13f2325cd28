"""Whoever asks for much, or has left, keeps nobody else waiting; what a request may ask for has bounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from coe.retrieval.experts.bm25 import Bm25Expert, Bm25Index
from coe.retrieval.fair_threads import PIECE_CHARS
from coe.retrieval.service import THREADS
from coe.retrieval.stores import document_vectors
from coe.retrieval.types import BaseExpert
from coe.router.types import FloatArray
from tests.gateway.retrieval.serving import serving
from tests.waiting import DEADLINE_S, until

KEYS = ("sk-" + "a" * 40, "sk-" + "b" * 40)
LONG = "long " * (PIECE_CHARS // 5)  # a piece by itself

BULK: dict[str, tuple[str, Mapping[str, object]]] = {
    "queries": ("/embeddings", {"input": [LONG] * 6}),
    "documents": ("/embeddings", {"input": [LONG] * 6, "input_type": "document"}),
    "rerank": ("/rerank", {"query": "cat", "documents": [LONG] * 6, "model": "base"}),
}


class Gate:
    """Holds whoever encodes a long text until it is opened, and counts them."""

    def __init__(self) -> None:
        self._is_open = threading.Event()
        self.entered = 0

    def open(self) -> None:
        self._is_open.set()

    def pass_by(self, texts: Sequence[str]) -> None:
        if LONG in texts:
            self.entered += 1
            assert self._is_open.wait(DEADLINE_S)

    async def until_entered(self, count: int) -> None:
        await until(lambda: self.entered >= count)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    queries, documents = BaseExpert.encode_queries, BaseExpert.encode_documents

    def encode_queries(self: BaseExpert, texts: Sequence[str]) -> FloatArray:
        made.pass_by(texts)
        return queries(self, texts)

    def encode_documents(self: BaseExpert, texts: Sequence[str]) -> FloatArray:
        made.pass_by(texts)
        return documents(self, texts)

    monkeypatch.setattr(BaseExpert, "encode_queries", encode_queries)
    monkeypatch.setattr(BaseExpert, "encode_documents", encode_documents)
    yield made
    made.open()


@pytest.mark.parametrize("kind", BULK)
async def test_work_of_a_client_that_left_is_given_up(tmp_path: Path, gate: Gate, kind: str) -> None:
    path, body = BULK[kind]
    async with serving(tmp_path) as running:
        left = [asyncio.create_task(running.post(path, body)) for _ in range(THREADS + 1)]
        await gate.until_entered(THREADS)
        for task in left:
            task.cancel()
        await until(lambda: running.gateway.parts.concurrency.running == 0)
        gate.open()
        status, answer, _ = await running.post("/embeddings", {"input": ["one", LONG]})
        assert (status, len(answer["data"])) == (200, 2)
        assert gate.entered == THREADS + 1  # what was in hand, and the last one's own
        assert running.gateway.parts.metrics.faults._value.get() == 0


@pytest.mark.parametrize("kind", BULK)
async def test_a_small_request_does_not_wait_for_large_ones(tmp_path: Path, gate: Gate, kind: str) -> None:
    path, body = BULK[kind]
    async with serving(tmp_path, keys=KEYS) as running, running.openai(KEYS[1]) as client:
        store = await client.vector_stores.create()
        await running.post(f"/vector_stores/{store.id}/texts", {"texts": [{"text": "a cat"}]}, KEYS[1])
        large = [asyncio.create_task(running.post(path, body, KEYS[0])) for _ in range(THREADS + 3)]
        await gate.until_entered(THREADS)
        found = await client.vector_stores.search(store.id, query="a cat")
        assert [each.content[0].text for each in found.data] == ["a cat"]
        assert len((await client.embeddings.create(model="auto", input="a cat")).data) == 1
        gate.open()
        assert {status for status, _, _ in await asyncio.gather(*large)} == {200}


async def test_keys_take_turns_in_bulk(tmp_path: Path, gate: Gate) -> None:
    async with serving(tmp_path, keys=KEYS) as running:
        done: list[str] = []

        async def ask(key: str, count: int) -> None:
            status, _, _ = await running.post("/embeddings", {"input": [LONG] * count}, key)
            assert status == 200
            done.append(key)

        asked = [asyncio.create_task(ask(KEYS[0], 8)) for _ in range(4)]
        await gate.until_entered(THREADS)
        asked.append(asyncio.create_task(ask(KEYS[1], 2)))
        await until(lambda: running.gateway.parts.concurrency.running == 5)
        gate.open()
        await asyncio.gather(*asked)
        assert done[0] == KEYS[1]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/embeddings", {"input": ["x"] * 6}, "'input' is a list of 6 texts; allowed: a text, or 1 to 5 texts"),
        ("/embeddings", {"input": []}, "'input' is an empty list; allowed: a text, or 1 to 5 texts"),
        ("/embeddings", {"input": ["a b " * 300] * 2}, "'input' holds 1200 tokens; allowed: at most 1000 in a request"),
        (
            "/rerank",
            {"query": "x", "documents": ["a " * 1000]},
            "'documents' holds 1001 tokens; allowed: at most 1000 in a request",
        ),
    ],
)
async def test_a_request_is_bounded(
    tmp_path: Path, path: str, body: Mapping[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.gateway.endpoints.embeddings.MAX_TEXTS", 5)
    monkeypatch.setattr("coe.gateway.endpoints.retrieval_exchange.MAX_REQUEST_TOKENS", 1000)
    async with serving(tmp_path) as running:
        status, answer, _ = await running.post(path, body)
        assert (status, answer["error"]["message"]) == (400, words)


@pytest.mark.parametrize("kind", BULK)
async def test_a_request_has_a_deadline(tmp_path: Path, gate: Gate, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.gateway.endpoints.retrieval_exchange.REQUEST_TIMEOUT_S", 0.2)
    path, body = BULK[kind]
    async with serving(tmp_path) as running:
        status, answer, _ = await running.post(path, body)
        assert (status, answer["error"]["code"]) == (504, "retrieval_timeout")
        assert answer["error"]["message"] == (
            "the request took more than the 0.2 s that are allowed; send fewer or shorter texts"
        )
        gate.open()


@pytest.mark.parametrize("has_changed", [False, True])
async def test_who_is_cut_off_by_the_end_is_told(tmp_path: Path, gate: Gate, has_changed: bool) -> None:
    async with serving(tmp_path, shutdown_grace_s=0.1) as running:
        asked = asyncio.create_task(running.post("/embeddings", {"input": [LONG] * 3}))
        await gate.until_entered(1)
        if has_changed:
            parts = running.gateway.parts
            running.gateway.change(parts.changed(parts.config, parts.pool, parts.live, {}))
        stopping = asyncio.create_task(running.gateway.stop())
        status, answer, _ = await asked
        assert (status, answer["error"]["code"]) == (503, "server_shutting_down")
        gate.open()
        await stopping


async def test_a_search_that_indexes_many_words_keeps_no_other_search_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_vectors, "MAX_INDEXED_AT_ONCE", 1)
    may_end, indexing = threading.Event(), threading.Event()
    index = Bm25Expert.index

    def slow_index(self: Bm25Expert, texts: Sequence[str]) -> Bm25Index:
        if len(texts) > 1:
            indexing.set()
            assert may_end.wait(DEADLINE_S)
        return index(self, texts)

    monkeypatch.setattr(Bm25Expert, "index", slow_index)
    async with serving(tmp_path) as running:
        large = await running.store_of({f"{number}.txt": f"error E{number}" for number in range(3)})
        small = await running.store_of({"one.txt": "error E1"})
        searches = [asyncio.create_task(running.search(large, "E2", model="words")) for _ in range(THREADS + 1)]
        await asyncio.to_thread(indexing.wait)
        status, answer, _ = await running.search(small, "E1", model="words")
        assert (status, answer["data"][0]["filename"]) == (200, "one.txt")
        may_end.set()
        for status, answer, _ in await asyncio.gather(*searches):
            assert (status, answer["data"][0]["filename"]) == (200, "2.txt")


async def test_vectors_are_the_same_in_one_piece_and_in_many(tmp_path: Path) -> None:
    texts = [f"text {number} " * (number % 7 + 1) * 60 for number in range(40)]
    async with serving(tmp_path) as running:
        _, together, _ = await running.post("/embeddings", {"input": texts})
        assert len(together["data"]) == len(texts)
        for place in (0, 17, 39):
            _, alone, _ = await running.post("/embeddings", {"input": texts[place]})
            assert alone["data"][0]["embedding"] == pytest.approx(together["data"][place]["embedding"], abs=1e-6)
        assert [each["index"] for each in together["data"]] == list(range(len(texts)))
        _, ranked, _ = await running.post("/rerank", {"query": texts[17], "documents": texts, "model": "base"})
        same = {place for place, text in enumerate(texts) if set(text.split()) == set(texts[17].split())}
        assert ranked["results"][0]["index"] in same
