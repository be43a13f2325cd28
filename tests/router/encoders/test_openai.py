from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from router.encoders.openai import Options, build, read_vectors
from router.errors import BackendError

GOOD = {"data": [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]}


class Endpoint(ThreadingHTTPServer):
    """Answers with `status` and `body`; keeps what it was asked. `hangs` until told otherwise."""

    daemon_threads = True
    status, body = 200, GOOD
    drops = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[dict[str, object], str | None]] = []
        self.connections: set[object] = set()
        self.released = threading.Event()
        self.released.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_POST(self) -> None:
        self.server.connections.add(self.client_address)
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((asked, self.headers["authorization"]))
        self.server.released.wait(20)
        answer = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        if self.server.drops:  # closes without having said so
            self.server.drops -= 1
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def options_of(server: Endpoint, **changes: object) -> Options:
    values = {"url": f"http://127.0.0.1:{server.server_address[1]}/v1/", "model": "m", "dim": 2, "encoding": "float"}
    return Options.model_validate(values | changes)


def test_vectors_come_in_order_and_normalised_over_one_connection(endpoint: Endpoint) -> None:
    encoder = build(options_of(endpoint, api_key="secret-key"))
    for _ in range(3):
        np.testing.assert_allclose(encoder.encode(["a", " ", "b"]), [[0.6, 0.8], [0, 0], [0, 1]], atol=1e-6)
    assert endpoint.asked[0] == ({"model": "m", "input": ["a", "b"], "encoding_format": "float"}, "Bearer secret-key")
    assert len(endpoint.connections) == 1
    assert "secret-key" not in repr(encoder._options)


def test_batches_hold_at_most_as_many_texts_as_the_option_says(endpoint: Endpoint) -> None:
    build(options_of(endpoint, batch_size=2)).encode(["a", "b", "c", "d"])
    assert [asked["input"] for asked, _ in endpoint.asked] == [["a", "b"], ["c", "d"]]


def test_a_kept_connection_that_died_is_replaced(endpoint: Endpoint) -> None:
    encoder = build(options_of(endpoint))
    endpoint.drops = 1
    encoder.encode(["a", "b"])
    assert encoder.encode(["a", "b"]).shape == (2, 2)
    assert len(endpoint.connections) == 2


@pytest.mark.parametrize(("status", "is_retryable"), [(400, False), (401, False), (429, True), (503, True)])
def test_an_http_error_is_a_backend_error_without_text_or_key(
    endpoint: Endpoint, status: int, is_retryable: bool
) -> None:
    endpoint.status = status
    with pytest.raises(BackendError, match=f"answered {status} for model 'm'") as caught:
        build(options_of(endpoint, api_key="secret-key")).encode(["the prompt"])
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
