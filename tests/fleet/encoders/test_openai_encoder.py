from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import numpy as np
import pytest

from coe.base.errors import BackendError, ConfigError
from coe.fleet.encoders.openai import Options, build, read_vectors
from coe.retrieval.reranker import Reranker
from coe.router.build import build_encoder
from coe.router.config.retrieval import RerankerConfig
from coe.router.section import PluginConfig
from tests.fleet.encoders.endpoint import Endpoint, serving_endpoint
from tests.json_server import JsonHandler, answering


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving_endpoint() as server:
        yield server


def options_of(server: Endpoint, **changes: object) -> Options:
    values = {"url": f"{server.url}/", "model": "m", "dim": 2, "encoding": "float"}
    return Options.model_validate(values | changes)


def test_vectors_come_in_order_and_normalised_over_one_connection(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDINGS_KEY", "secret-key")
    encoder = build(options_of(endpoint, api_key_env="EMBEDDINGS_KEY"))
    for _ in range(3):
        np.testing.assert_allclose(encoder.encode(["a", " ", "b"]), [[0.6, 0.8], [0, 0], [0, 1]], atol=1e-6)
    assert endpoint.asked[0] == ({"model": "m", "input": ["a", "b"], "encoding_format": "float"}, "Bearer secret-key")
    assert len(endpoint.connections) == 1
    assert "secret-key" not in repr(encoder._options)


def test_its_key_may_be_in_a_variable_at_any_depth(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    named = options_of(endpoint, api_key_env="EMBEDDINGS_KEY")
    config = PluginConfig.model_validate(
        {"kind": "concat", "parts": [{"kind": "openai", "options": named.model_dump()}]}
    )
    monkeypatch.delenv("EMBEDDINGS_KEY", raising=False)
    with pytest.raises(
        ConfigError, match="openai encoder: api_key_env: environment variable EMBEDDINGS_KEY is not set"
    ):
        build_encoder(config)
    monkeypatch.setenv("EMBEDDINGS_KEY", "secret-key")
    encoder = build_encoder(config)
    encoder.encode(["a", "b"])
    assert endpoint.asked[0][1] == "Bearer secret-key"
    assert build(named).fingerprint == build(options_of(endpoint)).fingerprint
    assert "secret-key" not in repr(config)


def test_batches_hold_at_most_as_many_texts_as_the_option_says(endpoint: Endpoint) -> None:
    build(options_of(endpoint, batch_size=2)).encode(["a", "b", "c", "d"])
    assert sorted(str(asked["input"]) for asked, _ in endpoint.asked) == ["['a', 'b']", "['c', 'd']"]


LONGEST = 10


class Reads(JsonHandler):
    """Embeds and scores by length; refuses texts of more than ten characters unless it may cut them, as vLLM does."""

    def do_POST(self) -> None:
        body = self.body()
        texts = body.get("input") or body["documents"]
        if "truncate_prompt_tokens" in body:
            texts = [text[:LONGEST] for text in texts]
        if max(map(len, texts)) > LONGEST:
            self.send_json({"error": {"message": "too long", "code": 400}}, 400)
            return
        results = [
            {"index": i, "embedding": [len(text), 1], "relevance_score": len(text)} for i, text in enumerate(texts)
        ]
        self.send_json({"data": results, "results": results})


def test_a_text_that_is_too_long_is_named_or_cut_with_a_warning_and_costs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    texts = ["a" * (number % LONGEST + 1) for number in range(20)] + ["b" * 99]
    with answering(Reads) as root:
        options: dict[str, object] = {"url": f"{root}/v1", "model": "m", "dim": 2, "batch_size": 8}
        with pytest.raises(BackendError, match="for a text of 99 characters") as refused:
            build(Options.model_validate(options)).encode(texts)
        assert refused.value.status == 400
        assert not caplog.records
        found = build(Options.model_validate({**options, "truncates": True})).encode(texts)
        scores = Reranker(RerankerConfig(url=f"{root}/v1", model="m"), {}).scores("q", texts * 7)
    lengths = [min(len(text), LONGEST) for text in texts]
    np.testing.assert_allclose(found[:, 0] / found[:, 1], lengths, rtol=1e-5)
    assert scores.tolist() == lengths * 7
    assert [record.getMessage() for record in caplog.records] == [
        "a text of 99 characters is longer than the model reads: its beginning counts"
    ] * 8


def test_a_kept_connection_that_died_is_replaced(endpoint: Endpoint) -> None:
    encoder = build(options_of(endpoint))
    endpoint.drops = 1
    encoder.encode(["a", "b"])
    assert encoder.encode(["a", "b"]).shape == (2, 2)
    assert len(endpoint.connections) == 2


@pytest.mark.parametrize(("status", "is_retryable"), [(400, False), (401, False), (429, True), (503, True)])
def test_an_http_error_is_a_backend_error_without_text_or_key(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, status: int, is_retryable: bool
) -> None:
    monkeypatch.setenv("EMBEDDINGS_KEY", "secret-key")
    endpoint.status = status
    with pytest.raises(BackendError, match=f"model 'm' answered with status {status}") as caught:
        build(options_of(endpoint, api_key_env="EMBEDDINGS_KEY")).encode(["the prompt"])
    assert caught.value.is_retryable is is_retryable
    assert "prompt" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_silence_is_a_timeout(endpoint: Endpoint) -> None:
    endpoint.released.clear()
    with pytest.raises(BackendError, match=r"within 0\.05 s") as caught:
        build(options_of(endpoint, timeout_s=0.05)).encode(["a"])
    assert caught.value.status == 504


def test_nobody_there_is_unreachable(endpoint: Endpoint) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(BackendError, match="cannot be reached") as caught:
        build(options_of(endpoint, url=url)).encode(["a"])
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"<html>", "not a list of embeddings"),
        (b'{"data": 3}', "not a list of embeddings"),
        (b'{"data": [{"index": 0, "embedding": "!"}]}', "not a list of embeddings"),
        (b'{"data": [{"index": 5, "embedding": [1, 2]}]}', "not a list of embeddings"),
        (b'{"data": [{"index": 0, "embedding": [1, 2, 3]}]}', "3 dimensions; expected 2"),
        (b'{"data": []}', "each of 1 texts"),
        (b'{"data": [{"index": 0, "embedding": [null, 1]}]}', "each of 1 texts|not a list"),
    ],
)
def test_a_broken_answer_is_refused(answer: bytes, match: str) -> None:
    with pytest.raises(BackendError, match=match):
        read_vectors(answer, 1, 2)


def test_base64_is_little_endian_float32() -> None:
    raw = base64.b64encode(np.array([1.5, -2.0], dtype="<f4").tobytes()).decode()
    answer = json.dumps({"data": [{"index": 0, "embedding": raw}]}).encode()
    assert read_vectors(answer, 1, 2).tolist() == [[1.5, -2.0]]
